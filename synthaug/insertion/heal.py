"""Healing of the host where a lesion of its own was: tissue of the mirrored side, or a smooth fill with its noise.

The fill is harmonic but for rounding: averages of the tissue around, from coarse to fine, each level relaxed for some
rounds. Where the other side is known and healthy there, its tissue goes in, raised by the fill of the differences at
the border, so that no seam is left; elsewhere noise of the spread that the tissue around has goes on top.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.geometry import box_mean, grown
from synthaug.insertion.asked import Rows
from synthaug.random import Purpose, seed_for, seeded_noise
from synthaug.transfers import on_device

ROUNDS = 4
NEAR_VOX = 4
HEALTHY = 0.999
COARSE = 0.5
"""Spread of the noise's smooth part beside its white one."""


def healed(z: Tensor, known: Tensor, hole: Tensor, seed: int, mirrored: tuple[Tensor, Tensor] | None) -> Tensor:
    """Fill a hole in a crop, (C, x, y, z) model intensities; voxels outside the hole stay as they are.

    Args:
        z: (C, x, y, z) model intensities.
        known: (x, y, z) bool, healthy tissue outside the hole.
        hole: (x, y, z) bool.
        seed: the insertion's own.
        mirrored: (C, x, y, z) intensities of the other side and (x, y, z) bool, where it is healthy; or None.
    """
    smooth = filled(z, known)
    near = known & grown(hole, NEAR_VOX, (1.0, 1.0, 1.0))
    noise = seeded_noise([seed_for(seed, Purpose.HEAL)], z.shape, z.device)[0]
    noise = noise + COARSE * box_mean(noise) * 27**0.5
    fine = smooth + noise * (spread(z, near) / spread(noise, hole).clamp(min=1e-3))[:, None, None, None]
    if mirrored is not None:
        other, healthy = mirrored
        raised = other + filled(z - other, known & healthy)
        fine = torch.where(healthy & (known & healthy).any(), raised, fine)
    return torch.where(hole, fine, z)


def filled(values: Tensor, known: Tensor, rounds: int = 1) -> Tensor:
    """Fill (C, x, y, z) values smoothly where they are not `known`, (x, y, z) bool; 0 where nothing is.

    The finest level is relaxed for `rounds`, coarser ones, which cost less, for more.
    """
    weight = known.to(values.dtype)[None]
    coarse = torch.zeros_like(values)
    if max(values.shape[1:]) > 2:
        padding = [p for n in reversed(values.shape[1:]) for p in (0, n % 2)]
        share = F.avg_pool3d(F.pad(weight, padding), 2)
        mean = F.avg_pool3d(F.pad(values * weight, padding), 2) / share.clamp(min=1e-6)
        below = filled(mean, share[0] > 0, ROUNDS)
        size = [2 * n for n in below.shape[1:]]
        wide = F.interpolate(below[None], size=size, mode="trilinear", align_corners=False)[0]
        coarse = wide[:, : values.shape[1], : values.shape[2], : values.shape[3]]
    else:
        mean = (values * weight).sum((1, 2, 3)) / weight.sum().clamp(min=1)
        coarse = mean[:, None, None, None].expand_as(values)
    found = torch.where(known, values, coarse)
    for _ in range(rounds):
        found = torch.where(known, values, box_mean(found, extend=True))
    return found


def spread(z: Tensor, inside: Tensor) -> Tensor:
    """Measure the fine noise (C,) of (C, x, y, z) in a mask: its spread about means of 3 x 3 x 3 voxels in it."""
    weight = inside.to(z.dtype)
    share = box_mean(weight[None]).clamp(min=1e-3)
    rest = (z - box_mean(z * weight) / share) * weight
    return (rest.square().sum((1, 2, 3)) / weight.sum().clamp(min=1)).sqrt()


def other_side(
    z: Tensor, healthy: Tensor, start: Tensor, size: tuple[int, int, int], matrix: Rows
) -> tuple[Tensor, Tensor]:
    """Read the mirror image of a crop out of a patch: (C, *size) intensities, and (*size) bool, where it is healthy.

    Args:
        z: (C, X, Y, Z) model intensities of the patch.
        healthy: (X, Y, Z) bool, tissue without lesions.
        start: (3,) int64, the crop's first voxel.
        size: of the crop.
        matrix: (3, 4), voxel indices to those of their mirror images.
    """
    axes = [torch.arange(n, device=z.device) + start[i] for i, n in enumerate(size)]
    here = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(z.dtype)
    table = on_device(matrix, z.device, z.dtype)
    there = (here[..., None, :] * table[:, :3]).sum(-1) + table[:, 3]
    shape = on_device(list(z.shape[1:]), z.device, z.dtype)
    grid = ((2 * there + 1) / shape - 1).flip(-1)[None]
    values = torch.cat([z, healthy.to(z.dtype)[None]])[None]
    found = F.grid_sample(values, grid, "bilinear", "zeros", False)[0]
    return found[:-1], found[-1] >= HEALTHY
