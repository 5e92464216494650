"""Mass effect: a gentle push of a lesion's surroundings, as far as these can give way.

Tissue at the lesion's outline moves outwards by `mass_effect_mm`, less with the distance, and not at all from `REACH`
times that distance on: with t = d / reach the push is (1 - t)^2 (1 + 2 t) of the whole. It dies away towards what stays
in place, the edge of the tissue and labelled voxels, so that no label has to move. The image is read where its tissue
came from,

    after(x) = before(x - u(x)),

and x - u(x) can be inverted, since u is blurred, by a Gaussian of `mass_effect_mm`, and made so weak that it changes by
at most `STEEPEST` mm per mm. Fluid is moved as tissue is: ventricles give way.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.geometry import blurred, squared_distance

REACH = 4.0
STEEPEST = 0.8


def reach_vox(mass_effect_mm: float, spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Count the voxels on each side of a lesion that a push may reach."""
    return tuple(int(REACH * mass_effect_mm / s) + 2 for s in spacing_mm)


def push_support(lesion: Tensor, fixed: Tensor, mass_effect_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Mark the voxels that a push may change, (X, Y, Z) bool: those within reach that are not fixed, and the lesion's.

    Args:
        lesion: (X, Y, Z) bool.
        fixed: (X, Y, Z) bool, what stays in place.
        mass_effect_mm: displacement at the outline.
        spacing_mm: voxel size.
    """
    reach = REACH * mass_effect_mm
    return (squared_distance(lesion, reach, spacing_mm) < reach**2) & ~fixed & lesion.any()


def displacement(lesion: Tensor, fixed: Tensor, mass_effect_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Compute the push u, (3, X, Y, Z) float32 in mm, 0 outside its support; see `push_support` for the arguments."""
    reach, least = REACH * mass_effect_mm, min(spacing_mm)
    support = push_support(lesion, fixed, mass_effect_mm, spacing_mm)
    away = squared_distance(lesion, reach, spacing_mm).sqrt().clamp(max=reach)
    t = away / reach
    amount = mass_effect_mm * (1 - t).square() * (1 + 2 * t)
    # what is fixed is not read either: half of the way to the voxel before it
    room = (squared_distance(fixed, 2 * mass_effect_mm + 2 * least, spacing_mm).sqrt() - max(spacing_mm)).clamp(min=0)
    amount = torch.minimum(amount, room / 2)
    inside = squared_distance(~lesion, 2 * least, spacing_mm).sqrt().clamp(max=2 * least)
    height = blurred((away - inside)[None], mass_effect_mm, spacing_mm)[0]
    slope = torch.stack(
        [torch.gradient(height, dim=axis)[0] / s for axis, s in zip((0, 1, 2), spacing_mm, strict=True)]
    )
    u = blurred(amount * slope / length_of(slope).clamp(min=0.5), mass_effect_mm, spacing_mm)
    # smoothing carries it on to where nothing may move
    most = torch.minimum(room / 2, mass_effect_mm * (reach - away) / (reach / 2)) * support
    u = u * (most / length_of(u).clamp(min=1e-6)).clamp(0, 1)
    return u * (STEEPEST / steepness(u, spacing_mm).clamp(min=STEEPEST))


def length_of(vectors: Tensor) -> Tensor:
    """Compute the lengths (X, Y, Z) of vectors (3, X, Y, Z)."""
    return vectors.square().sum(0).sqrt()


def steepness(u: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Compute how much a displacement changes at most, in mm per mm, a tensor without dimensions."""
    total = torch.zeros_like(u[0])
    for axis, spacing in enumerate(spacing_mm):
        change = (u.diff(dim=axis + 1) / spacing).square().sum(0)
        total.narrow(axis, 0, change.shape[axis]).add_(change)
    return total.amax().sqrt()


def pushed(image: Tensor, lesion: Tensor, fixed: Tensor, mass_effect_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Push a lesion's surroundings outwards; voxels outside the support keep their bits.

    Args:
        image: (C, X, Y, Z) float.
        lesion, fixed, mass_effect_mm, spacing_mm: see `push_support`.
    """
    u = displacement(lesion, fixed, mass_effect_mm, spacing_mm)
    size = image.shape[1:]
    index = torch.meshgrid(*(torch.arange(n, device=image.device, dtype=torch.float32) for n in size), indexing="ij")
    grid = torch.stack([2 * (i - d / s + 0.5) / n - 1 for i, d, s, n in zip(index, u, spacing_mm, size, strict=True)])
    read = F.grid_sample(
        image[None].float(), rearrange(grid.flip(0), "d x y z -> 1 x y z d"), "bilinear", "border", False
    )[0]
    moved = push_support(lesion, fixed, mass_effect_mm, spacing_mm) & (u != 0).any(0)
    return torch.where(moved, read.to(image.dtype), image)
