"""Convolutions of the generators' networks, in the layout, precision and implementation that cost least."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from synthaug.geometry import EVERYWHERE, Box, bounding_box, triple

SLAB = 24
"""Thickness in voxels of the pieces that full resolution is worked on in. It is even, as space-to-depth wants."""

REACH = 2
"""Voxels around a box that its detail depends on."""


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d`, which on CPUs takes oneDNN's convolution for small inputs too where no gradients are wanted.

    PyTorch leaves single inputs of few voxels to a loop of its own, which takes two to eight times as long: most of
    the time that a crop of 32 x 32 x 32 voxels takes in float32.
    """

    padding: tuple[int, ...]

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolved(x, weight, bias, self.stride, self.padding)


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...] = (1, 1, 1),
    padding: tuple[int, ...] = (0, 0, 0),
) -> Tensor:
    """Convolve as `torch.nn.functional.conv3d` does, by oneDNN as `Conv3d` says."""
    kind = x.device.type
    if kind != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.is_autocast_enabled(kind):
        return F.conv3d(x, weight, bias, stride, padding)
    return torch.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)


def space_to_depth_conv(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve, 1 x 1 x 1, the 2 x 2 x 2 voxels of all parts brought to channels, ``n (c i j k) x y z``.

    As one strided convolution, which is the same and takes half of the time: the rearranged tensor is never made.

    Args:
        parts: (N, c, X, Y, Z) each, their sides even.
        weight: (width, 8 times the sum of c, 1, 1, 1).
        bias: (width,) or None.

    Returns:
        (N, width, X / 2, Y / 2, Z / 2).
    """
    weight = rearrange(weight, "o (c i j k) 1 1 1 -> o c i j k", i=2, j=2, k=2)
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    return convolved(beside_each_other(parts), weight, bias, stride=(2, 2, 2))


def slabs(image: Tensor) -> list[slice]:
    """Divide (N, C, X, Y, Z) along X into slices to be worked on one by one; a single one where that helps nothing.

    On CPUs the largest tensors, those at full resolution, then stay in the cache and in memory that is there already:
    fresh memory costs a page fault for every 4096 bytes.
    """
    if image.device.type != "cpu" or torch.is_grad_enabled():
        return [slice(None)]
    return [slice(start, start + SLAB) for start in range(0, image.shape[2], SLAB)]


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Join pieces that were made of `slabs` to a tensor (N, C, X, Y, Z)."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), 2)


def beside_each_other(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate parts (N, c, X, Y, Z) to (N, sum of c, X, Y, Z), in the precision that a convolution asks for.

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


def added(x: Tensor, change: Tensor) -> Tensor:
    """Add ``x + change``, in the memory of a change that nobody else looks at, where no gradients are wanted."""
    return x + change if torch.is_grad_enabled() or x.dtype != change.dtype else change.add_(x)


def activated(x: Tensor) -> Tensor:
    """Apply SiLU, in the memory of an input that nobody else looks at, where no gradients are wanted."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def filled_boxes(where: Tensor) -> list[Box]:
    """Find boxes, one behind the other along X, that together hold all voxels that are set, and few others.

    Args:
        where: (N, X, Y, Z) bool on the CPU; a box is for all N.
    """
    filled = where.any(0).numpy()
    boxes = []
    for start in range(0, filled.shape[0], SLAB):
        slab = filled[start : start + SLAB]
        if slab.any():
            x, y, z = bounding_box(slab)
            boxes.append((slice(start + x.start, start + x.stop), y, z))
    return boxes


def drawn_detail(
    half: Tensor, parts: Sequence[Tensor], head: nn.Conv3d, out: nn.Conv3d, boxes: Sequence[Box] | None
) -> list[tuple[Box, Tensor]]:
    """Apply a network's last two convolutions (3 x 3 x 3), at full resolution.

    Args:
        half: (N, c, X / 2, Y / 2, Z / 2), features that are enlarged to twice their size.
        parts: (N, c, X, Y, Z) each; with `half` the input.
        head: the first convolution, which a SiLU follows.
        out: the second.
        boxes: where the result is wanted; everywhere if None.

    Returns:
        Each box with its part of the result, (N, C, x, y, z) float32; everywhere is one box, too.
    """
    if boxes is None:
        x = head(beside_each_other((F.interpolate(half, scale_factor=2, mode="trilinear"), *parts)))
        return [(EVERYWHERE, out(activated(x)).float())]
    made, size = [], parts[0].shape[2:]
    for box in boxes:
        around = triple(slice(max(0, s.start - REACH), min(n, s.stop + REACH)) for s, n in zip(box, size, strict=True))
        inner = triple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
        x = head(beside_each_other([enlarged(half, size, around), *(part[..., *around] for part in parts)]))
        made.append((box, out(activated(x))[..., *inner].float()))
    return made


def placed(pieces: Sequence[tuple[Box, Tensor]], whole: Tensor) -> Tensor:
    """Write the pieces into their boxes of `whole` (N, C, X, Y, Z), in place; return a piece that is all itself."""
    for box, piece in pieces:
        if box == EVERYWHERE:
            return piece
        whole[..., *box] = piece
    return whole


def enlarged(image: Tensor, size: Sequence[int], box: Sequence[slice] = EVERYWHERE) -> Tensor:
    """Interpolate trilinearly, as `torch.nn.functional.interpolate` does, by matrices along each axis.

    Several times faster on CPUs for images of few voxels that become many.

    Args:
        image: (N, C, x, y, z).
        size: (X, Y, Z) to enlarge to.
        box: the part of the result that is wanted.

    Returns:
        (N, C, X, Y, Z) or the part, float32.
    """
    n, c, *old = image.shape
    along = [_interpolation(a, b, image.device)[wanted] for a, b, wanted in zip(old, size, box, strict=True)]
    with torch.autocast(image.device.type, enabled=False):
        image = (along[0] @ image.float().reshape(n * c, old[0], -1)).view(-1, old[1], old[2])
        image = (along[1] @ image).view(-1, old[2])
        return (image @ along[2].T).view(n, c, *(len(matrix) for matrix in along))


@cache
def _interpolation(old: int, new: int, device: torch.device) -> Tensor:
    """Make the weights (new, old) of linear interpolation between voxel centres."""
    return F.interpolate(torch.eye(old)[None], size=new, mode="linear")[0].T.contiguous().to(device)
