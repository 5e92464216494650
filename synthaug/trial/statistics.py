"""Paired differences with intervals over patients, and what early looks and several arms cost.

A difference is an arm's score minus the reference's on the same case, rotation and seed. Its standard error is that
of the bootstrap over patients, or, where few patients train and the choice of them counts, over patients and
rotations at once (the pigeonhole bootstrap of Owen, 2007); its interval is Student's, for there are few of both.
Early looks spend the chance of a false finding as Lan and DeMets (1983) have it, after O'Brien and Fleming; the
interval of a look has the level of what that look spends, and Holm's rule (1979) divides that over the arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 4000
Cells = Mapping[tuple[str, int], float]
"""Patient and rotation to the mean difference over seeds."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference.

    Attributes:
        mean: over patients.
        error: its standard error; NaN where there are too few patients or rotations to know it.
        freedom: degrees of freedom of its interval.
        patients: number of them.
    """

    mean: float
    error: float
    freedom: int
    patients: int

    def half_width(self, alpha: float) -> float:
        """Compute half the width of the interval of the level 1 - `alpha`; infinite where the error is not known."""
        if not np.isfinite(self.error) or alpha <= 0:
            return float("inf")
        return float(stats.t.isf(alpha / 2, self.freedom)) * self.error

    def interval(self, alpha: float) -> tuple[float, float]:
        """Compute that interval, within -1 and 1, for scores are shares; infinite where the error is not known."""
        width = self.half_width(alpha)
        if not np.isfinite(width):
            return -np.inf, np.inf
        return max(-1.0, self.mean - width), min(1.0, self.mean + width)

    @property
    def p_value(self) -> float:
        """The least alpha at which the interval excludes 0; 1 where the error is not known."""
        if not np.isfinite(self.error):
            return 1.0
        if self.error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))


def estimate(cells: Cells, clustered: bool, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Estimate the mean difference over patients; a patient's is the mean over its rotations.

    Args:
        cells: differences.
        clustered: whether rotations are drawn too, as where few patients train.
        seed: of the bootstrap.
        resamples: number of its draws.

    Raises:
        ValueError: no difference.
    """
    if not cells:
        raise ValueError("differences: expected at least one, got none")
    patients, turns = (list(dict.fromkeys(key[axis] for key in sorted(cells))) for axis in (0, 1))
    values, known = np.zeros((2, len(patients), len(turns)))
    for (patient, turn), value in cells.items():
        at = patients.index(patient), turns.index(turn)
        values[at], known[at] = value, 1
    mean = float((values.sum(1) / known.sum(1)).mean())
    units = min(len(patients), len(turns)) if clustered else len(patients)
    if units < 2:
        return Estimate(mean, float("nan"), 0, len(patients))
    rng = np.random.default_rng(seed)
    of_patients = _counts(len(patients), resamples, rng)
    of_turns = _counts(len(turns), resamples, rng) if clustered else np.ones((resamples, len(turns)))
    times = of_turns @ known.T  # (draws, patients): how often each was tested in a draw
    means = np.divide(of_turns @ values.T, times, out=np.zeros_like(times), where=times > 0)
    weight = of_patients * (times > 0)
    there = weight.sum(1) > 0
    draws = (weight * means).sum(1)[there] / weight.sum(1)[there]
    # drawing n of n makes the spread smaller by n - 1 in n
    error = float(draws.std()) * (units / (units - 1)) ** 0.5
    return Estimate(mean, 0.0 if error < 1e-12 else error, units - 1, len(patients))


def _counts(size: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `size` is drawn, (resamples, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples)


def spent(fraction: float, alpha: float) -> float:
    """Compute the alpha that is spent when this fraction of the planned pairs is done.

    Example:
        >>> [round(spent(t, 0.05), 4) for t in (0.25, 0.5, 0.75, 1.0)]
        [0.0001, 0.0056, 0.0236, 0.05]
    """
    if fraction <= 0:
        return 0.0
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / min(1.0, fraction) ** 0.5))


def holm(p_values: Mapping[str, float], alpha: float) -> dict[str, float]:
    """Divide alpha over the arms; an arm differs from the reference where its p-value is below its part.

    Example:
        >>> holm({"a": 0.01, "b": 0.2, "c": 0.6}, 0.06)
        {'a': 0.02, 'b': 0.03, 'c': 0.03}
    """
    parts, left, failed = {}, len(p_values), False
    for name in sorted(p_values, key=lambda name: p_values[name]):
        parts[name] = alpha / left
        failed = failed or p_values[name] >= parts[name]
        left -= not failed
    return {name: parts[name] for name in p_values}
