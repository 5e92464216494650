"""Changes of a painted lesion's contrast to host tissue, class by class and channel by channel.

Model intensities are 0 at the mean of host tissue, so a factor about it is a factor of the contrast. At the borders
between classes, and towards the lesion's own, the change fades over a voxel: its weights are 3 x 3 x 3 means of the
class masks.
"""

import math
from dataclasses import dataclass
from typing import TypedDict

from torch import Tensor

from synthaug.geometry import box_mean
from synthaug.insertion.asked import Insertion, Rows
from synthaug.options import InsertionOptions
from synthaug.random import Purpose, stream
from synthaug.transfers import on_device


class Drawn(TypedDict):
    """One change, named as the fields of `Insertion` are."""

    gain: Rows
    shift: Rows


@dataclass(frozen=True)
class Contrast:
    """Draws changes of contrast.

    Attributes:
        gain: range of the factor.
        shift: greatest shift, in standard deviations of host tissue.
        classes: number K of classes.
        channels: number C of channels.
    """

    gain: tuple[float, float]
    shift: float
    classes: int
    channels: int

    @classmethod
    def of(cls, options: InsertionOptions, classes: int, channels: int) -> "Contrast | None":
        """Make it of the options; None where they ask for no change."""
        if options.contrast is None and not options.contrast_shift:
            return None
        return cls(options.contrast or (1.0, 1.0), options.contrast_shift, classes, channels)

    def draw(self, seed: int) -> Drawn:
        """Draw the change of the insertion that has this seed."""
        rng, size = stream(seed, Purpose.CONTRAST), (self.classes, self.channels)
        gain = [
            [math.exp(v) for v in row]
            for row in rng.uniform(math.log(self.gain[0]), math.log(self.gain[1]), size).tolist()
        ]
        shift = rng.uniform(-self.shift, self.shift, size).tolist()
        return Drawn(gain=tuple(map(tuple, gain)), shift=tuple(map(tuple, shift)))


def contrasted(painted: Tensor, mask: Tensor, row: Insertion) -> Tensor:
    """Change the contrast of a painted crop as its row says.

    Args:
        painted: (C, X, Y, Z) model intensities.
        mask: (K, X, Y, Z) one-hot classes.
        row: with `gain` and `shift`; without them the crop stays as it is.
    """
    if row.gain is None or row.shift is None:
        return painted
    soft = box_mean(mask)
    gain, shift = (on_device(table, painted.device, painted.dtype) for table in (row.gain, row.shift))
    return painted * (1 + fields(soft, gain - 1)) + fields(soft, shift)


def fields(soft: Tensor, table: Tensor) -> Tensor:
    """Sum (K, C) values of classes by their weights (K, X, Y, Z): (C, X, Y, Z)."""
    return sum(
        (soft[k] * table[k][:, None, None, None] for k in range(1, len(soft))), soft[0] * table[0][:, None, None, None]
    )
