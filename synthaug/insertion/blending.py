"""Blending of a generated lesion into the host: inside its support only, with a soft edge.

The support is the lesion, or the lesion and a halo around it for generators that paint mass effect, or a fringe into
which it fades. The weight of the generated voxels rises from the border of the support inwards over `edge_vox`, and the
fringe; outside the support it is exactly 0, and the host's voxels are kept by selection rather than by arithmetic, so
they keep their bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.generators.learned.style import moving_average
from synthaug.geometry import blurred, grown, squared_distance
from synthaug.insertion.render import one_hot

DARKEST = -3.0
"""Standard deviations from the mean of host tissue below which a donor's surroundings are no tissue."""

TEXTURE_VOX = 5
"""What a moving average over so many voxels removes is texture, of which independent ones are mixed."""


@dataclass(frozen=True)
class Edge:
    """How lesions end: where the image changes for them, and how strongly.

    Attributes:
        halo_mm: width of the support around the lesion.
        fringe_mm: width of the fringe into which the lesion's look fades.
        vox: width of the soft edge inside the support.
        texture: whether the soft edge keeps the strength of fine texture.
        donor: whether the fringe shows a donor's surroundings, in which the look fades by itself.
    """

    halo_mm: float = 0.0
    fringe_mm: float = 0.0
    vox: float = 1.0
    texture: bool = False
    donor: bool = False

    def support(self, mask: Tensor, free: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Mark the voxels (x, y, z) that change for a lesion: itself, and its halo and fringe where it is free."""
        support, width = mask > 0, max(self.halo_mm, self.fringe_mm)
        return support | grown(support, width, spacing_mm) & free if width else support

    def shown(self, mask: Tensor, support: Tensor, classes: int, spacing_mm: Sequence[float]) -> Tensor:
        """Grow the mask (x, y, z) uint8 of a lesion by its fringe, whose voxels get the strongest class there."""
        if not self.fringe_mm:
            return mask
        fringe = grown(mask > 0, self.fringe_mm, spacing_mm) & support & (mask == 0)
        strongest = blurred(one_hot(mask, classes), self.fringe_mm, spacing_mm).argmax(0) + 1
        return torch.where(fringe, strongest.to(mask.dtype), mask)

    def weight(self, support: Tensor, spacing_mm: Sequence[float]) -> Tensor:
        """Compute the weight of the generated voxels, see `soft_edge`; what is painted fades over the fringe, too."""
        return soft_edge(support, self.vox + (0.0 if self.donor else self.fringe_mm / min(spacing_mm)))


def donor_tissue(donor: Tensor, mask: Tensor) -> Tensor:
    """Mark where a donor's crop shows tissue around its lesion, (x, y, z) bool: no background or fluid, nor next to it.

    Else the lesion of a donor that lay at the brain's edge would be ringed with black.

    Args:
        donor: (C, x, y, z) model intensities.
        mask: (x, y, z) uint8, the lesion.
    """
    dark = (donor < DARKEST).any(0) & (mask == 0)
    return ~grown(dark, 1.0, (1.0, 1.0, 1.0))


def soft_edge(support: Tensor, edge_vox: float) -> Tensor:
    """Compute the weight of the generated voxels, (x, y, z) float32 in [0, 1]: 0 outside the support, 1 deep inside.

    At a depth of d voxels below the border (the outermost layer has d = 1) it is min(1, d / (edge_vox + 1)).

    Args:
        support: (x, y, z) bool.
        edge_vox: width of the edge; 0 for a hard one.
    """
    if edge_vox <= 0:
        return support.float()
    depth = squared_distance(~F.pad(support, (1,) * 6), edge_vox + 1, (1.0, 1.0, 1.0)).sqrt()[1:-1, 1:-1, 1:-1]
    return (depth / (edge_vox + 1)).clamp(max=1.0) * support


def blended(
    host: Tensor, generated: Tensor, weight: Tensor, support: Tensor, floor: Tensor, texture: bool = False
) -> Tensor:
    """Blend a lesion into a crop, in the host's dtype; voxels outside the support are the host's, bit for bit.

    Args:
        host: (C, x, y, z), the batch's own intensities and dtype.
        generated: (C, x, y, z) float32, in the batch's intensities.
        weight: (x, y, z) float32 of `soft_edge`.
        support: (x, y, z) bool.
        floor: (C,) lowest value that may be written, so that no lesion goes below the host's darkest tissue.
        texture: keep the strength of fine texture. The mean of two independent ones of one strength has w^2 + (1 - w)^2
            of its power, half in the middle of the edge; texture is divided by the root of that (Heitz & Neyret 2018).
    """
    mixed = (generated - host.float()).mul_(weight).add_(host.float())
    if texture:
        fine = mixed - moving_average(mixed[None], TEXTURE_VOX)[0]
        gain = (weight.square() + (1 - weight).square()).rsqrt() - 1
        mixed = mixed + fine * gain
    mixed = torch.maximum(mixed, floor[:, None, None, None], out=mixed)
    return torch.where(support, mixed.to(host.dtype), host)


def margin_vox(clearance_mm: float, halo_mm: float, spacing_mm: Sequence[float], generator_margin: int) -> int:
    """Compute how many voxels of surroundings a crop needs on each side of its lesion."""
    return max(generator_margin, int(max(clearance_mm, halo_mm) / min(spacing_mm)) + 2)
