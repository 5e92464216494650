"""Figures of a trial: differences of patients, intervals, the levels of its looks, and what they recommend.

A patient's difference is the mean over rotations and seeds of (arm - reference) on the same patient, rotation and seed.
Intervals are over patients. The endpoint's interval has a level of its own: alpha is spent over the looks as O'Brien
and Fleming's boundaries spend it (Lan and DeMets, 1983, Biometrika 70: 659), each look with the level of its increment,
and it is shared among the arms by Holm's method. For few patients the percentile bootstrap is too narrow (four that
happen to agree exclude 0 at any level), so that the endpoint's interval is never narrower than Student's t.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthaug.evaluation.summary import summarise

METRICS = ("dice", "lesion_recall", "false_positives")
RESAMPLES = 10_000

Row = Mapping[str, Any]
Key = tuple[int, int, str]
"""Rotation, seed and case."""


@dataclass(frozen=True)
class Interval:
    """Mean of patients' differences with its interval, and the p-value of Holm's order; NaN limits where none is."""

    mean: float
    low: float
    high: float
    p: float = 1.0


def spent(share: float, alpha: float) -> float:
    """Compute the alpha that is spent when a share of the planned information is there.

    Args:
        share: in [0, 1].
        alpha: spent at a share of 1.

    Example:
        >>> [round(spent(share, 0.05), 4) for share in (0, 0.25, 0.5, 1)]
        [0.0, 0.0001, 0.0056, 0.05]
    """
    from scipy.stats import norm

    if share <= 0:
        return 0.0
    return float(2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(min(share, 1.0))))


def paired(ours: Iterable[Row], theirs: Iterable[Row]) -> list[dict[str, Any]]:
    """Join the rows of an arm with the reference's of the same rotation, seed, case, region and size.

    Returns:
        Rows with each of `METRICS` as ``NAME``, ``NAME_reference`` and ``NAME_difference``, None where undefined.

    Raises:
        ValueError: rows without a partner.
    """
    keys = ("rotation", "seed", "case", "region", "size")
    arm, reference = ({tuple(row[k] for k in keys): row for row in side} for side in (ours, theirs))
    if alone := sorted(map(str, {*arm} ^ {*reference})):
        raise ValueError(f"paired rows: {len(alone)} have no partner, such as {alone[0]}")
    joined = []
    for key, row in arm.items():
        head = {name: row[name] for name in ("arm", "rotation", "seed", "case", "group", "region", "kind", "size")}
        for name in METRICS:
            a, b = row.get(name), reference[key].get(name)
            head |= {name: a, f"{name}_reference": b}
            head[f"{name}_difference"] = None if a is None or b is None else a - b
        joined.append(head)
    return joined


def of_patients(rows: Iterable[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Average numbers of paired rows over rotations, seeds and cases, for each patient, region and size."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["group"], row["region"], row["kind"], row["size"]), []).append(row)
    table = []
    for (group, region, kind, size), members in groups.items():
        head = {"case": group, "group": group, "region": region, "kind": kind, "size": size}
        values = {name: [row[name] for row in members if row[name] is not None] for name in names}
        table.append(head | {name: float(np.mean(v)) if v else None for name, v in values.items()})
    return table


def difference_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Summarise paired rows by region and size: mean of arm, reference and difference over patients, with intervals.

    The intervals are percentile bootstraps at 95 %, each by itself.
    """
    names = [f"{name}{side}" for name in METRICS for side in ("", "_reference", "_difference")]
    there = [name for name in names if any(row[name] is not None for row in rows)]
    return summarise(of_patients(rows, there), ("region", "size"), there)


def endpoint_rows(rows: Iterable[Row], endpoint: Sequence[str] | None) -> dict[Key, tuple[str, float]]:
    """Average the Dice differences over the endpoint's regions: patient and difference of each rotation, seed and case.

    Raises:
        ValueError: a region that the rows do not have.
    """
    whole = [row for row in rows if row["size"] == "all"]
    names = endpoint_names(whole, endpoint)
    found: dict[Key, tuple[str, list[float]]] = {}
    for row in whole:
        if row["region"] in names and row["dice_difference"] is not None:
            key = (row["rotation"], row["seed"], row["case"])
            found.setdefault(key, (row["group"], []))[1].append(row["dice_difference"])
    return {key: (group, float(np.mean(values))) for key, (group, values) in found.items()}


def endpoint_names(rows: Sequence[Row], endpoint: Sequence[str] | None) -> tuple[str, ...]:
    """Return the regions of the endpoint: as given, else all regions, else all classes.

    Raises:
        ValueError: a region that the rows do not have.
    """
    known = dict.fromkeys(row["region"] for row in rows)
    if endpoint is not None:
        if unknown := [name for name in endpoint if name not in known]:
            raise ValueError(f"endpoint: expected some of {', '.join(known)}, got {', '.join(unknown)}")
        return tuple(endpoint)
    return tuple(dict.fromkeys(row["region"] for row in rows if row["kind"] == "region")) or tuple(known)


def patient_means(differences: Mapping[Key, tuple[str, float]]) -> dict[str, float]:
    """Average over rotations, seeds and cases, for each patient."""
    groups: dict[str, list[float]] = {}
    for group, value in differences.values():
        groups.setdefault(group, []).append(value)
    return {group: float(np.mean(values)) for group, values in sorted(groups.items())}


def interval(values: Sequence[float], level: float, seed: int = 0) -> Interval:
    """Compute the mean of patients and the wider of two intervals, percentile bootstrap and Student's t.

    Args:
        values: a number for each patient.
        level: of the interval, in [0, 1]; at 1 it has no end.
        seed: of the bootstrap.

    Example:
        >>> found = interval([0.02, 0.04, 0.03, 0.05, 0.01], level=0.95)
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
        (0.03, 0.01, 0.05)
    """
    from scipy.stats import bootstrap, t

    numbers = np.asarray(values, float)
    mean, count = float(numbers.mean()), len(numbers)
    if count < 2 or level >= 1:
        return Interval(mean, -math.inf, math.inf)
    error = float(numbers.std(ddof=1)) / math.sqrt(count)
    half = float(t.isf((1 - level) / 2, count - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    found = bootstrap(
        (numbers,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, min(float(found.low), mean - half), max(float(found.high), mean + half), p)


def holm(values: Mapping[str, Sequence[float]], level: float, arms: int) -> dict[str, Interval]:
    """Compute the intervals of several arms at levels that hold for all of them (Holm, 1979).

    The arm with the clearest difference gets level / arms, the next one level / (arms - 1), and so on, as long as the
    intervals exclude 0; all arms from the first that does not have the same level.

    Args:
        values: a number for each patient, of each arm.
        level: probability of a wrong claim in this look.
        arms: number of arms that are planned; those without values count.
    """
    order = sorted(values, key=lambda arm: interval(values[arm], 1 - level).p)
    found, left, clear = {}, arms, True
    for arm in order:
        found[arm] = interval(values[arm], 1 - level / left)
        clear = clear and not found[arm].low <= 0 <= found[arm].high
        left -= clear and left > 1
    return {arm: found[arm] for arm in values}
