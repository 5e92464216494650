"""Boxes, windows, distances and symmetries of volumes: every crop and every change of shape of a mask is made here.

A `Window` is a crop whose place is known to the device alone, read and written without the host waiting for it. It may
stick out of the volume. Voxels outside are read as 0 and never written: a scatter needs an address for every crop
voxel, so those outside are sent to the address of the crop's centre, which lies in the volume, with the centre's own
value. Writing one value twice to one address is harmless, on any device and in any order.

A box whose place the host knows is a tuple of three slices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.transfers import on_device

Box = tuple[slice, slice, slice]
T = TypeVar("T")


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Make a tuple of three values, one per axis.

    Raises:
        ValueError: another number of values.

    Example:
        >>> triple(n // 2 for n in (96, 96, 64))
        (48, 48, 32)
    """
    x, y, z = values
    return x, y, z


# ------------------------------------------------------------------------------------------- windows and boxes


@dataclass(frozen=True)
class Window:
    """Addresses of a crop's voxels in a volume.

    Attributes:
        index: (x * y * z,) int64, flat addresses in the volume, those outside clamped to the volume.
        inside: (X, Y, Z) bool, which voxels of the crop lie in the volume.
        size: voxels of the crop along X, Y, Z.
    """

    index: Tensor
    inside: Tensor
    size: tuple[int, int, int]

    @classmethod
    def at(cls, center: Tensor, size: Sequence[int], volume: Sequence[int]) -> "Window":
        """Address the crop of `size` whose voxel ``size // 2`` is the volume's voxel `center` ((3,) int64, in it)."""
        axes = []
        for i, n in enumerate(size):
            steps = torch.arange(n, device=center.device) - n // 2
            axes.append(center[i] + steps)
        inside = [(a >= 0) & (a < whole) for a, whole in zip(axes, volume, strict=True)]
        x, y, z = (a.clamp(0, whole - 1) for a, whole in zip(axes, volume, strict=True))
        index = (x[:, None, None] * volume[1] + y[None, :, None]) * volume[2] + z[None, None, :]
        whole = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
        return cls(index.reshape(-1), whole, triple(size))

    def read(self, volume: Tensor) -> Tensor:
        """Read the crop (..., x, y, z) of a volume (..., X, Y, Z); 0 outside the volume."""
        flat = volume.reshape(*volume.shape[:-3], -1)
        crop = flat.index_select(-1, self.index).unflatten(-1, self.size)
        return crop.masked_fill_(~self.inside, 0)

    def write(self, volume: Tensor, crop: Tensor) -> None:
        """Write a crop into a contiguous volume, in place; voxels outside the volume are dropped."""
        center = triple(n // 2 for n in self.size)
        middle = rearrange(crop[..., *center], "... -> ... 1")
        flat_inside = self.inside.flatten()
        address = (center[0] * self.size[1] + center[1]) * self.size[2] + center[2]
        index = torch.where(flat_inside, self.index, self.index[address])
        values = torch.where(flat_inside, crop.flatten(-3), middle)
        flat = volume.view(*volume.shape[:-3], -1)
        flat.index_copy_(flat.ndim - 1, index, values)


EVERYWHERE: Box = (slice(None), slice(None), slice(None))
"""The box that is a whole volume."""


def bounding_box(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> Box:
    """Find the smallest box that holds a mask (X, Y, Z), with a margin in voxels, cut at the borders."""
    box = []
    for axis, (n, more) in enumerate(zip(mask.shape, margin, strict=True)):
        where = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(where[0]), int(where[-1]) + 1) if len(where) else (0, 0)
        box.append(slice(max(low - more, 0), min(high + more, n) if len(where) else 0))
    return triple(box)


def overlap(start: Sequence[int], size: Sequence[int], volume: Sequence[int]) -> tuple[Box, Box]:
    """Intersect a box with a volume: slices of the volume, and slices of the box.

    Args:
        start: (3,) the box's first voxel, which may lie outside the volume.
        size: (3,) of the box.
        volume: (X, Y, Z).
    """
    sides = [(max(int(a), 0), min(int(a) + n, whole)) for a, n, whole in zip(start, size, volume, strict=True)]
    inside = triple(slice(low, max(low, high)) for low, high in sides)
    return inside, triple(slice(s.start - int(a), s.stop - int(a)) for s, a in zip(inside, start, strict=True))


def cube_around(volume: Tensor, center: Sequence[int], side: int, outside: Tensor | None = None) -> Tensor:
    """Cut the cube (C, side, side, side) out of a volume (C, X, Y, Z) whose voxel ``side // 2`` is `center`.

    Beyond the volume each channel has its value `outside`, (C,), or 0.
    """
    source, target = overlap([int(c) - side // 2 for c in center], (side,) * 3, volume.shape[1:])
    values = volume.new_zeros(len(volume)) if outside is None else outside
    cube = values[:, None, None, None].expand(-1, side, side, side).clone()
    cube[:, *target] = volume[:, *source]
    return cube


def padded_to_multiple(volume: Tensor, step: int) -> Tensor:
    """Pad (C, X, Y, Z) with 0 at the ends of its last three axes, up to multiples of `step`."""
    return F.pad(volume, [n for size in reversed(volume.shape[-3:]) for n in (0, -size % step)])


# -------------------------------------------------------------------------------------- distance and morphology


def squared_distance(mask: Tensor, reach_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Compute the squared Euclidean distance in mm to a mask's nearest voxel, exact up to `reach_mm`, large beyond.

    A separable lower envelope over the voxels in reach, one axis after the other.

    Args:
        mask: (x, y, z) bool.
        reach_mm: how far the distance is wanted.
        spacing_mm: voxel size.
    """
    far = 4 * (reach_mm + max(spacing_mm)) ** 2 + 1
    distance = torch.where(mask, 0.0, far)
    for dim, spacing in enumerate(spacing_mm):
        steps = min(int(reach_mm / spacing + 1e-6), mask.shape[dim] - 1)
        nearest = distance
        for step in range(1, steps + 1):
            cost = (step * spacing) ** 2
            n = mask.shape[dim] - step
            nearest = nearest.clone() if nearest is distance else nearest
            ahead, behind = nearest.narrow(dim, 0, n), nearest.narrow(dim, step, n)
            torch.minimum(ahead, distance.narrow(dim, step, n) + cost, out=ahead)
            torch.minimum(behind, distance.narrow(dim, 0, n) + cost, out=behind)
        distance = nearest
    return distance


def grown(mask: Tensor, by_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Grow a mask by all voxels within `by_mm` of it (centre to centre)."""
    if by_mm <= 0:
        return mask
    return squared_distance(mask, by_mm, spacing_mm) <= by_mm**2 * (1 + 1e-6)


def box_mean(values: Tensor, extend: bool = False) -> Tensor:
    """Average 3 x 3 x 3 voxels of (C, X, Y, Z) float, axis by axis, which is quicker on CPUs than a pooling.

    Beyond the border are zeros, or where `extend` says so the outermost voxels once more.
    """
    for dim in (-3, -2, -1):
        n, total = values.shape[dim] - 1, values.clone()
        total.narrow(dim, 1, n).add_(values.narrow(dim, 0, n))
        total.narrow(dim, 0, n).add_(values.narrow(dim, 1, n))
        if extend:
            total.narrow(dim, 0, 1).add_(values.narrow(dim, 0, 1))
            total.narrow(dim, n, 1).add_(values.narrow(dim, n, 1))
        values = total
    return values.div_(27)


def blurred(values: Tensor, sigma_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Blur (C, X, Y, Z) float by a Gaussian, axis by axis; at the border the rest of it carries all."""
    for axis, spacing in enumerate(spacing_mm):
        place = torch.arange(values.shape[axis + 1], dtype=torch.float64) * spacing
        weights = torch.exp(-0.5 * ((place[:, None] - place[None]) / sigma_mm).square())
        weights = on_device((weights / weights.sum(0)).float(), values.device)
        values = torch.movedim(torch.movedim(values, axis + 1, -1) @ weights, -1, axis + 1)
    return values


def opened(mask: Tensor, sides: Sequence[int] = (2, 2, 2)) -> Tensor:
    """Open a mask (..., X, Y, Z) bool by a box of `sides` voxels; along an axis that is shorter, by all of the axis."""
    sides = [min(side, n) for side, n in zip(sides, mask.shape[-3:], strict=True)]
    return dilated(eroded(mask, sides), sides)


def eroded(mask: Tensor, sides: Sequence[int] = (2, 2, 2)) -> Tensor:
    """Find where boxes of `sides` voxels of (..., X, Y, Z) bool begin; shorter by ``side - 1`` along each axis."""
    for dim, side in zip((-3, -2, -1), sides, strict=True):
        known = 1  # so many voxels from here on are all in the mask
        while known < side:
            step = min(known, side - known)
            n = mask.shape[dim] - step
            mask, known = mask.narrow(dim, 0, n) & mask.narrow(dim, step, n), known + step
    return mask


def dilated(mask: Tensor, sides: Sequence[int] = (2, 2, 2)) -> Tensor:
    """Unite the boxes of `sides` voxels that begin in (..., X, Y, Z) bool; longer by ``side - 1`` along each axis."""
    for dim, side in zip((-3, -2, -1), sides, strict=True):
        known = 1
        while known < side:
            step = min(known, side - known)
            n, shape = mask.shape[dim], list(mask.shape)
            shape[dim] += step
            longer = mask.new_empty(shape)
            longer.narrow(dim, 0, n).copy_(mask)
            longer.narrow(dim, n, step).fill_(False)
            longer.narrow(dim, step, n).logical_or_(mask)
            mask, known = longer, known + step
    return mask


# --------------------------------------------------------------------------------------------------- symmetries


def turned(volume: Tensor, axes: Sequence[int], flips: Sequence[bool]) -> Tensor:
    """Apply one of the 48 symmetries of a cube to (C, X, Y, Z): its axes in another order, some then mirrored."""
    volume = volume.permute(0, *(a + 1 for a in axes))
    mirrored = [i + 1 for i, flip in enumerate(flips) if flip]
    return volume.flip(mirrored) if mirrored else volume


def drawn_symmetry(rng: torch.Generator) -> tuple[list[int], list[bool]]:
    """Draw the axes and flips of one of the 48 symmetries, all as likely."""
    axes = torch.randperm(3, generator=rng).tolist()
    return axes, [float(torch.rand((), generator=rng)) < 0.5 for _ in range(3)]
