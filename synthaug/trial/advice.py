"""What a trial recommends, in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthaug.trial.statistics import Interval, Key

USE, LEAVE, UNDECIDED = "use", "leave it off", "undecided"


@dataclass(frozen=True)
class Advice:
    """Verdict on one arm, ``"use"``, ``"leave it off"`` or ``"undecided"``, and a sentence with the reason."""

    arm: str
    verdict: str
    words: str


def advise(arm: str, found: Interval, harmed: Sequence[str], worthwhile: float, further: str) -> Advice:
    """Judge an arm.

    Args:
        arm: its name.
        found: the endpoint's difference with its corrected interval.
        harmed: regions whose interval lies wholly below 0.
        worthwhile: smallest gain that would matter.
        further: what more would be needed to decide, in words.
    """
    difference = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if found.high < 0:
        return Advice(arm, LEAVE, f"leave {arm} off: it loses, {difference}")
    if found.high < worthwhile:
        return Advice(arm, LEAVE, f"leave {arm} off: a gain of {worthwhile:g} is ruled out, {difference}")
    if found.low > 0 and not harmed:
        return Advice(arm, USE, f"use {arm}: it gains, {difference}")
    if found.low > 0:
        return Advice(arm, UNDECIDED, f"{arm} is undecided: it gains, {difference}, but {', '.join(harmed)} loses")
    return Advice(arm, UNDECIDED, f"{arm} is undecided, {difference}; {further}")


def headline(advices: Mapping[str, Advice], found: Mapping[str, Interval]) -> str:
    """Say the recommendation of the whole trial in one sentence: the best arm to use, or none."""
    useful = [arm for arm, advice in advices.items() if advice.verdict == USE]
    if useful:
        return _sentence(advices[max(useful, key=lambda arm: found[arm].mean)].words)
    if advices and all(advice.verdict == LEAVE for advice in advices.values()):
        return "Leave it off: " + "; ".join(_reason(advice) for advice in advices.values()) + "."
    return "Undecided: " + "; ".join(advice.words for advice in advices.values()) + "."


def further_pairs(differences: Mapping[Key, tuple[str, float]], pairs: int, worthwhile: float, alpha: float) -> str:
    """Say how many more pairs of trainings would decide, if the mean and the spread stayed as they are.

    The spread is of patients, which more pairs do not lessen, and of pairs within patients, which they do.

    Args:
        differences: patient and difference of each rotation, seed and case.
        pairs: number of pairs, rotations and seeds, that they are of.
        worthwhile: smallest gain that would matter.
        alpha: of the trial, shared among its arms.
    """
    from scipy.stats import norm

    groups: dict[str, list[float]] = {}
    for group, value in differences.values():
        groups.setdefault(group, []).append(value)
    means = np.array([np.mean(values) for values in groups.values()])
    if len(means) < 2:
        return "with one patient nothing can be decided"
    repeats = len(differences) / len(groups)
    within, between = _spread(list(groups.values()), means, repeats)
    gap = max(float(means.mean()), worthwhile - float(means.mean()))
    room = (gap / float(norm.isf(alpha / 2))) ** 2 * len(groups) - between
    if room <= 0:
        return "more trainings alone would not decide, for the patients differ too much: it takes more patients"
    more = max(1, math.ceil(pairs * (within / room / repeats - 1)))
    return f"with this spread about {more} more {'pair' if more == 1 else 'pairs'} of trainings would decide"


def _spread(groups: list[list[float]], means: np.ndarray, repeats: float) -> tuple[float, float]:
    """Estimate the variances within and between patients; of patients tested once, all of it counts as within."""
    repeated = [values for values in groups if len(values) > 1]
    of_means = float(means.var(ddof=1))
    if not repeated:
        return of_means * repeats, 0.0
    within = sum(np.var(v) * len(v) for v in repeated) / sum(len(v) - 1 for v in repeated)
    return float(within), max(0.0, of_means - float(within) / repeats)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _reason(advice: Advice) -> str:
    return f"{advice.arm}: {advice.words.partition(': ')[2]}"
