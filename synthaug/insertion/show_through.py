"""What lies under a lesion shows through classes that infiltrate: grey and white matter through oedema in T1.

The host's intensities h under a class are added to what is painted, without their mean over the class and in part:
p' = p + s (h - mean h), s the share for the class and channel. Means of classes stay, and so does everything outside.

How much it is was measured on BraTS 2018 against the other side of the brain (`benchmarks/show_through.py`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from synthaug.channels import canonical_channels
from synthaug.classes import Classes
from synthaug.generators.learned.style import class_moments
from synthaug.insertion.contrast import fields

FURTHEST = 3.0
"""Standard deviations of host tissue beyond which what lies under counts as no further: vessels, fluid."""


def shares_of(
    asked: Mapping[str, float | Mapping[str, float]] | None, classes: Classes, channels: Sequence[str]
) -> Tensor | None:
    """Lay out the shares of the option `show_through`, (K, C); None where nothing is to show.

    Args:
        asked: share of each class, for all channels or by channel; what is not named is 0.
        classes: vocabulary of the batches.
        channels: canonical names of their channels.

    Raises:
        ValueError: a class or channel that is not there.
    """
    if not asked:
        return None
    shares = torch.zeros(len(classes), len(channels))
    for name, share in asked.items():
        row = shares[classes.index(name)]
        for channel, value in (share if isinstance(share, Mapping) else dict.fromkeys(channels, share)).items():
            known = canonical_channels([channel])[0]
            if known not in channels:
                raise ValueError(f"show_through: {name}: no channel {channel}; the channels are {', '.join(channels)}")
            row[list(channels).index(known)] = value
    return shares


def shown_through(painted: Tensor, under: Tensor, mask: Tensor, shares: Tensor) -> Tensor:
    """Let the host show through a painted crop.

    Args:
        painted: (C, X, Y, Z) model intensities.
        under: (C, X, Y, Z) model intensities of the host.
        mask: (K, X, Y, Z) one-hot classes, without voxels under which there is another lesion.
        shares: (K, C), as of `shares_of`.
    """
    mask, under = mask.to(painted.dtype), under.clamp(-FURTHEST, FURTHEST)
    mean = class_moments(under[None], mask[None])[0][0]
    return painted + fields(mask, shares) * under - fields(mask, shares * mean)
