"""Lesion-wise metrics, the BraTS way: a lesion that is missed and one that is invented count as much as one outlined.

After "the lesion-wise performance metrics" of BraTS 2023 (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics):

1. Components of the truth (26 neighbours) that touch after a dilation by 3 mm are one lesion.
2. A lesion is found by every predicted component that touches it, dilated by 3 mm. All of them together are its
   prediction; a component that reaches two lesions belongs to both.
3. Predicted components that reach no lesion are false positives, of whatever size.
4. Lesions of at most 50 mm^3 are ignored: they are neither found nor missed; what reaches them is no false positive.
5. Lesion-wise Dice = sum of the lesions' Dice / (lesions + false positives), a missed lesion having 0.
   Lesion-wise HD95 is the same mean with 374 mm for each lesion missed and each false positive.

Where there is neither a lesion nor a false positive, the Dice is 1 and the HD95 0, and recall and precision are None.

BraTS dilates three times by the 18 neighbours in voxels of 1 mm. Here the dilation is given in mm, and on other grids
each axis takes part in as many steps as its voxels fit into it; on 1 mm this is BraTS's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthaug.evaluation.masks import PENALTY_MM, MaskPair, checked_spacing
from synthaug.evaluation.metrics import dice, hd95_mm
from synthaug.geometry import bounding_box
from synthaug.insertion.plan import equivalent_diameter_mm
from synthaug.sizes import SizeClasses


@dataclass(frozen=True)
class Lesionwise:
    """Matching and scoring of lesions; the defaults are those of BraTS glioma.

    Args:
        dilation_mm: dilation of the truth before components are joined and matched.
        min_lesion_mm3: lesions of this volume or less are ignored.
        penalty_mm: HD95 of a lesion that is missed or invented.
        sizes: size classes by which lesions and false positives are counted.

    Raises:
        ValueError: a number below 0.
    """

    dilation_mm: float = 3.0
    min_lesion_mm3: float = 50.0
    penalty_mm: float = PENALTY_MM
    sizes: SizeClasses = field(default_factory=SizeClasses)

    def __post_init__(self):
        for name in ("dilation_mm", "min_lesion_mm3", "penalty_mm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"lesionwise {name}: expected at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class LesionScore:
    """One lesion of the truth, or one invented.

    Attributes:
        status: ``"found"``, ``"missed"`` or ``"false_positive"``.
        volume_ml: volume of the true lesion, or of the prediction where that is a false positive.
        diameter_mm: diameter of the sphere of that volume.
        size: name of its size class.
        dice: 0 unless found.
        hd95_mm: the penalty unless found; None where distances were not asked for.
    """

    status: str
    volume_ml: float
    diameter_mm: float
    size: str
    dice: float
    hd95_mm: float | None


def match_lesions(
    prediction: Any,
    truth: Any,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    options: Lesionwise | None = None,
    surface: bool = True,
) -> list[LesionScore]:
    """Match the lesions of a predicted and a true mask, by the rules above; lesions first, then false positives.

    Args:
        prediction: (X, Y, Z) bool.
        truth: (X, Y, Z) bool.
        spacing_mm: voxel size.
        options: matching and scoring, the defaults where not given.
        surface: whether HD95 is wanted.

    Raises:
        ValueError: shapes that differ, or a bad voxel size.
    """
    import cc3d

    options, spacing = options or Lesionwise(), checked_spacing(spacing_mm)
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"expected two masks of one shape (X, Y, Z), got {prediction.shape} and {truth.shape}")
    steps = dilation_steps(options.dilation_mm, spacing)
    box = bounding_box(prediction | truth, [len(steps)] * 3)
    prediction, truth = (np.ascontiguousarray(mask[box]) for mask in (prediction, truth))
    if not truth.size:
        return []
    predicted = cc3d.connected_components(prediction, connectivity=26)
    joined = cc3d.connected_components(dilated(truth, steps), connectivity=26) * truth
    scores, claimed = [], set()
    for number in np.unique(joined[joined > 0]):
        lesion = joined == number
        near = bounding_box(lesion, [len(steps)] * 3)
        hits = set(np.unique(predicted[near][dilated(lesion[near], steps)]).tolist()) - {0}
        claimed |= hits
        if lesion.sum() * np.prod(spacing) > options.min_lesion_mm3:
            scores.append(_lesion_score(lesion, np.isin(predicted, list(hits)), bool(hits), spacing, options, surface))
    sizes = np.bincount(predicted.ravel())
    invented = [int(sizes[i]) for i in range(1, len(sizes)) if i not in claimed]
    penalty = options.penalty_mm if surface else None
    return scores + [LesionScore("false_positive", *_size(n, spacing, options.sizes), 0.0, penalty) for n in invented]


def lesion_dice(scores: Sequence[LesionScore]) -> float:
    """Average the Dice of lesions and false positives; 1 where there are none."""
    return float(np.mean([s.dice for s in scores])) if scores else 1.0


def lesion_hd95_mm(scores: Sequence[LesionScore]) -> float | None:
    """Average the HD95 of lesions and false positives; 0 where there are none, None where it was not asked for."""
    if not scores:
        return 0.0
    distances = [s.hd95_mm for s in scores if s.hd95_mm is not None]
    return float(np.mean(distances)) if distances else None


def lesion_recall(scores: Sequence[LesionScore]) -> float | None:
    """Divide the lesions found by the lesions."""
    return lesions_found(scores) / lesions(scores) if lesions(scores) else None


def lesion_precision(scores: Sequence[LesionScore]) -> float | None:
    """Divide the lesions found by these and the false positives together."""
    claimed = lesions_found(scores) + false_positives(scores)
    return lesions_found(scores) / claimed if claimed else None


def lesions(scores: Sequence[LesionScore]) -> int:
    """Count the lesions of the truth."""
    return len(scores) - false_positives(scores)


def lesions_found(scores: Sequence[LesionScore]) -> int:
    """Count the lesions of the truth that were found."""
    return sum(s.status == "found" for s in scores)


def false_positives(scores: Sequence[LesionScore]) -> int:
    """Count the predicted lesions that are none."""
    return sum(s.status == "false_positive" for s in scores)


def dilation_steps(dilation_mm: float, spacing_mm: Sequence[float]) -> list[tuple[bool, bool, bool]]:
    """List the steps of a dilation: which axes take part in each, so that every axis grows by about `dilation_mm`."""
    x, y, z = (int(np.floor(dilation_mm / s + 0.5)) for s in spacing_mm)
    return [(x > i, y > i, z > i) for i in range(max(x, y, z))]


def dilated(mask: np.ndarray, steps: Sequence[Sequence[bool]]) -> np.ndarray:
    """Dilate a mask by these steps, each by the 18 neighbours along the axes that take part."""
    from scipy.ndimage import binary_dilation, generate_binary_structure

    for axes in steps:
        structure = generate_binary_structure(3, 2)
        for axis, used in enumerate(axes):
            if not used:
                structure = structure.take([1], axis=axis)
        mask = binary_dilation(mask, structure)
    return mask


def _lesion_score(
    lesion: np.ndarray,
    found: np.ndarray,
    hit: bool,
    spacing: tuple[float, float, float],
    options: Lesionwise,
    surface: bool,
) -> LesionScore:
    size = _size(int(lesion.sum()), spacing, options.sizes)
    if not hit:
        return LesionScore("missed", *size, 0.0, options.penalty_mm if surface else None)
    pair = MaskPair(found, lesion, spacing)
    return LesionScore("found", *size, dice(pair), hd95_mm(pair) if surface else None)


def _size(voxels: int, spacing: Sequence[float], sizes: SizeClasses) -> tuple[float, float, str]:
    diameter = float(equivalent_diameter_mm(voxels, spacing))
    return float(voxels * np.prod(spacing) / 1000), diameter, sizes.of(diameter)
