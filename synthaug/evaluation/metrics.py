"""Voxel and surface metrics of one mask against its truth, a function each; `registry` lists them for all tables.

With TP, FP, FN and TN the counts of voxels; distances are in mm. What holds where a mask is empty, since 0 / 0 has no
answer of its own:

| truth | prediction | Dice, IoU, NSD, volumetric similarity | HD95, ASSD | sensitivity | precision |
|---|---|---|---|---|---|
| empty | empty | 1 | 0 | None | None |
| empty | not | 0 | penalty | None | 0 |
| not | empty | 0 | penalty | 0 | None |

None stands for "undefined": such a value is in no mean. Specificity is None where truth fills the volume. The penalty
is `MaskPair.penalty_mm`, BraTS's 374 mm by default.
"""

import numpy as np

from synthaug.evaluation.masks import MaskPair


def dice(pair: MaskPair) -> float:
    """Divide 2 TP by 2 TP + FP + FN."""
    return 1.0 if pair.both_empty else 2 * pair.tp / (2 * pair.tp + pair.fp + pair.fn)


def iou(pair: MaskPair) -> float:
    """Divide TP by TP + FP + FN (Jaccard)."""
    return 1.0 if pair.both_empty else pair.tp / (pair.tp + pair.fp + pair.fn)


def volumetric_similarity(pair: MaskPair) -> float:
    """Subtract |FP - FN| / (2 TP + FP + FN) from 1."""
    return 1 - abs(pair.fp - pair.fn) / max(2 * pair.tp + pair.fp + pair.fn, 1)


def sensitivity(pair: MaskPair) -> float | None:
    """Divide TP by TP + FN."""
    return _ratio(pair.tp, pair.tp + pair.fn)


def specificity(pair: MaskPair) -> float | None:
    """Divide TN by TN + FP."""
    return _ratio(pair.tn, pair.tn + pair.fp)


def precision(pair: MaskPair) -> float | None:
    """Divide TP by TP + FP."""
    return _ratio(pair.tp, pair.tp + pair.fp)


def hd95_mm(pair: MaskPair) -> float:
    """Take the 95th percentile of the surface distances, the larger of both directions."""
    if pair.distances is None:
        return _distance_of_empty(pair)
    return float(max(np.percentile(distances, 95) for distances in pair.distances))


def nsd(pair: MaskPair) -> float:
    """Compute the share of surface voxels within the tolerance of the other surface (Nikolov et al. 2018)."""
    if pair.distances is None:
        return float(pair.both_empty)
    return float((np.concatenate(pair.distances) <= pair.nsd_tolerance_mm).mean())


def assd_mm(pair: MaskPair) -> float:
    """Average the surface distances of both directions together."""
    if pair.distances is None:
        return _distance_of_empty(pair)
    return float(np.concatenate(pair.distances).mean())


def truth_ml(pair: MaskPair) -> float:
    """Measure the truth's volume in millilitres."""
    return (pair.tp + pair.fn) * pair.voxel_ml


def predicted_ml(pair: MaskPair) -> float:
    """Measure the prediction's volume in millilitres."""
    return (pair.tp + pair.fp) * pair.voxel_ml


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _distance_of_empty(pair: MaskPair) -> float:
    return 0.0 if pair.both_empty else float(pair.penalty_mm)
