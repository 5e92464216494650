"""Host tissue: its mask, mean and spread, and conversion of intensities to its units and back.

Networks and tables work on z-scores of host tissue: per sample and channel, mean 0 and standard deviation 1 over the
voxels that are tissue and not lesion. The map is affine, so its inverse is exact whatever the batch's own units are:
z-scores, min-max or percentile scaling, raw MR values, Hounsfield units.

What is tissue? Where the caller gives a `host` mask, that. Otherwise it is derived: *background is where a channel has
one constant value over a region*. Skull-stripping leaves such a region, and whatever affine normalisation follows, it
stays constant: 0 in raw data, some negative number in z-scores of the whole image, 0 *amid* the tissue's values in
z-scores of the brain. So the value is looked up, not assumed: the most frequent value of each channel (its mode, on a
grid of every n-th voxel), and a voxel is background where some 2 x 2 x 2 block around it has that value throughout.
Single voxels of tissue that happen to equal it stay tissue. A channel that is constant everywhere is a missing
sequence; it says nothing about tissue and is never changed. A voxel is tissue where no other channel is background, so
parts of the brain that a sequence did not cover get no lesion. Air around a head or body is not constant: for images
that were not skull-stripped, and for CT, give a mask or a rule (`synthaug.host.rule`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.geometry import dilated, eroded
from synthaug.transfers import on_device

MODE_GRID = 24
STATISTICS_GRID = 48


@dataclass(frozen=True)
class HostSample:
    """Tissue mask and intensity statistics of one sample.

    Attributes:
        tissue: (X, Y, Z) bool.
        mean: (C,) float32 of host tissue outside the labels.
        std: (C,) float32, likewise.
        floor: (C,) float32, the darkest host tissue; nothing darker is ever written.
    """

    tissue: Tensor
    mean: Tensor
    std: Tensor
    floor: Tensor

    @classmethod
    def of(
        cls,
        image: Tensor,
        label: Tensor,
        host: Tensor | None = None,
        stats: tuple[Sequence[float], Sequence[float]] | None = None,
        fixed: Sequence[tuple[float, float] | None] | None = None,
    ) -> "HostSample":
        """Measure a sample.

        Args:
            image: (C, X, Y, Z).
            label: (X, Y, Z).
            host: tissue mask, derived from the image where not given.
            stats: mean and standard deviation (C,) in place of those measured.
            fixed: where no `stats` are given, mean and standard deviation of the channels that have a scale of the
                data set (`synthaug.host.units`), None for the others.
        """
        tissue = host_tissue(image) if host is None else host != 0
        healthy = tissue & (label == 0)
        if stats is None:
            mean, std = host_statistics(image, healthy)
        else:
            mean, std = (on_device(s, image.device, torch.float32) for s in stats)
        if stats is None and fixed is not None:
            own = on_device([scale is None for scale in fixed], image.device)
            given = [scale or (0.0, 1.0) for scale in fixed]
            mean, std = (
                torch.where(own, measured, on_device(list(values), image.device, torch.float32))
                for measured, values in zip((mean, std), zip(*given, strict=True), strict=True)
            )
        values = thinned(image, STATISTICS_GRID).float()
        lowest = torch.where(thinned(healthy, STATISTICS_GRID), values, torch.inf).flatten(1).amin(1)
        return cls(tissue, mean, std, torch.where(lowest.isfinite(), lowest, -torch.inf))

    def to_model(self, image: Tensor) -> Tensor:
        """Convert the sample's own image, or a crop of it, (C, ...), to z-scores of its host tissue, float32."""
        return to_model(image, self.mean, self.std)


def host_tissue(image: Tensor) -> Tensor:
    """Derive a sample's host tissue from its voxels as the head of this file says.

    Args:
        image: (C, X, Y, Z) float, any intensities.

    Returns:
        (X, Y, Z) bool; all False where every channel is constant.
    """
    background, constant = background_values(image)
    # a missing channel (constant) must not hide the others, so it equals no value; where all are, nothing is tissue
    value = torch.where(constant, torch.nan, background)
    # a block of any channel hides what is in it: blocks are found channel by channel, and filled for all at once
    sides = [min(2, n) for n in image.shape[1:]]
    corners = reduce(torch.logical_or, eroded(image == value[:, None, None, None], sides).unbind(0))
    return ~(dilated(corners, sides) | constant.all())


def background_values(image: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most frequent value of each channel (C,), and whether the channel is constant (C,) bool.

    Both are read off at most 24 x 24 x 24 voxels spread evenly over the sample.
    """
    ordered = thinned(image, MODE_GRID).flatten(1).sort(dim=1).values
    place = torch.arange(ordered.shape[1], device=image.device).expand_as(ordered)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    # length of the run of equal values that ends at each place; the longest one ends at the mode (torch.mode is slow)
    run = place - torch.where(fresh, place, 0).cummax(dim=1).values
    mode = ordered.gather(1, run.argmax(dim=1, keepdim=True))[:, 0]
    return mode, ordered[:, 0] == ordered[:, -1]


def thinned(image: Tensor, grid: int) -> Tensor:
    """Take every n-th voxel along each of the last three axes, so that none has more than `grid` voxels.

    Contiguous, because the order in which a sum adds its terms must not depend on the batch's strides.
    """
    steps = [-(-size // grid) for size in image.shape[-3:]]
    return image[..., :: steps[0], :: steps[1], :: steps[2]].contiguous()


def host_statistics(image: Tensor, tissue: Tensor) -> tuple[Tensor, Tensor]:
    """Compute host tissue's mean and standard deviation, after one clipping at three standard deviations.

    The clipping keeps vessels, fat and lesions that nobody labelled from setting the scale. At most 48 x 48 x 48
    voxels spread evenly over the sample are read. Both are 0 where there is no tissue.

    Args:
        image: (C, X, Y, Z) float.
        tissue: (X, Y, Z) bool, host tissue without lesions.

    Returns:
        mean (C,) and std (C,), float32 on the image's device.
    """
    values = thinned(image, STATISTICS_GRID).float().flatten(1)
    inside = thinned(tissue, STATISTICS_GRID).flatten().to(values.dtype)
    mean, std = _moments(values, inside.expand_as(values))
    near = (values - mean[:, None]).abs() <= 3 * std[:, None]
    return _moments(values, inside * near)


def _moments(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    count = weight.sum(1).clamp(min=1)
    mean = (values * weight).sum(1) / count
    variance = ((values - mean[:, None]).square() * weight).sum(1) / count
    return mean, variance.sqrt()


def to_model(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Convert intensities to z-scores of host tissue, float32; a channel of constant tissue (std 0) becomes 0.

    Args:
        image: (C, ...) or (N, C, ...) float crops.
        mean: (C,) or (N, C), as `host_statistics` gives it.
        std: (C,) or (N, C), as `host_statistics` gives it.
    """
    mean, std = _broadcast(mean, image), _broadcast(std, image)
    return (image.float() - mean).div_(torch.where(std > 0, std, 1)).masked_fill_(~(std > 0), 0.0)


def from_model(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Invert `to_model`: convert z-scores of host tissue to the batch's own units, float32."""
    return (z * _broadcast(std, z)).add_(_broadcast(mean, z))


def _broadcast(statistic: Tensor, image: Tensor) -> Tensor:
    return statistic.reshape(*statistic.shape, *(1,) * (image.ndim - statistic.ndim))


# -------------------------------------------------------------------------------------------- whole volumes at once


def zscore_host(image: np.ndarray, background: float = 0.0) -> np.ndarray:
    """Z-score each channel over the voxels that every channel covers; background becomes or stays exactly 0.

    Mean and standard deviation are taken where no channel has the background value, so that a sequence that was
    acquired for a part of the brain only does not shift the others. A channel's own background voxels are 0.

    Args:
        image: (C, X, Y, Z), raw intensities.
        background: the value outside the body, for example 0 in skull-stripped MR.

    Returns:
        (C, X, Y, Z) float32.

    Raises:
        ValueError: not four dimensions, no voxel that every channel covers, or a channel constant there.
    """
    if image.ndim != 4:
        raise ValueError(f"image: expected (C, X, Y, Z), got shape {image.shape}")
    covered = image != background
    host = covered.all(axis=0)
    if not host.any():
        raise ValueError(f"image: no voxel differs from the background {background} in all {len(image)} channels")
    inside = image[:, host].astype(np.float64)
    mean, std = inside.mean(axis=1), inside.std(axis=1)
    if (std == 0).any():
        raise ValueError(f"image: channel {int(np.argmin(std))} is constant inside the body")
    scored = (image - mean[:, None, None, None]) / std[:, None, None, None]
    return np.where(covered, scored, 0).astype(np.float32)


def scored_tissue(image: Any) -> Any:
    """Find where `zscore_host` left a channel's tissue, bool of the image's shape: all but the background's exact 0.

    Args:
        image: array or tensor (C, X, Y, Z) of `zscore_host`, or a patch of one.
    """
    return image != 0
