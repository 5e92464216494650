"""Voxel and surface metrics of one mask against its truth; distances in mm.

Surfaces and their distances are MONAI's (`get_mask_edges`: the voxels that an erosion by the six neighbours takes away;
`get_surface_distance`), worked out once for HD95, NSD and ASSD together.

What holds where a mask is empty, since 0 / 0 has no answer of its own:

| truth | prediction | Dice, IoU, NSD, volumetric similarity | HD95, ASSD | sensitivity | precision |
|---|---|---|---|---|---|
| empty | empty | 1 | 0 | None | None |
| empty | not | 0 | penalty | None | 0 |
| not | empty | 0 | penalty | 0 | None |

None stands for "undefined": such a value is in no mean. Specificity is None where truth fills the volume. The penalty
is BraTS's 374 mm, the diagonal of its volumes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthaug.geometry import bounding_box

PENALTY_MM = 374.0

OVERLAP = ("dice", "iou", "volumetric_similarity", "sensitivity", "specificity", "precision")
SURFACE = ("hd95_mm", "nsd", "assd_mm")


def mask_metrics(
    prediction: Any,
    truth: Any,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    surface: bool = True,
    nsd_tolerance_mm: float = 1.0,
    penalty_mm: float = PENALTY_MM,
) -> dict[str, float | None]:
    """All metrics of this module for one pair of masks.

    Args:
        prediction: (X, Y, Z) bool, an array or a tensor.
        truth: likewise.
        spacing_mm: voxel size.
        surface: whether HD95, NSD and ASSD are wanted, which take most of the time.
        nsd_tolerance_mm: distance that the normalised surface Dice forgives.
        penalty_mm: HD95 and ASSD where one of the masks is empty.

    Returns:
        The values of `OVERLAP` and, if wanted, of `SURFACE`; None where undefined.

    Raises:
        ValueError: shapes that differ, or a voxel size that is not three numbers above 0.
    """
    prediction, truth = _checked_pair(prediction, truth)
    spacing = checked_spacing(spacing_mm)
    values = overlap_metrics(prediction, truth)
    if surface:
        values |= surface_metrics(prediction, truth, spacing, nsd_tolerance_mm, penalty_mm)
    return values


def overlap_metrics(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Metrics of the counts of voxels; see the table above for empty masks.

    With TP, FP, FN, TN: Dice 2 TP / (2 TP + FP + FN), IoU TP / (TP + FP + FN), volumetric similarity
    1 - |FP - FN| / (2 TP + FP + FN), sensitivity TP / (TP + FN), specificity TN / (TN + FP), precision TP / (TP + FP).
    """
    tp = int(np.count_nonzero(prediction & truth))
    fp, fn = int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(truth)) - tp
    tn, both = truth.size - tp - fp - fn, 2 * tp + fp + fn
    return {
        "dice": 2 * tp / both if both else 1.0,
        "iou": tp / (tp + fp + fn) if both else 1.0,
        "volumetric_similarity": 1 - abs(fp - fn) / max(both, 1),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "precision": _ratio(tp, tp + fp),
    }


def surface_metrics(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float = 1.0,
    penalty_mm: float = PENALTY_MM,
) -> dict[str, float | None]:
    """HD95 (the larger of both directions), normalised surface Dice and average symmetric surface distance."""
    if not prediction.any() and not truth.any():
        return {"hd95_mm": 0.0, "nsd": 1.0, "assd_mm": 0.0}
    if not prediction.any() or not truth.any():
        return {"hd95_mm": float(penalty_mm), "nsd": 0.0, "assd_mm": float(penalty_mm)}
    there, back = surface_distances(prediction, truth, spacing_mm)
    both = np.concatenate((there, back))
    return {
        "hd95_mm": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "nsd": float((both <= nsd_tolerance_mm).mean()),
        "assd_mm": float(both.mean()),
    }


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from the prediction's surface voxels to the truth's surface, and from the truth's back.

    Both masks must have a voxel.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    box = bounding_box(prediction | truth)
    found, true = get_mask_edges(*(np.pad(mask[box], 1) for mask in (prediction, truth)), crop=False)
    return tuple(get_surface_distance(*pair, spacing=tuple(spacing_mm)) for pair in ((found, true), (true, found)))


def checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """A voxel size as three floats.

    Raises:
        ValueError: not three finite numbers above 0.
    """
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing_mm: expected three numbers above 0, got {spacing_mm}")
    return spacing


def _checked_pair(prediction: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    masks = [x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x) for x in (prediction, truth)]
    if masks[0].shape != masks[1].shape or masks[0].ndim != 3:
        raise ValueError(f"expected two masks of one shape (X, Y, Z), got {masks[0].shape} and {masks[1].shape}")
    return masks[0].astype(bool), masks[1].astype(bool)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
