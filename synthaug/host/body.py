"""The body in an image with air around it: not dark, thick enough to be no table, and filled.

Whole volumes only. The work is done on a grid of about 2 mm, and the outline is then that of the full resolution:

1. not dark: the mean of 3 x 3 x 3 voxels is above a threshold, in HU for CT; where none is given, half-way between
   the darkest voxels and Otsu's threshold (Otsu 1979) of each volume.
2. opened by a ball: what is thinner than `thinner_mm`, such as the shell of a table or a cable, goes.
3. every component of a tenth of the largest one or more stays: a body, or two legs.
4. holes are filled, in the volume and in each slice: lungs and bowel gas belong to the body.
"""

from collections.abc import Sequence

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from synthaug.config import Section
from synthaug.geometry import grown

GRID_MM = 2.0
LEAST_SHARE = 0.1
BINS = 128


class Body(Section):
    """How the body is found.

    Attributes:
        channel: canonical name of the channel that is looked at.
        above: what is darker than this is air; found in each volume where not given.
        thinner_mm: what is thinner is no body.
    """

    channel: str
    above: float | None = None
    thinner_mm: PositiveFloat = Field(10.0)

    def words(self) -> str:
        """Say it in words, for messages."""
        return f"body ({self.channel}{'' if self.above is None else f' above {self.above:g}'})"


def body_of(values: Tensor, body: Body, spacing_mm: Sequence[float]) -> Tensor:
    """Find the body, (X, Y, Z) bool.

    Args:
        values: (X, Y, Z), intensities as stored.
        body: how it is found.
        spacing_mm: voxel size.
    """
    mean = F.avg_pool3d(values[None, None].float(), 3, 1, 1, count_include_pad=False)
    threshold = darkness(mean[0, 0], body.above)
    steps = [max(1, min(round(GRID_MM / s), n)) for s, n in zip(spacing_mm, values.shape, strict=True)]
    coarse = F.avg_pool3d(mean, steps, steps, ceil_mode=True, count_include_pad=False)[0, 0] > threshold
    grid = [s * n for s, n in zip(spacing_mm, steps, strict=True)]
    thick = ~grown(~coarse, body.thinner_mm / 2, grid)
    kept = grown(_large_components(thick if thick.any() else coarse), body.thinner_mm / 2, grid) & coarse
    filled = _filled(kept, int(np.argmax(grid)))
    inner = ~grown(~filled, 2 * max(grid), grid)
    outline, deep = (_enlarged(mask, steps, values.shape) for mask in (filled, inner))
    return outline & ((mean[0, 0] > threshold) | deep)


def darkness(values: Tensor, above: float | None) -> Tensor:
    """() float32: what is darker is air; found where `above` is None, minus infinity where nothing is darker."""
    if above is not None:
        return values.new_full((), above, dtype=torch.float32)
    low, high = values.amin(), values.flatten()[:: max(1, values.numel() // 200_000)].float().quantile(0.995)
    span = (high - low).clamp(min=1e-6)
    index = ((values.float() - low) / span * BINS).long().clamp(0, BINS - 1)
    counts = torch.zeros(BINS, device=values.device).index_add_(
        0, index.flatten(), torch.ones_like(index.flatten(), dtype=torch.float32)
    )
    return low + _otsu(counts) / BINS * span / 2


def _otsu(counts: Tensor) -> Tensor:
    """Find the bin that parts a histogram into two classes with the greatest variance between them."""
    share = counts / counts.sum()
    below, place = share.cumsum(0), torch.arange(len(counts), device=counts.device, dtype=torch.float32)
    moment = (share * place).cumsum(0)
    between = (moment[-1] * below - moment).square() / (below * (1 - below)).clamp(min=1e-9)
    return between.argmax().float() + 1


def _large_components(mask: Tensor) -> Tensor:
    labels = cc3d.connected_components(mask.cpu().numpy(), connectivity=6)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return torch.from_numpy(np.isin(labels, np.flatnonzero((sizes > 0) & (sizes >= LEAST_SHARE * sizes.max()))))


def _filled(mask: Tensor, axis: int) -> Tensor:
    """Fill what a mask encloses, in the volume and in each slice across `axis`."""
    filled = _without_holes(mask.cpu().numpy())
    slices = np.moveaxis(filled, axis, 0)
    for number, plane in enumerate(slices):
        slices[number] = _without_holes(plane)
    return torch.from_numpy(np.ascontiguousarray(filled))


def _without_holes(mask: np.ndarray) -> np.ndarray:
    outside = cc3d.connected_components(~np.pad(mask, 1), connectivity=6 if mask.ndim == 3 else 4)
    inner = tuple(slice(1, -1) for _ in range(mask.ndim))
    return (outside != outside[(0,) * mask.ndim])[inner]


def _enlarged(mask: Tensor, steps: Sequence[int], size: Sequence[int]) -> Tensor:
    for axis, step in enumerate(steps):
        mask = mask.repeat_interleave(step, axis)
    return mask[tuple(slice(n) for n in size)]
