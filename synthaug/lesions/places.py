"""Where lesions lie: how often which place of a host holds one, in host coordinates (`synthaug.frames`).

A segmenter learns where lesions occur. Where inserted ones lie elsewhere, it learns to see them elsewhere (Dvornik et
al., 2018, for objects in scenes); so lesions are placed as often where real ones lie. The frequency is that of lesion
voxels, smoothed as widely as few patients need, the same on both sides of the body where that is supported by the
anatomy, and nowhere 0: what was not seen may still occur.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.frames import mirrored, place
from synthaug.transfers import on_device

CELLS = 16
SMOOTHING = 0.13
FLOOR = 0.02
MOST_POINTS = 20_000


@dataclass(frozen=True, eq=False)
class PlaceFrequency:
    """The frequency of lesions over a host.

    Attributes:
        grid: (16, 16, 16) float32, for cells of host coordinates from 0 to 1, the greatest 1 and none below the floor.
    """

    grid: np.ndarray

    @classmethod
    def of_points(cls, points: Iterable[np.ndarray], both_sides: bool = True, floor: float = FLOOR) -> "PlaceFrequency":
        """The frequency of lesions whose voxels are known.

        Args:
            points: of each lesion or case, which all weigh the same, host coordinates (N, 3) of its voxels.
            both_sides: count each also on the other side of the mid-plane.
            floor: least frequency, as a share of the greatest.

        Raises:
            ValueError: no points.
        """
        counts = np.zeros((CELLS,) * 3)
        for one in points:
            inside = one if len(one) <= MOST_POINTS else one[:: -(-len(one) // MOST_POINTS)]
            for side in (inside, mirrored(inside)) if both_sides else (inside,):
                cell = np.clip((side * CELLS).astype(int), 0, CELLS - 1)
                counts += np.histogramdd(cell, bins=CELLS, range=[(-0.5, CELLS - 0.5)] * 3)[0] / max(1, len(side))
        if not counts.any():
            raise ValueError("places: expected the voxels of at least one lesion, got none")
        offset = np.arange(CELLS)[:, None] - np.arange(CELLS)
        kernel = np.exp(-0.5 * (offset / (SMOOTHING * CELLS)) ** 2)
        smooth = np.einsum("ijk, ai, bj, ck -> abc", counts, kernel, kernel, kernel, optimize=True)
        return cls(np.maximum(smooth / smooth.max(), floor).astype(np.float32))

    def weights(self, frame: np.ndarray, axes: Sequence[Tensor]) -> Tensor:
        """Frequency at the points of a lattice in a patch, linear between the cells' middles.

        Args:
            frame: (3, 4) of the patch, on the host.
            axes: voxel indices along X, Y, Z, (x,), (y,), (z,), on any device.

        Returns:
            (x, y, z) float32 on that device.
        """
        device = axes[0].device
        matrix = on_device(frame.astype(np.float32), device)
        points = torch.stack(torch.meshgrid(*(a.float() for a in axes), indexing="ij"), -1)
        points = points @ matrix[:, :3].T + matrix[:, 3]
        grid = on_device(self.grid, device)
        # host coordinates 0 and 1 are the outer faces of the grid, as grid_sample has it with align_corners=False
        points = rearrange(2 * points - 1, "x y z d -> 1 x y z d").flip(-1)
        return F.grid_sample(grid[None, None], points, padding_mode="border", align_corners=False)[0, 0]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return {"grid": np.round(self.grid, 4).tolist()}

    @classmethod
    def from_dict(cls, values: Any) -> "PlaceFrequency":
        """What `to_dict` gave.

        Raises:
            ValueError: not a cube of frequencies in 0 to 1.
        """
        grid = np.asarray(values["grid"], np.float32)
        if grid.ndim != 3 or not ((grid >= 0) & (grid <= 1)).all() or not grid.any():
            raise ValueError(f"places: expected three axes of frequencies from 0 to 1, got an array of {grid.shape}")
        return cls(grid)


def points_of(mask: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Host coordinates (N, 3) of a lesion's voxels.

    Args:
        mask: (X, Y, Z), non-zero in the lesion.
        frame: (3, 4) of that volume.
    """
    return place(frame, np.argwhere(mask))
