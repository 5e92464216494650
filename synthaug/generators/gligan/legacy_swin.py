"""SwinUNETR as it was up to MONAI 1.4, for weights that were trained with it.

SwinUNETR: Hatamizadeh et al., arXiv:2201.01266. Its PatchMerging joins 2 x 2 x 2 neighbours, and until MONAI 1.4 it
took two of the eight slices twice and two never. MONAI 1.5 mended that under the same parameter names, so weights from
before load there without complaint and give wrong output. `LegacyPatchMerging` keeps the order that they were trained
with.
"""

import torch
from torch import Tensor, nn

SLICES = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))
"""Offsets of the joined neighbours along x, y and z, in order."""


class LegacyPatchMerging(nn.Module):
    """Joins 2 x 2 x 2 neighbours in the order of MONAI up to 1.4, with MONAI's parameter names.

    Args:
        dim: number C of channels that come in; 2 C go out.
        norm_layer: the normalisation of the joined channels.
        spatial_dims: must be 3.

    Raises:
        ValueError: another number of dimensions.
    """

    def __init__(self, dim: int, norm_layer: type[nn.Module] = nn.LayerNorm, spatial_dims: int = 3):
        super().__init__()
        if spatial_dims != 3:
            raise ValueError(f"LegacyPatchMerging: expected 3 spatial dimensions, got {spatial_dims}")
        self.norm = norm_layer(8 * dim)
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Join (B, X, Y, Z, C) with even X, Y, Z to (B, X / 2, Y / 2, Z / 2, 2 C)."""
        return self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in SLICES], dim=-1)))


def legacy_swin_unetr(in_channels: int, feature_size: int = 48) -> nn.Module:
    """Make MONAI's SwinUNETR with one output channel and the slice order that GliGAN was trained with.

    Args:
        in_channels: the noisy crop and the regions; 4, 5 or 2 in the release.
        feature_size: a multiple of 12; 48 in the release, which makes 62.2 million parameters.

    Returns:
        The network with random weights, in evaluation mode; (N, in_channels, s, s, s) to (N, 1, s, s, s).

    Raises:
        ImportError: MONAI is not installed.
    """
    try:
        from monai.networks.nets import SwinUNETR
    except ImportError as error:
        raise ImportError('GliGAN needs MONAI\'s SwinUNETR: pip install "monai>=1.5"') from error
    with torch.random.fork_rng(devices=[]):
        network = SwinUNETR(
            in_channels=in_channels,
            out_channels=1,
            feature_size=feature_size,
            downsample=LegacyPatchMerging,  # type: ignore[arg-type] # MONAI calls it as a class, and says a module
        )
    return network.eval().requires_grad_(False)
