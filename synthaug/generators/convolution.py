"""Convolutions as the generators' networks use them: in the layout, precision and implementation that cost least."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d`, which on CPUs takes oneDNN's convolution for small inputs too where no gradients are wanted.

    PyTorch leaves single inputs of few voxels to a loop of its own, which takes two to eight times as long: most of
    the time that a crop of 32 x 32 x 32 voxels takes in float32.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or _rounds(x):
            return super()._conv_forward(x, weight, bias)
        return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)


def _rounds(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def autocast_without_gradients(device: str) -> torch.autocast:
    """Autocast as it is, but none where gradients are wanted.

    For the deepest level, a handful of voxels: oneDNN's bf16 weight gradients read stray memory there.
    """
    enabled = torch.is_autocast_enabled(device) and not torch.is_grad_enabled()
    return torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled)


def space_to_depth_conv(parts: Sequence[Tensor], conv: nn.Conv3d) -> Tensor:
    """`conv` (1 x 1 x 1) on the 2 x 2 x 2 voxels of all parts brought to channels, ``n (c i j k) x y z``.

    As one strided convolution, which is the same and takes half of the time: the rearranged tensor is never made.
    """
    weight = rearrange(conv.weight, "o (c i j k) 1 1 1 -> o c i j k", i=2, j=2, k=2)
    x = beside_each_other(parts)
    return F.conv3d(x, weight.contiguous(memory_format=torch.channels_last_3d), conv.bias, stride=2)


def beside_each_other(parts: Sequence[Tensor]) -> Tensor:
    """The parts (N, c, X, Y, Z) as one tensor (N, sum of c, X, Y, Z), in the precision that a convolution will ask for.

    Without gradients it is also written once, in the layout of convolutions. These are the largest tensors of a
    network, and on CPUs to concatenate, round and transpose them costs as much as the convolution that reads them.
    """
    first, kind = parts[0], parts[0].device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else first.dtype
    if any(part.requires_grad for part in parts):
        return torch.cat([part.to(dtype) for part in parts], 1)
    channels = [part.shape[1] for part in parts]
    shape = (len(first), sum(channels), *first.shape[2:])
    whole = torch.empty(shape, dtype=dtype, device=first.device, memory_format=torch.channels_last_3d)
    for place, part in zip(whole.split(channels, 1), parts, strict=True):
        place.copy_(part)
    return whole
