"""Checks of a user's numbers; every message says what was expected and what came."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any


def checked_probability(name: str, value: Any) -> float:
    """Check that `value` is a probability, and return it as a float.

    Raises:
        ValueError: it is not a number in that range.
    """
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {value!r}")
    return number


def checked_range(name: str, value: Any, low: float = 0.0, inclusive: bool = False) -> tuple[float, float]:
    """Check that `value` is a range, and return it as (low, high); a scalar is a fixed value.

    Raises:
        ValueError: not one or two finite numbers, inverted, or not above `low` (`inclusive` admits `low` itself).
    """
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}: expected a number or a pair (low, high), got {value!r}")
    first, second = (_number(name, v) for v in pair)
    if first < low or (first == low and not inclusive):
        raise ValueError(f"{name}: expected values {'of at least' if inclusive else 'above'} {low:g}, got {value!r}")
    if first > second:
        raise ValueError(f"{name}: expected low <= high, got {value!r}")
    return first, second


def checked_at_least(name: str, value: Any, low: float = 0.0) -> float:
    """Check that `value` is finite and at least `low`, and return it as a float.

    Raises:
        ValueError: it is not.
    """
    return checked_range(name, value, low, inclusive=True)[0]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def in_short(reasons: Sequence[str], most: int = 3) -> str:
    """The first of many reasons, and how many more there are; each case has one of its own."""
    more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    return "; ".join(reasons[:most]) + more
