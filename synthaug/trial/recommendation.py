"""What follows from a trial, in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from synthaug.trial.statistics import Estimate, holm

USE, LEAVE, UNDECIDED = "use", "leave it off", "undecided"
MOST_PAIRS = 1000


@dataclass(frozen=True)
class Verdict:
    """What holds for an arm.

    Attributes:
        arm: its name.
        word: ``"use"``, ``"leave it off"`` or ``"undecided"``.
        why: in words.
        mean: difference of the endpoint.
        low: end of the endpoint's corrected interval.
        high: its other end.
    """

    arm: str
    word: str
    why: str
    mean: float
    low: float
    high: float


def judge(
    endpoints: Mapping[str, Estimate],
    regions: Mapping[str, Mapping[str, Estimate]],
    alpha: float,
    worthwhile: float,
    pairs: int,
    final: bool,
) -> list[Verdict]:
    """Judge each arm.

    Args:
        endpoints: arm to difference of the endpoint.
        regions: arm to name of region or class to its difference.
        alpha: of this look.
        worthwhile: smallest gain that is worth it.
        pairs: that are complete.
        final: whether all that were planned are.
    """
    parts = holm({arm: found.p_value for arm, found in endpoints.items()}, alpha)
    return [_judged(arm, endpoints[arm], regions[arm], (parts[arm], alpha), worthwhile, pairs, final) for arm in parts]


def _judged(
    arm: str,
    found: Estimate,
    regions: Mapping[str, Estimate],
    alphas: tuple[float, float],
    worthwhile: float,
    pairs: int,
    final: bool,
) -> Verdict:
    low, high = found.interval(alphas[0])
    harmed = [name for name, each in regions.items() if each.interval(alphas[1])[1] < 0]
    gain = f"{found.mean:+.3f} {words(low, high)}"
    if high < worthwhile:
        return Verdict(arm, LEAVE, f"{gain}: a gain of {worthwhile:g} is excluded", found.mean, low, high)
    if low > 0 and not harmed:
        return Verdict(arm, USE, f"{gain}: ahead of the reference, and no region behind it", found.mean, low, high)
    if harmed:
        return Verdict(arm, LEAVE, f"{gain}, but {', '.join(harmed)} lies behind the reference", found.mean, low, high)
    if final and found.mean < 0:
        return Verdict(arm, LEAVE, f"{gain}: no gain after all pairs that were planned", found.mean, low, high)
    return Verdict(arm, UNDECIDED, f"{gain}: {_more(found, alphas[0], worthwhile, pairs)}", found.mean, low, high)


def words(low: float, high: float) -> str:
    """Write an interval, or that there are too few to know one."""
    return f"[{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else "[too few for an interval]"


def _more(found: Estimate, alpha: float, worthwhile: float, pairs: int) -> str:
    """Say how many more pairs would decide, were the mean and the spread to stay."""
    width = found.half_width(alpha)
    if not math.isfinite(width):
        return "more pairs are needed before their spread is known"
    distance = max(found.mean, worthwhile - found.mean)
    needed = math.ceil(pairs * (width / distance) ** 2) - pairs
    count = f"about {max(1, needed)}" if needed <= MOST_PAIRS else f"more than {MOST_PAIRS}"
    return f"{count} more pairs would be needed at this spread"


def leading(verdicts: list[Verdict]) -> Verdict:
    """Find the arm that the recommendation speaks of: the greatest gain among those to use, else those undecided."""
    for word in (USE, UNDECIDED, LEAVE):
        if found := [verdict for verdict in verdicts if verdict.word == word]:
            return max(found, key=lambda verdict: verdict.mean)
    raise ValueError("verdicts: expected at least one, got none")


def recommendation(verdicts: list[Verdict], reference: str) -> str:
    """Say in one sentence what to do.

    Args:
        verdicts: one for each arm.
        reference: name of the arm that they were compared with.
    """
    best = leading(verdicts)
    if best.word == USE:
        return f"Use {best.arm}: {best.why}."
    if best.word == UNDECIDED:
        return f"Undecided, stay with {reference}: {best.arm} is {best.why}."
    return f"Leave it off: {best.arm}, {best.why}."
