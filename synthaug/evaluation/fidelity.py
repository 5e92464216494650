"""Fidelity of inserted lesions: first-order statistics, texture, diversity, and a classifier that tries to tell.

All of it works on `Specimen`s, crops around lesions in model intensities (z-scores of host tissue), real and inserted
ones with the same masks. Numbers that agree do not prove that lesions look real; numbers that differ show where they
do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from synthaug.generators.learned.style import class_moments, moving_average, present_classes
from synthaug.geometry import cube_around, drawn_symmetry, triple, turned
from synthaug.memory_format import channels_last
from synthaug.training.painting_losses import shell

STATISTICS = ("mean", "std", "fine", "middle", "coarse")
"""Mean, standard deviation, and the root mean square of three frequency bands: what a moving average over 3 voxels
removes, what one over 9 removes beyond that, and what is left beside the class's mean."""

LEAST_VOXELS = 100


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
    a, b = (_typical([(lesion_statistics(s.image, s.mask), s.mask) for s in group]) for group in (real, inserted))
    rows = []
    for k, name in enumerate(classes):
        for c, channel in enumerate(channels):
            ratios = {s: float(b[k, c, i] / a[k, c, i]) for i, s in enumerate(STATISTICS) if s != "mean"}
            shift = float((b[k, c, 0] - a[k, c, 0]) / a[k, c, 1])
            rows.append({"class": name, "channel": channel, "mean": shift} | ratios)
    return rows


def _typical(measured: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Average over lesions, (K, C, 5): the means, and geometrically the others; NaN for a class that none has."""
    values = torch.stack([statistics for statistics, _ in measured])
    weight = torch.cat([present_classes(mask[None], LEAST_VOXELS) for _, mask in measured])[:, :, None]
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
    rng = torch.Generator().manual_seed(seed)
    between = []
    for k in range(len(real[0].mask)):
        pools = [(s.group, s.image[:, s.mask[k] > 0]) for s in real if int(s.mask[k].sum()) >= LEAST_VOXELS]
        drawn = [(group, p[:, torch.randint(p.shape[1], (2000,), generator=rng)]) for group, p in pools]
        between += [(x - y).abs().mean(1) for i, (g, x) in enumerate(drawn) for h, y in drawn[:i] if g != h]
    return torch.stack(differences).mean(0) / torch.stack(between).mean(0)


# --------------------------------------------------------------------------------------------- the classifier

REGIONS = ("lesion", "border")
"""What a classifier sees: the lesion's voxels alone, or the 3 voxels on each side of its edge."""


class _Classifier(nn.Module):
    """Four strided convolutions, then the mean over what was seen."""

    def __init__(self, inputs: int, widths: Sequence[int] = (16, 32, 48, 64)):
        super().__init__()
        before = (inputs, *widths)
        self.convs = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=1 if i == 0 else 2, padding=1)
            for i, (a, b) in enumerate(zip(before, widths, strict=False))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, w) for w in widths)
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.1)
        weight = F.adaptive_avg_pool3d(seen, triple(x.shape[2:]))
        pooled = (x * weight).sum((2, 3, 4)) / weight.sum((2, 3, 4)).clamp(min=1e-3)
        return self.last(pooled)[:, 0]


@dataclass(frozen=True)
class ClassifierOptions:
    """Training of the classifier.

    Attributes:
        folds: folds of the cross-validation by patient.
        steps: training steps per fold.
        batch: crops per step, half of them real.
        size: side of the crops in voxels.
        crops: crops per lesion when it is tested.
        lr: learning rate of Adam.
    """

    folds: int = 4
    steps: int = 250
    batch: int = 16
    size: int = 40
    crops: int = 8
    lr: float = 2e-3


def classifier_auc(
    real: Sequence[Specimen],
    inserted: Sequence[Specimen],
    region: str = "lesion",
    options: ClassifierOptions | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Train a small 3-D network to tell inserted from real, and compute its area under the ROC curve.

    It is cross-validated by patient: 0.5 means that it cannot tell, on patients that it was not trained on.
    Everything outside the region is zeroed in both; the network is given the classes and the region, so masks that
    differ can be told by their shape: compare lesions of equal masks.

    Args:
        real: real lesions.
        inserted: inserted ones.
        region: one of `REGIONS`.
        options: training of the network.
        seed: seed of folds, weights and crops.

    Returns:
        ``auc`` over all crops of all folds, scores being comparable within a fold only and therefore ranked there,
        and ``lowest`` and ``highest`` of the folds.

    Raises:
        ValueError: an unknown region, or fewer patients than folds on either side.
    """
    options = options or ClassifierOptions()
    if region not in REGIONS:
        raise ValueError(f"region: expected one of {', '.join(REGIONS)}, got {region!r}")
    groups = sorted({s.group for s in real})
    common = set(groups) & {s.group for s in inserted}
    if len(common) < options.folds:
        raise ValueError(
            f"expected at least {options.folds} patients with real and inserted lesions, got {len(common)}"
        )
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    fold_of = {groups[g]: i % options.folds for i, g in enumerate(order)}
    prepared = [[(_visible(s, region), fold_of.get(s.group)) for s in side] for side in (real, inserted)]
    scores = [_fold_auc(prepared, fold, options, seed + fold) for fold in range(options.folds)]
    return {"auc": float(np.mean(scores)), "lowest": min(scores), "highest": max(scores)}


def roc_auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Estimate how probably a positive scores higher than a negative, ties counted half (Mann & Whitney 1947)."""
    from scipy.stats import mannwhitneyu

    # in float64: scipy would count in the scores' own precision
    scores = (np.asarray(side, dtype=float) for side in (positive, negative))
    pairs = mannwhitneyu(*scores, method="asymptotic").statistic
    return float(pairs / len(positive) / len(negative))


def _visible(specimen: Specimen, region: str) -> tuple[Tensor, Tensor]:
    """Mask a specimen to its region, (C + K + 1, X, Y, Z), the region last; and list the region's voxels (n, 3)."""
    lesion = reduce(specimen.mask, "k x y z -> 1 1 x y z", "sum")
    if region == "lesion":
        seen = lesion
    else:
        seen = shell(lesion) + lesion * (shell(1 - lesion) > 0)
    seen = seen[0]
    return torch.cat((specimen.image * seen, specimen.mask * seen, seen)), seen[0].nonzero()


def _fold_auc(prepared: Sequence[list], fold: int, options: ClassifierOptions, seed: int) -> float:
    rng = torch.Generator().manual_seed(seed)
    train = [[item for item, f in side if f is not None and f != fold] for side in prepared]
    test = [[item for item, f in side if f == fold] for side in prepared]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = channels_last(_Classifier(prepared[0][0][0][0].shape[0]))
    optimizer = torch.optim.AdamW(network.parameters(), options.lr, weight_decay=1e-2)
    half = options.batch // 2
    truth = torch.cat((torch.zeros(half), torch.ones(half)))
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.lr * (1 - step / options.steps)
        crops = [
            _crop(side[int(torch.randint(len(side), (), generator=rng))], options.size, rng)
            for side in train
            for _ in range(half)
        ]
        loss = F.binary_cross_entropy_with_logits(_scores(network, crops), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = [
            torch.cat(
                [_scores(network, [_crop(item, options.size, rng) for _ in range(options.crops)]) for item in side]
            ).numpy()
            for side in test
        ]
    return roc_auc(*found)


def _scores(network: _Classifier, crops: Sequence[Tensor]) -> Tensor:
    x = torch.stack(list(crops)).contiguous(memory_format=torch.channels_last_3d)
    return network(x, x[:, -1:])


def _crop(item: tuple[Tensor, Tensor], size: int, rng: torch.Generator) -> Tensor:
    """Cut a crop of `size` around a visible voxel, in one of the cube's 48 positions."""
    volume, voxels = item
    center = voxels[int(torch.randint(len(voxels), (), generator=rng))]
    return turned(cube_around(volume, center.tolist(), size), *drawn_symmetry(rng))


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
