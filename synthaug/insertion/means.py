"""Means of painted classes, held within those of the donors' lesions where intensities have units.

A generator sees mostly large lesions and paints small ones like what is around them: in fat, 130 HU below a tumour,
they come out dark. Hounsfield units are absolute, so what no donor's lesion has on average can be told, and is moved by
the least shift that brings it back. z-scores tell nothing of the kind, and a donor's own voxels need none of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.insertion.contrast import fields
from synthaug.insertion.own import style_of
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource


def bounds_of(
    source: LesionSource, classes: Classes, channels: Sequence[str], fixed: Sequence[tuple[float, float] | None] | None
) -> Tensor | None:
    """Find the least and greatest mean of the donors' classes, (2, K, C) model intensities; None where none are known.

    Args:
        source: of the lesions.
        classes: vocabulary of the batches.
        channels: names of the batches' channels.
        fixed: scales of the channels that have units; the others' means may be anything.
    """
    if fixed is None or not isinstance(source, LesionBank) or not set(channels) <= set(source.channels):
        return None
    columns, cpu = [source.channels.index(name) for name in channels], torch.device("cpu")
    means = torch.stack([style_of(source, lesion.name, columns, classes, cpu)[0] for lesion in source])
    means[:, :, [scale is None for scale in fixed]] = torch.nan
    unknown = means.isnan().any(0)
    least = torch.where(unknown, -torch.inf, means.amin(0))
    return torch.stack((least, torch.where(unknown, torch.inf, means.amax(0))))


def held(painted: Tensor, mask: Tensor, bounds: Tensor) -> Tensor:
    """Shift each class of a painted crop, channel by channel, so that its mean lies within bounds.

    Args:
        painted: (C, X, Y, Z) model intensities.
        mask: (K, X, Y, Z) one-hot classes.
        bounds: (2, K, C), as of `bounds_of`.
    """
    voxels = mask.flatten(1).to(painted.dtype)
    mean = voxels @ painted.flatten(1).T / voxels.sum(1, keepdim=True).clamp(min=1)
    return painted + fields(mask, mean.clamp(bounds[0], bounds[1]) - mean)
