"""Resampling of a lesion into its crop on the device: its mask and, for paste, its intensities.

Masks are resampled class by class: the one-hot channels go through one antialiased linear filter, a voxel belongs to
the lesion where they sum to at least one half, and takes the strongest class there. The background competes for the
outline only, never inside, so no holes open between classes, and no class appears that the lesion does not have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.classes import Classes
from synthaug.geometry import blurred, turned
from synthaug.insertion.asked import Insertion
from synthaug.lesions.base import LesionSource
from synthaug.lesions.scale import rotation_matrix, zoom_factors
from synthaug.random import Purpose, seed_for, seeded_noise
from synthaug.transfers import on_device

ELASTIC_NODES = 5


@dataclass(frozen=True)
class Rendered:
    """A lesion resampled into its crop.

    Attributes:
        mask: (X, Y, Z) uint8, 0 outside, k + 1 in class k.
        donor: (C, X, Y, Z) float32 model intensities, or None.
    """

    mask: Tensor
    donor: Tensor | None

    @property
    def intensities(self) -> Tensor:
        """`donor`, where it was rendered.

        Raises:
            ValueError: the mask alone was.
        """
        if self.donor is None:
            raise ValueError("rendered lesion: expected the donor's intensities, got a mask alone")
        return self.donor


def render(
    source: LesionSource,
    insertion: Insertion,
    classes: Classes,
    channels: Sequence[int] | None,
    device: torch.device,
) -> Rendered:
    """Resample the insertion's lesion into its crop, with the lesion's centre at voxel ``crop_vox // 2``.

    Args:
        source: bank or shapes that have the lesion.
        insertion: names the lesion; its swaps, scale, turns and crop are applied.
        classes: vocabulary of the resulting mask.
        channels: positions of the wanted channels in the source's intensities, or None for the mask alone.
        device: where the crop is made.
    """
    name, size = insertion.live_lesion, insertion.live_crop_vox
    lesion, mask = source.lesion(name), source.mask(name, device)
    donor = None
    if channels is not None:
        donor = source.intensities(name, channels, device)
        donor = recoloured(donor, mask, insertion.swaps, source, name, channels)
    soft = one_hot(renamed(mask, insertion.swaps, source.classes, classes), len(classes))
    zoom = zoom_factors(insertion.scale, lesion.spacing_mm, insertion.spacing_mm, insertion.axes)
    soft = resample(turned(soft, insertion.axes, insertion.flips), zoom, size, extend=False)
    if donor is not None:
        donor = resample(turned(donor, insertion.axes, insertion.flips), zoom, size, extend=True)
    if any(insertion.angles_deg) or insertion.elastic_mm:
        grid = _bent_grid(insertion, device)
        soft = F.grid_sample(soft[None], grid, align_corners=False)[0]
        donor = None if donor is None else F.grid_sample(donor[None], grid, "bilinear", "border", False)[0]
    mask = decided(soft)
    if insertion.smooth_mm:
        mask = smoothed_outline(mask, len(classes), insertion.smooth_mm, insertion.spacing_mm)
    return Rendered(mask, donor)


def renamed(mask: Tensor, swaps: Mapping[str, str], source_classes: Sequence[str], classes: Classes) -> Tensor:
    """Renumber the source's mask for the vocabulary `classes`; all swaps act on the original classes at once."""
    names = [classes.canonical(name) for name in source_classes]
    table = [0] + [classes.index(swaps.get(name, name)) + 1 for name in names]
    if table == list(range(len(table))):
        return mask
    return on_device(table, mask.device, torch.uint8)[mask.long()]


def recoloured(
    donor: Tensor, mask: Tensor, swaps: Mapping[str, str], source: LesionSource, name: str, channels: Sequence[int]
) -> Tensor:
    """Change donor intensities to fit the swapped classes.

    A voxel whose class a was renamed to b keeps its place in the distribution: (z - mean_a) / std_a * std_b + mean_b,
    with the donor's own class statistics where it has both classes, and the bank's otherwise. Without this the label
    would say necrosis where the image shows oedema.
    """
    if not swaps:
        return donor
    mean, std = source.class_statistics(name, channels)
    target = [source.classes.index(swaps.get(c, c)) for c in source.classes]
    gain = std[target] / std.clamp(min=1e-3)
    shift = mean[target] - gain * mean
    known = (gain.isfinite() & shift.isfinite()).all(1, keepdim=True)
    gain, shift = torch.where(known, gain, 1.0), torch.where(known, shift, 0.0)
    one, zero = torch.ones(1, len(channels)), torch.zeros(1, len(channels))
    gain, shift = (on_device(torch.cat(rows), donor.device) for rows in ([one, gain], [zero, shift]))
    index = mask.long()
    per_voxel = "x y z c -> c x y z"
    return donor * rearrange(gain[index], per_voxel) + rearrange(shift[index], per_voxel)


def resample(volume: Tensor, zoom: Sequence[float], size: Sequence[int], extend: bool) -> Tensor:
    """Resample a volume linearly about its centre, axis by axis, antialiased where it shrinks.

    Source voxel n // 2 lands on output voxel s // 2 along each axis, so a zoom of 1 moves voxels and blurs nothing.

    Args:
        volume: (C, X, Y, Z) float32.
        zoom: output voxels per source voxel, per axis.
        size: (3,) output voxels along each axis.
        extend: continue the outermost voxels beyond the box; otherwise there are zeros.

    Returns:
        (C, *size) float32.
    """
    for axis, (factor, n) in enumerate(zip(zoom, size, strict=True)):
        weights = _weights(volume.shape[axis + 1], n, factor, extend, volume.device)
        volume = torch.movedim(torch.movedim(volume, axis + 1, -1) @ weights, -1, axis + 1)
    return volume


def _weights(n: int, size: int, factor: float, extend: bool, device: torch.device) -> Tensor:
    """Make triangle-filter weights (n, size), in double precision on the host, so that they are the same everywhere."""
    width = max(1.0, 1.0 / factor)
    position = (torch.arange(size, dtype=torch.float64) - size // 2) / factor + n // 2
    if extend:
        position = position.clamp(0, n - 1)
    reach = int(width) + 1
    source = torch.arange(-reach, n + reach, dtype=torch.float64)
    distance = (source[:, None] - position[None]).abs()
    weights = (1 - distance / width).clamp(min=0)
    inside = weights[reach : reach + n]
    # zeros lie beyond the box unless it is extended; then the voxels inside carry all the weight
    total = inside.sum(0) if extend else _full_sum(position, width)
    return (inside / total.clamp(min=1e-12)).float().to(device, non_blocking=True)


def _full_sum(position: Tensor, width: float) -> Tensor:
    """Sum the triangle filter over all integers, for each output position."""
    reach = int(width) + 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    fraction = position - position.floor()
    return (1 - (offsets[:, None] - fraction[None]).abs() / width).clamp(min=0).sum(0)


def smoothed_outline(mask: Tensor, classes: int, smooth_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Smooth the outline of a mask (X, Y, Z) uint8 by a Gaussian, keeping its volume; its classes stay where they are.

    Voxels that come to it get the class that is strongest around them.
    """
    soft = blurred(one_hot(mask, classes), smooth_mm, spacing_mm)
    total, count = soft.sum(0), (mask > 0).sum()
    level = total.flatten().sort(descending=True).values.gather(0, (count - 1).clamp(min=0)[None])
    strongest = (soft.argmax(0) + 1).to(torch.uint8)
    return torch.where((total >= level) & (count > 0), torch.where(mask > 0, mask, strongest), 0).to(torch.uint8)


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """Encode a mask of class numbers, (X, Y, Z) with k + 1 in class k, as (K, X, Y, Z) float32."""
    values = torch.arange(1, classes + 1, dtype=torch.uint8, device=mask.device)
    return (mask[None] == rearrange(values, "k -> k 1 1 1")).float()


def _bent_grid(insertion: Insertion, device: torch.device) -> Tensor:
    """Make the sampling grid (1, X, Y, Z, 3) of the free rotation and the elastic change, in mm space."""
    size, spacing = insertion.live_crop_vox, on_device(insertion.spacing_mm, device, torch.float32)
    axes = [(torch.arange(n, dtype=torch.float32) - n // 2) * insertion.spacing_mm[i] for i, n in enumerate(size)]
    place = on_device(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1), device)
    place = place @ on_device(rotation_matrix(insertion.angles_deg), device, torch.float32)
    if insertion.elastic_mm:
        noise = seeded_noise([seed_for(insertion.seed, Purpose.ELASTIC)], (3, *(ELASTIC_NODES,) * 3), device)
        bend = F.interpolate(noise.tanh() * insertion.elastic_mm, size=size, mode="trilinear", align_corners=True)[0]
        place = place + rearrange(bend, "d x y z -> x y z d")
    half, center = on_device([n / 2 for n in size], device), on_device([n // 2 for n in size], device)
    normalised = (place / spacing + center + 0.5) / half - 1
    return normalised.flip(-1)[None]


def decided(one_hot: Tensor) -> Tensor:
    """Decide soft classes (K, X, Y, Z): (X, Y, Z) uint8, k + 1 in class k, 0 where they sum to less than one half."""
    strongest = torch.ones_like(one_hot[0], dtype=torch.uint8)
    best = one_hot[0]
    for k in range(1, len(one_hot)):
        strongest = torch.where(one_hot[k] > best, k + 1, strongest)
        best = torch.maximum(best, one_hot[k])
    # a hair under one half keeps voxels whose exact 0.5 was rounded down by the filter
    return torch.where(one_hot.sum(0) >= 0.5 - 1e-4, strongest, 0).to(torch.uint8)
