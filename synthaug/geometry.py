"""Crops whose place is known to the device alone: read and written without the host waiting for it.

A crop may stick out of the volume. Voxels outside are read as 0 and never written: a scatter needs an address for
every crop voxel, so those outside are sent to the address of the crop's centre, which lies in the volume, with the
centre's own value. Writing one value twice to one address is harmless, on any device and in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Addresses of a crop's voxels in a volume.

    Attributes:
        index: (x * y * z,) int64, flat addresses in the volume, those outside clamped to the volume.
        inside: (X, Y, Z) bool, which voxels of the crop lie in the volume.
        size: of the crop.
    """

    index: Tensor
    inside: Tensor
    size: tuple[int, int, int]

    @classmethod
    def at(cls, center: Tensor, size: Sequence[int], volume: Sequence[int]) -> "Window":
        """The crop of `size` whose voxel ``size // 2`` is the volume's voxel `center` ((3,) int64, in the volume)."""
        axes = []
        for i, n in enumerate(size):
            steps = torch.arange(n, device=center.device) - n // 2
            axes.append(center[i] + steps)
        inside = [(a >= 0) & (a < whole) for a, whole in zip(axes, volume, strict=True)]
        x, y, z = (a.clamp(0, whole - 1) for a, whole in zip(axes, volume, strict=True))
        index = (x[:, None, None] * volume[1] + y[None, :, None]) * volume[2] + z[None, None, :]
        whole = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
        return cls(index.reshape(-1), whole, tuple(size))

    def read(self, volume: Tensor) -> Tensor:
        """(..., X, Y, Z) volume to its crop (..., x, y, z); 0 outside the volume."""
        flat = volume.reshape(*volume.shape[:-3], -1)
        crop = flat.index_select(-1, self.index).unflatten(-1, self.size)
        return crop.masked_fill_(~self.inside, 0)

    def write(self, volume: Tensor, crop: Tensor) -> None:
        """Write a crop into a contiguous volume, in place; voxels outside the volume are dropped."""
        center = tuple(n // 2 for n in self.size)
        middle = rearrange(crop[..., *center], "... -> ... 1")
        flat_inside = self.inside.flatten()
        address = (center[0] * self.size[1] + center[1]) * self.size[2] + center[2]
        index = torch.where(flat_inside, self.index, self.index[address])
        values = torch.where(flat_inside, crop.flatten(-3), middle)
        flat = volume.view(*volume.shape[:-3], -1)
        flat.index_copy_(flat.ndim - 1, index, values)
