"""Distances of intensity and texture from real lesions, per class and channel, beside that of real from real ones.

Two halves of the patients are compared, real lesions of the one with inserted and with real ones of the other, over
several splits: both distances are then of as many patients, and the second is the floor of the first.
"""

from collections.abc import Sequence

import numpy as np
import torch

from synthaug.evaluation.fidelity.statistics import (
    LEAST_VOXELS,
    STATISTICS,
    Measured,
    Specimen,
    lesion_statistics,
    typical,
)

QUANTILES = np.linspace(0.005, 0.995, 100)
VOXELS = 4000
"""Of each class of a lesion, drawn at random, as lesions would count by their size otherwise."""
DISTANCES = (*STATISTICS, "voxels")
"""Distances of the `STATISTICS`, and Wasserstein-1 between the distributions of voxels, in the class's deviations."""


def split_distances(
    real: Sequence[Specimen],
    made: Sequence[Specimen],
    classes: Sequence[str],
    channels: Sequence[str],
    splits: int = 20,
    seed: int = 0,
) -> list[dict]:
    """Measure distances from real lesions of other patients, of inserted and of real lesions.

    Args:
        real: real lesions, of two patients or more.
        made: inserted lesions.
        classes: K names.
        channels: C names.
        splits: number of divisions of the patients into halves.
        seed: seed of divisions and voxels.

    Returns:
        Rows with ``class``, ``channel``, ``what`` (one of `DISTANCES`), ``made`` and ``floor``, means over the splits:
        of the mean in standard deviations of the class, of the other statistics the logarithm of the ratio.

    Raises:
        ValueError: real lesions of one patient only.
    """
    groups = sorted({s.group for s in [*real, *made]})
    if len({s.group for s in real}) < 2:
        raise ValueError(f"distances: expected real lesions of two patients or more, got {len(real)} of one")
    rng = np.random.default_rng(seed)
    known = [[(s.group, _measured(s), _voxels(s, rng)) for s in side] for side in (real, made)]
    found = []
    for _ in range(splits):
        first = set(rng.permutation(groups)[: len(groups) // 2].tolist())
        here = [x for x in known[0] if x[0] in first]
        sides = [[x for x in side if x[0] not in first] for side in (known[1], known[0])]
        found.append([_between(here, side, len(classes), len(channels)) for side in sides])
    with np.errstate(invalid="ignore"):
        made_from, floor = np.nanmean(np.array(found), 0)
    return [
        {
            "class": name,
            "channel": channel,
            "what": what,
            "made": float(made_from[k, c, i]),
            "floor": float(floor[k, c, i]),
        }
        for k, name in enumerate(classes)
        for c, channel in enumerate(channels)
        for i, what in enumerate(DISTANCES)
        if np.isfinite(made_from[k, c, i])
    ]


def mean_distance(rows: Sequence[dict], side: str) -> float:
    """Average one side, ``"made"`` or ``"floor"``, of rows of `split_distances`."""
    return float(np.nanmean([row[side] for row in rows])) if rows else float("nan")


def _measured(specimen: Specimen) -> Measured:
    return lesion_statistics(specimen.image, specimen.mask), specimen.mask.sum((1, 2, 3))


def _voxels(specimen: Specimen, rng: np.random.Generator) -> list[np.ndarray | None]:
    """Draw voxels (C, n) of each class, None where it has few."""
    drawn: list[np.ndarray | None] = []
    for mask in specimen.mask:
        values = specimen.image[:, mask > 0].numpy()
        pick = rng.integers(values.shape[1], size=VOXELS) if values.shape[1] >= LEAST_VOXELS else None
        drawn.append(None if pick is None else values[:, pick])
    return drawn


def _between(here: list, there: list, classes: int, channels: int) -> np.ndarray:
    """Compute the distances (K, C, 6) of two groups of lesions; NaN where one of them lacks the class."""
    out = np.full((classes, channels, len(DISTANCES)), np.nan)
    if not here or not there:
        return out
    a, b = (typical([measured for _, measured, _ in side]) for side in (here, there))
    out[..., 0] = ((b[..., 0] - a[..., 0]) / a[..., 1]).abs()
    out[..., 1 : len(STATISTICS)] = (b[..., 1:] / a[..., 1:]).log().abs()
    for k in range(classes):
        pools = [[voxels[k] for _, _, voxels in side if voxels[k] is not None] for side in (here, there)]
        if all(pools):
            x, y = (np.quantile(np.concatenate(pool, 1), QUANTILES, axis=1) for pool in pools)
            spread = np.concatenate(pools[0], 1).std(1)
            out[k, :, -1] = np.abs(x - y).mean(0) / np.maximum(spread, 1e-3)
    return np.where(torch.isfinite(torch.from_numpy(out)).numpy(), out, np.nan)
