"""A predicted mask beside its truth, with the counts and distances that metrics need, each worked out once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from synthaug.geometry import bounding_box

PENALTY_MM = 374.0
"""Distance that stands for "no surface there": BraTS's, the diagonal of its volumes."""


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Two masks of one shape, and how distances between them are measured.

    Attributes:
        prediction: (X, Y, Z) bool.
        truth: (X, Y, Z) bool.
        spacing_mm: voxel size.
        nsd_tolerance_mm: distance that the normalised surface Dice forgives.
        penalty_mm: distances where one of the masks is empty.
    """

    prediction: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    nsd_tolerance_mm: float = 1.0
    penalty_mm: float = PENALTY_MM

    @cached_property
    def tp(self) -> int:
        """Voxels in both masks."""
        return int(np.count_nonzero(self.prediction & self.truth))

    @cached_property
    def fp(self) -> int:
        """Voxels of the prediction alone."""
        return int(np.count_nonzero(self.prediction)) - self.tp

    @cached_property
    def fn(self) -> int:
        """Voxels of the truth alone."""
        return int(np.count_nonzero(self.truth)) - self.tp

    @property
    def tn(self) -> int:
        """Voxels in neither mask."""
        return self.truth.size - self.tp - self.fp - self.fn

    @property
    def both_empty(self) -> bool:
        """Whether neither mask has a voxel."""
        return not self.tp + self.fp + self.fn

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000

    @cached_property
    def distances(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Distances in mm from the prediction's surface voxels to the truth's, and back; None where a mask is empty.

        Surfaces and distances are MONAI's: `get_mask_edges`, the voxels that an erosion by the six neighbours takes
        away, and `get_surface_distance`.
        """
        from monai.metrics.utils import get_mask_edges, get_surface_distance

        if not self.tp + self.fp or not self.tp + self.fn:
            return None
        box = bounding_box(self.prediction | self.truth)
        found, true = get_mask_edges(*(np.pad(mask[box], 1) for mask in (self.prediction, self.truth)), crop=False)
        there, back = (get_surface_distance(*pair, spacing=self.spacing_mm) for pair in ((found, true), (true, found)))
        return np.asarray(there), np.asarray(back)


def mask_pair(prediction: Any, truth: Any, spacing_mm: Sequence[float], **measured: float) -> MaskPair:
    """Check two masks, arrays or tensors of any dtype, and put them beside each other.

    Args:
        prediction: (X, Y, Z).
        truth: (X, Y, Z).
        spacing_mm: voxel size.
        **measured: `MaskPair.nsd_tolerance_mm` and `MaskPair.penalty_mm`.

    Raises:
        ValueError: shapes that differ, or a voxel size that is not three numbers above 0.
    """
    masks = [x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x) for x in (prediction, truth)]
    if masks[0].shape != masks[1].shape or masks[0].ndim != 3:
        raise ValueError(f"expected two masks of one shape (X, Y, Z), got {masks[0].shape} and {masks[1].shape}")
    return MaskPair(masks[0].astype(bool), masks[1].astype(bool), checked_spacing(spacing_mm), **measured)


def checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Convert a voxel size to three floats.

    Raises:
        ValueError: not three finite numbers above 0.
    """
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing_mm: expected three numbers above 0, got {spacing_mm}")
    return spacing
