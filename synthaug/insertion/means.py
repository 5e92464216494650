"""Means of painted classes, held within those of the donors' lesions where intensities have units.

A generator sees mostly large lesions and paints small ones like what is around them: in fat, 130 HU below a tumour,
they come out dark. Hounsfield units are absolute, so what no donor's lesion has on average can be told, and is moved by
the least shift that brings it back. z-scores tell nothing of the kind, and a donor's own voxels need none of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.generators.learned.style import class_moments
from synthaug.insertion.contrast import fields
from synthaug.lesions.base import LesionSource
from synthaug.lesions.registry import class_order


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
    if fixed is None or source.channels is None or not set(channels) <= set(source.channels):
        return None
    found = source.class_bounds([source.channels.index(name) for name in channels])
    if found is None:
        return None
    bounds = torch.full((2, len(classes), len(channels)), torch.nan)
    bounds[:, class_order(source, classes)] = found
    bounds[:, :, [scale is None for scale in fixed]] = torch.nan
    return torch.stack((bounds[0].nan_to_num(-torch.inf), bounds[1].nan_to_num(torch.inf)))


def held(painted: Tensor, mask: Tensor, bounds: Tensor) -> Tensor:
    """Shift each class of a painted crop, channel by channel, so that its mean lies within bounds.

    Args:
        painted: (C, X, Y, Z) model intensities.
        mask: (K, X, Y, Z) one-hot classes.
        bounds: (2, K, C), as of `bounds_of`.
    """
    mean = class_moments(painted[None], mask[None].to(painted.dtype))[0][0]
    return painted + fields(mask, mean.clamp(bounds[0], bounds[1]) - mean)
