"""What a linear classifier makes of a lesion's border: means and spreads of the intensities at each depth.

The network of `synthaug.evaluation.fidelity.classifier` learns features from a few dozen lesions and may miss what
differs; this one is given features that are known to differ, and needs seconds. It has no eye for shapes: it finds
intensities and strength of texture, from 3 voxels outside the outline to 3 inside. The higher of the two areas counts.
"""

from collections.abc import Callable, Sequence

import numpy as np

from synthaug.evaluation.fidelity.classifier import Fold, deal_folds
from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.geometry import squared_distance
from synthaug.random import stream

DEPTHS = (-3, -2, -1, 1, 2, 3)
"""Voxels from the outline: negative outside, positive inside."""
CROPS, SIDE, LEAST_VOXELS = 32, 20, 10
RIDGE = 0.1


def border_profile(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Measure mean and spread at each depth in crops around random voxels of the border.

    Args:
        specimen: a lesion of one voxel or more.
        rng: draws the crops.

    Returns:
        (n, depths, 2, C) of `CROPS` crops of 20 voxels; NaN where a crop has few voxels of a depth.
    """
    image, lesion = specimen.image.numpy(), specimen.mask.sum(0) > 0
    inside, outside = (squared_distance(side, 3.0, (1.0, 1.0, 1.0)).sqrt().ceil().numpy() for side in (~lesion, lesion))
    depth = np.where(lesion.numpy(), inside, -outside)
    border = np.argwhere(np.abs(depth) <= 3)
    few = np.full((2, len(image)), np.nan)
    rows = []
    for middle in border[rng.integers(len(border), size=CROPS)]:
        box = tuple(slice(max(m - SIDE // 2, 0), m + SIDE // 2) for m in middle)
        found = [image[(slice(None), *box)][:, depth[box] == d] for d in DEPTHS]
        rows.append([np.stack((v.mean(1), v.std(1))) if v.shape[1] >= LEAST_VOXELS else few for v in found])
    return np.array(rows)


def border_profiles(specimens: Sequence[Specimen], seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Measure lesions: patient and `border_profile` of each."""
    return [(s.group, border_profile(s, stream(seed, n))) for n, s in enumerate(specimens)]


def linear_scores(
    real: Sequence[tuple[str, np.ndarray]],
    inserted: Sequence[tuple[str, np.ndarray]],
    folds: int,
    seed: int = 0,
    part: Callable[[np.ndarray], np.ndarray] = lambda profile: profile,
) -> list[Fold]:
    """Tell inserted from real lesions by a ridge regression on their profiles, by folds of patients.

    Args:
        real: of `border_profiles`.
        inserted: likewise.
        folds: folds by patient.
        seed: of the deal of patients, and number of the seed in the result.
        part: selects from (n, depths, 2, C) what is looked at; all by default.

    Returns:
        Scores of the lesions of each fold by a regression on the others.

    Raises:
        ValueError: fewer patients than folds on either side.
    """
    fold_of = deal_folds([{group for group, _ in side} for side in (real, inserted)], folds, seed)
    sides = [[(group, part(x).reshape(len(x), -1)) for group, x in side] for side in (real, inserted)]
    middle = np.nanmedian(np.concatenate([x for side in sides for _, x in side]), 0)
    # what no crop has tells nothing
    middle = np.where(np.isnan(middle), 0.0, middle)
    sides = [[(group, np.where(np.isnan(x), middle, x)) for group, x in side] for side in sides]
    found = []
    for fold in range(folds):
        known = [np.concatenate([x for group, x in side if fold_of[group] != fold]) for side in sides]
        score = _ridge(*known)
        asked = [[(group, score(x)) for group, x in side if fold_of[group] == fold] for side in sides]
        found.append(Fold(asked[0], asked[1], seed))
    return found


def _ridge(real: np.ndarray, inserted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a ridge regression of the side, both sides counted alike; returns the score of features (n, F)."""
    x = np.concatenate((real, inserted))
    mean, std = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / std
    side = np.repeat([-1.0 / len(real), 1.0 / len(inserted)], [len(real), len(inserted)])
    weights = np.linalg.solve(z.T @ z / len(z) + RIDGE * np.eye(z.shape[1]), z.T @ side)
    return lambda features: ((features - mean) / std) @ weights
