"""What model intensities are: z-scores of each host's own tissue, or one scale for a whole data set.

Magnetic resonance has no units, so its intensities are told in those of the host (`synthaug.host`). Hounsfield units
are absolute: 40 HU are muscle in every patient, and a z-score of the host would move with the share of fat in a limb.
A channel with `Fixed` units is clipped and scaled by numbers of the data set, as nnU-Net's CTNormalization is.
"""

from collections.abc import Sequence

from pydantic import Field, FiniteFloat, PositiveFloat, model_validator
from torch import Tensor

from synthaug.config import Section
from synthaug.transfers import on_device


class Fixed(Section):
    """One scale for a channel of all cases.

    Attributes:
        low: intensities below it are taken for it.
        high: likewise above.
        mean: becomes 0.
        std: becomes 1.
    """

    low: FiniteFloat
    high: FiniteFloat
    mean: FiniteFloat
    std: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self):
        if not self.low < self.high:
            raise ValueError(f"low: expected less than high, got {self.low:g} and {self.high:g}")
        return self


class Units(Section):
    """The units of a data set.

    Attributes:
        fixed: canonical channel name to its scale; channels that are not in it have those of each host.
    """

    fixed: dict[str, Fixed] = Field(default_factory=dict)

    def statistics(self, channels: Sequence[str]) -> list[tuple[float, float] | None] | None:
        """List mean and deviation of each channel, None where they are each host's own; None where all are."""
        found = [self.fixed.get(name) for name in channels]
        if not any(found):
            return None
        return [None if scale is None else (scale.mean, scale.std) for scale in found]

    def limits(self, channels: Sequence[str]) -> list[tuple[float, float]] | None:
        """List lowest and highest model intensity of each channel; None where no channel has any."""
        found = [self.fixed.get(name) for name in channels]
        if not any(found):
            return None
        everything = (float("-inf"), float("inf"))
        return [everything if s is None else ((s.low - s.mean) / s.std, (s.high - s.mean) / s.std) for s in found]

    def clipped(self, z: Tensor, channels: Sequence[str]) -> Tensor:
        """Hold model intensities (C, ...) or (N, C, X, Y, Z) within their limits, where there are any."""
        return within(z, self.limits(channels))

    def words(self) -> str:
        """Say it in words, for messages."""
        if not self.fixed:
            return "z-scores of host tissue"
        each = (f"{n} {s.low:g} to {s.high:g}, mean {s.mean:g}, sd {s.std:g}" for n, s in self.fixed.items())
        return f"fixed units ({'; '.join(each)})"


def within(z: Tensor, limits: Sequence[tuple[float, float]] | None) -> Tensor:
    """Hold model intensities (C, X, Y, Z) or (N, C, X, Y, Z) within limits of each channel; as they are where None."""
    if limits is None:
        return z
    low, high = (on_device(list(ends), z.device, z.dtype)[:, None, None, None] for ends in zip(*limits, strict=True))
    return z.clamp(low, high)
