"""The host's own lesion, painted anew in place: which it is, its new outline and classes, and its look.

All is found on the device by dense masks, in a crop of fixed size, so that the host does not wait for a box. A lesion
is what touches on the coarse grid (cells of 1 to 8 voxels, as `synthaug.insertion.placement` has them), which is drawn
by volume: from a random voxel it is flooded. It is scaled about the middle of its box, cut to host tissue, and keeps
clear of other lesions.

Its look, where the generator needs a donor's: z-scores within the host's own classes, t = (z - mean) / std, are scaled
along with it, and moved to the means and spreads of the new classes, those of the donor's lesion or of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.classes import Classes
from synthaug.geometry import Window, box_mean, triple
from synthaug.insertion.asked import Insertion, Outcome
from synthaug.insertion.contrast import fields
from synthaug.insertion.placement import coarse_step, pooled
from synthaug.insertion.render import decided, one_hot, renamed
from synthaug.lesions.base import LesionSource
from synthaug.random import Purpose, device_stream, seed_for
from synthaug.transfers import on_device

ROUNDS = 64
"""Steps of the flood over the coarse grid; the rest of a longer lesion counts as another one."""

EDGE = 2
"""Voxels that a crop must have around a lesion where it does not hold the whole patch."""

LEAST_SPREAD = 0.05
"""Standard deviation in z-scores below which a class's texture is not told from rounding."""


@dataclass(frozen=True)
class OwnLesion:
    """One of the host's own lesions and what becomes of it.

    Attributes:
        center_vox: (3,) int64, the middle of its box in the patch.
        window: its crop.
        center: (3,) int64, that middle in the crop.
        old: (x, y, z) uint8, the lesion as it is, k + 1 in class k.
        new: (x, y, z) uint8, as it becomes.
        taken: (X, Y, Z) bool, its old and new voxels in the patch.
        outcome: () int64, `Outcome.DONE`, `NO_LESION` or `TOO_LARGE`.
    """

    center_vox: Tensor
    window: Window
    center: Tensor
    old: Tensor
    new: Tensor
    taken: Tensor
    outcome: Tensor

    @property
    def vacated(self) -> Tensor:
        """(x, y, z) bool, lesion that becomes host tissue."""
        return (self.old > 0) & (self.new == 0)


def own_lesion(
    label: Tensor, tissue: Tensor, taken: Tensor | None, row: Insertion, classes: Classes, halo_vox: int
) -> OwnLesion:
    """Choose one of a sample's lesions and change its outline and classes.

    Args:
        label: (X, Y, Z) integer.
        tissue: (X, Y, Z) bool, host tissue; a lesion's voxels outside of it stay as they are.
        taken: (X, Y, Z) bool, lesions that were chosen before, or None.
        row: with seed, swaps, scale and crop.
        classes: vocabulary of the label.
        halo_vox: voxels around the lesion that change too.
    """
    number, volume, size = numbered(label, classes), triple(label.shape), row.live_crop_vox
    free = tissue if taken is None else tissue & ~taken
    lesion = component(free & (number > 0), row.seed)
    middle, extent = box_of(lesion)
    whole = [n >= v for n, v in zip(size, volume, strict=True)]
    limits = [n if all_of_it else n - 2 * (halo_vox + EDGE) for n, all_of_it in zip(size, whole, strict=True)]
    grown = torch.where(on_device(whole, label.device), extent, (extent * max(1.0, row.scale)).ceil())
    fits = (grown <= on_device(limits, label.device)).all()
    halves = on_device([v // 2 for v in volume], label.device)
    start = torch.where(on_device(whole, label.device), halves, middle)
    window = Window.at(start, size, volume)
    old = window.read(number * lesion)
    center = middle - start + on_device([n // 2 for n in size], label.device)
    soft = one_hot(renamed(old, row.swaps, classes.names, classes), len(classes))
    if row.scale != 1:
        soft = scaled(soft, center, row.scale)
    room = window.read(free & ((label == 0) | lesion))
    new = decided(soft) * room
    outcome = torch.where(fits, int(Outcome.DONE), int(Outcome.TOO_LARGE))
    outcome = torch.where(lesion.any(), outcome, int(Outcome.NO_LESION))
    written = lesion.clone()
    window.write(written, window.read(lesion) | (new > 0))
    return OwnLesion(middle, window, center, old, new, written, outcome)


def numbered(label: Tensor, classes: Classes) -> Tensor:
    """Number the classes of a label map: uint8, k + 1 in class k, 0 elsewhere."""
    number = torch.zeros_like(label, dtype=torch.uint8)
    for k, value in enumerate(classes.values.values()):
        number = torch.where(label == value, k + 1, number)
    return number.to(torch.uint8)


def component(mask: Tensor, seed: int) -> Tensor:
    """Flood a mask (X, Y, Z) from a voxel drawn by the seed, (X, Y, Z) bool; nothing where the mask is empty."""
    step = coarse_step(mask.shape)
    share = pooled(mask, step, F.avg_pool3d)
    rank = torch.rand(
        share.shape, generator=device_stream(seed_for(seed, Purpose.OWN), mask.device), device=mask.device
    )
    # a draw in proportion to the shares (Efraimidis and Spirakis, 2006)
    key = torch.where(share > 0, rank.clamp(min=1e-7).log() / share.clamp(min=1e-6), -torch.inf)
    cells = (share > 0).float()
    reached = torch.zeros_like(cells).flatten().index_fill(0, key.flatten().argmax(0, keepdim=True), 1.0)
    reached = reached.view_as(cells) * cells
    for _ in range(ROUNDS):
        before, reached = reached, F.max_pool3d(reached[None, None], 3, 1, 1)[0, 0] * cells
        # where the host need not wait for the device, it can stop when nothing more is reached
        if mask.device.type == "cpu" and (before.numpy() == reached.numpy()).all():
            break
    for axis in range(3):
        reached = reached.repeat_interleave(step, axis).narrow(axis, 0, mask.shape[axis])
    return (reached > 0) & mask


def box_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Find the middle voxel (3,) int64 of a mask's box and its extent (3,) in voxels; anything where it is empty."""
    ends = []
    for axis in range(3):
        line = mask.flatten(1).any(1) if axis == 0 else mask.movedim(axis, 0).flatten(1).any(1)
        line = line.to(torch.uint8)
        ends.append(torch.stack([line.argmax(), len(line) - 1 - line.flip(0).argmax()]))
    low, high = torch.stack(ends).unbind(1)
    return (low + high) // 2, high - low + 1


def scaled(values: Tensor, center: Tensor, factor: float) -> Tensor:
    """Scale (C, x, y, z) linearly about a voxel (3,); zeros come from outside."""
    axes = []
    for i, n in enumerate(values.shape[1:]):
        place = (torch.arange(n, device=values.device) - center[i]) / factor + center[i]
        axes.append((2 * place + 1) / n - 1)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)
    return F.grid_sample(values[None], grid[None].to(values.dtype), "bilinear", "zeros", False)[0]


def look(own: OwnLesion, z: Tensor, row: Insertion, style: tuple[Tensor, Tensor] | None, classes: Classes) -> Tensor:
    """Make the intensities that the lesion gets of its own texture, (C, x, y, z) model intensities.

    Args:
        own: the lesion.
        z: (C, x, y, z), the host's intensities in its crop.
        row: with swaps and scale.
        style: mean and standard deviation (K, C) of the donor's classes, NaN where not known; None for its own.
        classes: vocabulary.
    """
    before = one_hot(own.old, len(classes))
    mean, std = moments(z, before)
    soft = softened(before)
    texture = (z - fields(soft, mean)) / fields(soft, std).clamp(min=LEAST_SPREAD)
    if row.scale != 1:
        inside = (own.old > 0).float()[None]
        weight = scaled(inside, own.center, row.scale).clamp(min=0.1)
        texture = scaled(texture * inside, own.center, row.scale) / weight
    if style is not None:
        mean, std = (torch.where(s.isfinite(), s, o) for s, o in zip(style, (mean, std), strict=True))
    after = softened(one_hot(own.new, len(classes)))
    return texture * fields(after, std) + fields(after, mean)


def moments(z: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation (K, C) of intensities (C, x, y, z) in masks (K, x, y, z); 0 where empty."""
    weight, values = masks.flatten(1), z.flatten(1)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    mean = torch.stack([(values * w).sum(1) for w in weight]) / count
    square = torch.stack([((values - m[:, None]).square() * w).sum(1) for w, m in zip(weight, mean, strict=True)])
    return mean, (square / count).sqrt()


def softened(masks: Tensor) -> Tensor:
    """Share out each voxel (K, x, y, z) among the classes near it, so that borders between them are gradual."""
    soft = box_mean(masks)
    return soft / soft.sum(0).clamp(min=1e-3)


def style_of(
    source: LesionSource, name: str, channels: Sequence[int], classes: Classes, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Look up mean and standard deviation (K, C) of a donor's classes, in the order of `classes`; NaN where unknown."""
    tables = []
    for values in source.class_statistics(name, channels):
        table = torch.full((len(classes), len(channels)), torch.nan)
        for own, row in zip(source.classes, values, strict=True):
            table[classes.index(own)] = row
        tables.append(on_device(table, device))
    return tables[0], tables[1]
