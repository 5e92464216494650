"""A classifier that tries to tell inserted lesions from real ones, and what it looks at.

It is trained on some patients and asked about the others, by folds and seeds; the area under its ROC curve is 0.5 where
it cannot tell. Intervals are over patients and seeds together, by the Bayesian bootstrap (Rubin 1981): both get random
weights in place of being drawn, which folds of a few patients stand better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.geometry import cube_around, drawn_symmetry, triple, turned
from synthaug.memory_format import channels_last
from synthaug.progress import shown
from synthaug.training.painting_losses import shell

Region = Literal["lesion", "border", "patch"]
REGIONS: tuple[Region, ...] = get_args(Region)
"""What a classifier sees: the lesion's voxels alone, the 3 voxels on each side of its edge, or the whole patch."""


class Classifier(nn.Module):
    """Four strided convolutions, then the mean over what was seen.

    Args:
        inputs: number of channels in.
        outputs: number of scores out.
        widths: channels of the convolutions.
    """

    def __init__(self, inputs: int, outputs: int = 1, widths: Sequence[int] = (16, 32, 48, 64)):
        super().__init__()
        before = (inputs, *widths)
        self.convs = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=1 if i == 0 else 2, padding=1)
            for i, (a, b) in enumerate(zip(before, widths, strict=False))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, w) for w in widths)
        self.last = nn.Linear(widths[-1], outputs)

    def places(self, x: Tensor) -> Tensor:
        """Compute the features (N, 64, x, y, z) of each place, at an eighth of the resolution."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.1)
        return x

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
        """Average the features over what is seen: (N, 64)."""
        x = self.places(x)
        weight = F.adaptive_avg_pool3d(seen, triple(x.shape[2:]))
        return (x * weight).sum((2, 3, 4)) / weight.sum((2, 3, 4)).clamp(min=1e-3)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Compute the scores, (N,) or (N, outputs)."""
        scores = self.last(self.features(x, seen))
        return scores[:, 0] if scores.shape[1] == 1 else scores


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
        device: where it is trained.
    """

    folds: int = 4
    steps: int = 250
    batch: int = 16
    size: int = 40
    crops: int = 8
    lr: float = 2e-3
    device: str = "cpu"


@dataclass(frozen=True)
class Fold:
    """Scores of the patients that one classifier was not trained on; a high one says inserted.

    Attributes:
        real: patient and scores of the crops, of each real lesion.
        inserted: likewise of inserted ones.
        seed: number of the seed that the fold is of.
    """

    real: list[tuple[str, np.ndarray]]
    inserted: list[tuple[str, np.ndarray]]
    seed: int = 0

    @property
    def auc(self) -> float:
        """Area under the curve over all crops."""
        return roc_auc(*(np.concatenate([scores for _, scores in side]) for side in (self.real, self.inserted)))


@dataclass(frozen=True)
class Look:
    """What a classifier looked at in a crop of a patient that it was not trained on.

    Attributes:
        crop: (C + K + 1, s, s, s), what it saw: channels, classes, region.
        evidence: (s, s, s), how much each place speaks for inserted, before the mean over places.
        score: of the whole crop.
        inserted: whether it is.
        group: the patient.
    """

    crop: Tensor
    evidence: Tensor
    score: float
    inserted: bool
    group: str


def classifier_auc(
    real: Sequence[Specimen],
    inserted: Sequence[Specimen],
    region: str = "lesion",
    options: ClassifierOptions | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Train a small network to tell inserted lesions from real, and compute its area under the ROC curve.

    See `held_out_scores` for the arguments and errors.

    Returns:
        ``auc`` over all crops of all folds, scores being comparable within a fold only and therefore ranked there,
        and ``lowest`` and ``highest`` of the folds.
    """
    scores = [fold.auc for fold in held_out_scores(real, inserted, region, options, seed)[0]]
    return {"auc": float(np.mean(scores)), "lowest": min(scores), "highest": max(scores)}


def held_out_scores(
    real: Sequence[Specimen],
    inserted: Sequence[Specimen],
    region: str = "lesion",
    options: ClassifierOptions | None = None,
    seed: int = 0,
    looks: int = 0,
) -> tuple[list[Fold], list[Look]]:
    """Train a small network to tell inserted lesions from real, by folds of patients, and score the others with it.

    Everything outside the region is zeroed in both; the network is given the classes and the region, so masks that
    differ can be told by their shape: compare lesions of equal masks.

    Args:
        real: real lesions.
        inserted: inserted ones.
        region: one of `REGIONS`.
        options: training of the network.
        seed: seed of folds, weights and crops.
        looks: lesions of each fold and side whose evidence is kept.

    Returns:
        Scores of each fold, and what the classifiers looked at.

    Raises:
        ValueError: an unknown region, or fewer patients than folds on either side.
    """
    options = options or ClassifierOptions()
    if region not in REGIONS:
        raise ValueError(f"region: expected one of {', '.join(REGIONS)}, got {region!r}")
    fold_of = deal_folds([{s.group for s in side} for side in (real, inserted)], options.folds, seed)
    prepared = [[(visible(s, region), fold_of[s.group], s.group) for s in side] for side in (real, inserted)]
    folds, seen = [], []
    for fold in shown(range(options.folds), region, "fold"):
        found, looked = _fold(prepared, fold, options, seed + fold, looks)
        folds.append(found)
        seen += looked
    return folds, seen


def auc_interval(
    folds: Sequence[Fold], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Compute the mean area under the curve of folds of one seed or more, and its interval over patients and seeds.

    Args:
        folds: of one seed or more.
        level: level of the interval.
        resamples: number of draws of weights.
        seed: seed of these.

    Returns:
        Mean, lowest and highest.
    """
    groups = sorted({group for fold in folds for group, _ in [*fold.real, *fold.inserted]})
    seeds = sorted({fold.seed for fold in folds})
    rng = np.random.default_rng(seed)
    patients, draws = rng.dirichlet(np.ones(len(groups)), resamples), rng.dirichlet(np.ones(len(seeds)), resamples)
    total, weight = np.zeros(resamples), np.zeros(resamples)
    for fold in folds:
        pairs = np.array([[roc_auc(r, i) for _, i in fold.inserted] for _, r in fold.real])
        a, b = (patients[:, [groups.index(group) for group, _ in side]] for side in (fold.real, fold.inserted))
        own = np.einsum("nr,ri,ni->n", a, pairs, b) / (a.sum(1) * b.sum(1))
        share = draws[:, seeds.index(fold.seed)]
        total, weight = total + share * own, weight + share
    low, high = np.quantile(total / weight, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean([fold.auc for fold in folds])), float(low), float(high)


def roc_auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Estimate how probably a positive scores higher than a negative, ties counted half (Mann & Whitney 1947)."""
    from scipy.stats import mannwhitneyu

    # in float64: scipy would count in the scores' own precision
    scores = (np.asarray(side, dtype=float) for side in (positive, negative))
    pairs = mannwhitneyu(*scores, method="asymptotic").statistic
    return float(pairs / len(positive) / len(negative))


def deal_folds(sides: Sequence[set[str]], folds: int, seed: int) -> dict[str, int]:
    """Deal patients to folds: those of both sides, else of each side by itself, so that no fold lacks one.

    Raises:
        ValueError: fewer patients than folds.
    """
    common = sides[0] & sides[1]
    alone = [sorted(side - common) for side in sides]
    least = min(len(side) for side in sides)
    if least < folds:
        raise ValueError(f"expected at least {folds} patients with real and inserted lesions, got {least}")
    parts = [sorted(common), *alone]
    rng, start = torch.Generator().manual_seed(seed), 0
    dealt: dict[str, int] = {}
    for part in parts:
        order = torch.randperm(len(part), generator=rng).tolist()
        dealt |= {part[g]: (start + i) % folds for i, g in enumerate(order)}
        # those of one side alone begin at the first fold without a patient of that side
        start = len(common) % folds
    return dealt


def visible(specimen: Specimen, region: str) -> tuple[Tensor, Tensor]:
    """Mask a specimen to its region, (C + K + 1, X, Y, Z), the region last; and list voxels (n, 3) to look at."""
    lesion = reduce(specimen.mask, "k x y z -> 1 1 x y z", "sum")
    if region == "lesion":
        seen = lesion
    elif region == "patch":
        seen = torch.ones_like(lesion)
    else:
        seen = shell(lesion) + lesion * (shell(1 - lesion) > 0)
    seen = seen[0]
    around = lesion[0, 0] if region == "patch" else seen[0]
    return torch.cat((specimen.image * seen, specimen.mask * seen, seen)), around.nonzero()


def _fold(
    prepared: Sequence[list], fold: int, options: ClassifierOptions, seed: int, looks: int
) -> tuple[Fold, list[Look]]:
    rng = torch.Generator().manual_seed(seed)
    train = [[item for item, f, _ in side if f != fold] for side in prepared]
    test = [[(item, group) for item, f, group in side if f == fold] for side in prepared]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = channels_last(Classifier(prepared[0][0][0][0].shape[0])).to(options.device)
    optimizer = torch.optim.AdamW(network.parameters(), options.lr, weight_decay=1e-2)
    half = options.batch // 2
    truth = torch.cat((torch.zeros(half), torch.ones(half))).to(options.device)
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.lr * (1 - step / options.steps)
        crops = [
            crop_of(side[int(torch.randint(len(side), (), generator=rng))], options.size, rng)
            for side in train
            for _ in range(half)
        ]
        loss = F.binary_cross_entropy_with_logits(scored(network, crops), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = [
            [
                (group, scored(network, [crop_of(item, options.size, rng) for _ in range(options.crops)]).cpu().numpy())
                for item, group in side
            ]
            for side in test
        ]
        seen = [
            _look(network, item, group, options.size, bool(inserted))
            for inserted, side in enumerate(test)
            for item, group in side[:looks]
        ]
    return Fold(found[0], found[1]), seen


@torch.no_grad()
def _look(network: Classifier, item: tuple[Tensor, Tensor], group: str, size: int, inserted: bool) -> Look:
    """Map what speaks for inserted around the middle of what is seen (class activation, Zhou et al. 2016)."""
    volume, voxels = item
    middle = voxels[(voxels - voxels.float().mean(0)).square().sum(1).argmin()]
    crop = cube_around(volume, middle.tolist(), size)
    x = crop[None].to(next(network.parameters()).device)
    evidence = (network.places(x) * network.last.weight[0][None, :, None, None, None]).sum(1, keepdim=True)
    full = F.interpolate(evidence, size=triple(crop.shape[1:]), mode="trilinear")[0, 0]
    return Look(crop, full.cpu() * crop[-1], float(network(x, x[:, -1:])[0]), inserted, group)


def scored(network: Classifier, crops: Sequence[Tensor]) -> Tensor:
    """Score crops (C + K + 1, s, s, s), whose last channel is the region."""
    x = batch_of(crops, next(network.parameters()).device)
    return network(x, x[:, -1:])


def batch_of(crops: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stack crops for the network."""
    return torch.stack(list(crops)).contiguous(memory_format=torch.channels_last_3d).to(device)


def crop_of(item: tuple[Tensor, Tensor], size: int, rng: torch.Generator) -> Tensor:
    """Cut a crop of `size` around one of the listed voxels, in one of the cube's 48 positions."""
    volume, voxels = item
    center = voxels[int(torch.randint(len(voxels), (), generator=rng))]
    return turned(cube_around(volume, center.tolist(), size), *drawn_symmetry(rng))
