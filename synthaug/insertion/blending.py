"""Blending of a generated lesion into the host: inside its support only, with a soft edge.

The support is the lesion, or the lesion and a halo around it for generators that paint mass effect. The weight of the
generated voxels rises from the border of the support inwards over `edge_vox`; outside the support it is exactly 0, and
the host's voxels are kept by selection rather than by arithmetic, so they keep their bits.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.geometry import squared_distance


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


def blended(host: Tensor, generated: Tensor, weight: Tensor, support: Tensor, floor: Tensor) -> Tensor:
    """Blend a lesion into a crop, in the host's dtype; voxels outside the support are the host's, bit for bit.

    Args:
        host: (C, x, y, z), the batch's own intensities and dtype.
        generated: (C, x, y, z) float32, in the batch's intensities.
        weight: (x, y, z) float32 of `soft_edge`.
        support: (x, y, z) bool.
        floor: (C,) lowest value that may be written, so that no lesion goes below the host's darkest tissue.
    """
    mixed = (generated - host.float()).mul_(weight).add_(host.float())
    mixed = torch.maximum(mixed, floor[:, None, None, None], out=mixed)
    return torch.where(support, mixed.to(host.dtype), host)


def margin_vox(clearance_mm: float, halo_mm: float, spacing_mm: Sequence[float], generator_margin: int) -> int:
    """Compute how many voxels of surroundings a crop needs on each side of its lesion."""
    return max(generator_margin, int(max(clearance_mm, halo_mm) / min(spacing_mm)) + 2)
