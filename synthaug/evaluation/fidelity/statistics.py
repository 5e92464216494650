"""First-order statistics, texture, distributions and diversity of inserted lesions beside real ones.

All of it works on `Specimen`s, crops around lesions in model intensities (z-scores of host tissue), real and inserted
ones with the same masks. Numbers that agree do not prove that lesions look real; numbers that differ show where they
do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthaug.generators.learned.style import class_moments, moving_average

STATISTICS = ("mean", "std", "fine", "middle", "coarse")
"""Mean, standard deviation, and the root mean square of three frequency bands: what a moving average over 3 voxels
removes, what one over 9 removes beyond that, and what is left beside the class's mean."""

LEAST_VOXELS = 100

Measured = tuple[Tensor, Tensor]
"""Statistics (K, C, 5) of a lesion and its voxels (K,) of each class."""


@dataclass(frozen=True)
class Specimen:
    """A crop of a lesion in its surroundings.

    Attributes:
        image: (C, X, Y, Z) float32, z-scores of host tissue.
        mask: (K, X, Y, Z) float32, one-hot classes.
        group: the patient whose lesion it is; of a lesion that was inserted, the mask's patient.
    """

    image: Tensor
    mask: Tensor
    group: str


def lesion_statistics(image: Tensor, mask: Tensor) -> Tensor:
    """Measure the `STATISTICS` of each class and channel.

    Args:
        image: (C, X, Y, Z) float.
        mask: (K, X, Y, Z) float, one-hot classes.

    Returns:
        (K, C, 5), 0 for classes without voxels.
    """
    image, mask = image[None], mask[None]
    smooth = moving_average(image)
    smoother = moving_average(smooth, dilation=3)
    mean, square = class_moments(image, mask)
    coarse_mean, coarse_square = class_moments(smoother, mask)
    powers = [
        square - mean.square(),
        class_moments(image - smooth, mask)[1],
        class_moments(smooth - smoother, mask)[1],
        coarse_square - coarse_mean.square(),
    ]
    return torch.stack((mean, *(p.clamp(min=0).sqrt() for p in powers)), -1)[0]


def compare_statistics(
    real: Sequence[Specimen], inserted: Sequence[Specimen], classes: Sequence[str], channels: Sequence[str]
) -> list[dict]:
    """Compare inserted with real lesions, per class and channel, as means over lesions that have the class.

    Args:
        real: real lesions.
        inserted: inserted ones; the number may differ.
        classes: K names.
        channels: C names.

    Returns:
        Rows with ``class``, ``channel``, ``mean`` (difference of the means in standard deviations of the real class)
        and, of `STATISTICS`' others, the ratio inserted / real of the geometric means over lesions.
    """
    a, b = (
        typical([(lesion_statistics(s.image, s.mask), s.mask.sum((1, 2, 3))) for s in group])
        for group in (real, inserted)
    )
    rows = []
    for k, name in enumerate(classes):
        for c, channel in enumerate(channels):
            ratios = {s: float(b[k, c, i] / a[k, c, i]) for i, s in enumerate(STATISTICS) if s != "mean"}
            shift = float((b[k, c, 0] - a[k, c, 0]) / a[k, c, 1])
            rows.append({"class": name, "channel": channel, "mean": shift} | ratios)
    return rows


def typical(measured: Sequence[Measured]) -> Tensor:
    """Average over lesions, (K, C, 5): the means, and geometrically the others; NaN for a class that none has."""
    values = torch.stack([statistics for statistics, _ in measured])
    weight = torch.stack([(voxels >= LEAST_VOXELS).to(values.dtype) for _, voxels in measured])[:, :, None]
    count = weight.sum(0)
    mean = (values[..., 0] * weight).sum(0) / count
    spread = (values[..., 1:].clamp(min=1e-3).log() * weight[..., None]).sum(0) / count[..., None]
    return torch.cat((mean[..., None], spread.exp()), -1)


def diversity(pairs: Sequence[tuple[Specimen, Specimen]], real: Sequence[Specimen], seed: int = 0) -> Tensor:
    """Measure how two seeds of one mask in one host differ, as a share of how two patients' tumours differ.

    Both are mean absolute differences over voxels of one class. Tumours of two patients have no common voxels, so
    voxels of the same class are paired at random there, which is an upper bound of any sensible pairing.

    Args:
        pairs: two insertions each, of the same mask and place, with different seeds.
        real: real lesions of two patients or more.
        seed: seed of the random pairing.

    Returns:
        (C,) share per channel.

    Raises:
        ValueError: no pair, or real lesions of one patient only.
    """
    if not pairs or len({s.group for s in real}) < 2:
        raise ValueError(
            f"diversity: expected pairs and real lesions of two patients, got {len(pairs)} and {len(real)}"
        )
    differences = []
    for a, b in pairs:
        lesion = a.mask.sum(0) > 0
        differences.append((a.image - b.image)[:, lesion].abs().mean(1))
    return torch.stack(differences).mean(0) / between_patients(real, seed)


def between_patients(lesions: Sequence[Specimen], seed: int = 0) -> Tensor:
    """Measure how lesions of two patients differ: mean absolute difference of voxels of one class, paired at random.

    Args:
        lesions: of two patients or more.
        seed: seed of the random pairing.

    Returns:
        (C,) mean over pairs of patients and classes; NaN where no two patients share a class.
    """
    rng = torch.Generator().manual_seed(seed)
    between = [lesions[0].image.new_full((len(lesions[0].image),), torch.nan)]
    for k in range(len(lesions[0].mask)):
        pools = [(s.group, s.image[:, s.mask[k] > 0]) for s in lesions if int(s.mask[k].sum()) >= LEAST_VOXELS]
        drawn = [(group, p[:, torch.randint(p.shape[1], (2000,), generator=rng)]) for group, p in pools]
        between += [(x - y).abs().mean(1) for i, (g, x) in enumerate(drawn) for h, y in drawn[:i] if g != h]
    return torch.stack(between[1:] or between).mean(0)


def within(rows: Sequence[Mapping], share: float) -> dict[str, float]:
    """Compute the share of classes and channels whose numbers lie within `share` of the real ones.

    Args:
        rows: rows of `compare_statistics`.
        share: such as 0.15; of the real standard deviation for the mean, of the real value for the others.

    Returns:
        A share, 0 to 1, for each of `STATISTICS`.
    """

    def near(row: Mapping, name: str) -> bool:
        return abs(row[name] - (0 if name == "mean" else 1)) <= share

    return {name: float(np.mean([near(row, name) for row in rows])) for name in STATISTICS}
