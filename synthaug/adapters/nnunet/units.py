"""Conversion between intensities as nnU-Net normalised them and as they were before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

EPSILON = 1e-8
"""Smallest divisor of nnU-Net's `CTNormalization`."""


@dataclass(frozen=True)
class Units:
    """Converts normalised intensities to raw ones and back, channel by channel.

    `CTNormalization` clips to the plans' percentiles, subtracts their mean and divides by their standard deviation: all
    but the clipping can be undone, which gives Hounsfield units. The other schemes use numbers of each case that are
    not kept, so their channels stay as they are.

    Attributes:
        mean: (C,) added to get raw values.
        std: (C,) multiplied first.
        low: (C,) lower end of the clipping, minus infinity where there is none.
        high: (C,) likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, schemes: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> "Units":
        """Read the conversion off the plans.

        Args:
            schemes: name of each channel's normalisation.
            properties: ``foreground_intensity_properties_per_channel``.
        """
        rows = []
        for channel, scheme in enumerate(schemes):
            if scheme == "CTNormalization":
                p = properties[str(channel)]
                row = (p["mean"], max(p["std"], EPSILON), p["percentile_00_5"], p["percentile_99_5"])
            else:
                row = (0.0, 1.0, -torch.inf, torch.inf)
            rows.append(tuple(float(v) for v in row))
        return cls(*zip(*rows, strict=True))

    @property
    def identity(self) -> bool:
        """Whether normalised and raw values are the same in every channel."""
        return all(low == -torch.inf for low in self.low)

    def limits(self, channel: int) -> tuple[float, float]:
        """Return the lowest and highest raw value of a channel."""
        return self.low[channel], self.high[channel]

    def raw(self, image: Tensor) -> Tensor:
        """Convert normalised (B, C, X, Y, Z) to raw values, float32; the image itself where they are the same."""
        if self.identity:
            return image
        mean, std = (_per_channel(v, image) for v in (self.mean, self.std))
        return image.float() * std + mean

    def written(self, image: Tensor, raw: Tensor, changed: Tensor) -> Tensor:
        """Write the voxels that changed in raw values into the image, clipped and normalised as nnU-Net does.

        All other voxels are the image's own, bit for bit: the way to raw values and back would round them.

        Args:
            image: (B, C, X, Y, Z) normalised.
            raw: what `raw` made of it.
            changed: `raw` after a change.
        """
        if self.identity:
            return changed
        mean, std, low, high = (_per_channel(v, image) for v in (self.mean, self.std, self.low, self.high))
        normalised = (torch.minimum(torch.maximum(changed, low), high) - mean) / std
        return torch.where(changed == raw, image, normalised.to(image.dtype))


def _per_channel(values: Sequence[float], image: Tensor) -> Tensor:
    table = torch.tensor(values, dtype=torch.float32)
    return rearrange(table, "c -> c 1 1 1").to(image.device, non_blocking=True)
