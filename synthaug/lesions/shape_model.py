"""A statistical model of lesion shapes, fitted to a bank: outline and classes as fields, their principal components.

A lesion becomes, at one size and in the position of the cube that fits the others best, K + 1 fields on a grid: how
surely a voxel is lesion, and how much of what is there is of each class. Their deviations from the mean are projected
on principal components (Cootes et al. 1995). Size and shares of the classes are drawn near those of a lesion of the
bank, and the scores from a Gaussian given these, so that a small lesion, or one without enhancing tumour, gets an
outline as such lesions have. Finer noise makes outlines as ragged as the bank's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.generators.learned.style import moving_average
from synthaug.geometry import turned
from synthaug.sizes import equivalent_diameter_mm

GRID, RADIUS = 32, 7.0
"""Side of the grid in voxels, and the radius that the sphere of a lesion's volume has there."""
SHARE_FLOOR = 0.005
SHRINKAGE = 0.3
MOST_COMPONENTS = 24
PASSES = 2
NEAR, JITTER = 0.35, 0.2
"""How near a lesion's log diameter is to one asked for, and how far log diameter and shares stray from a lesion's."""
BETWEEN_CLASSES = 0.1
ROUGHNESS, TRIED = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8), 9
"""Spreads of the noise that are tried, as shares of the components' spread, and on how many lesions."""
POSITIONS = [
    (axes, flips)
    for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for flips in ((a, b, c) for a in (False, True) for b in (False, True) for c in (False, True))
]


@dataclass(frozen=True)
class ShapeModel:
    """What is known of the shapes of a bank's lesions.

    Attributes:
        mean: (K + 1, G, G, G) float32, log-odds of lesion and logarithms of the classes' local shares.
        components: (M, K + 1, G, G, G) float32, each of the size of one standard deviation.
        roughness: (K + 1,) spread of the noise that is added.
        told: (N, 1 + K) float64, log diameter and log shares of the lesions.
        covariance: (1 + K + M, 1 + K + M) float64 of these and the scores, whose mean is 0.
    """

    mean: Tensor
    components: Tensor
    roughness: Tensor
    told: np.ndarray
    covariance: np.ndarray

    @property
    def classes(self) -> int:
        """Number K of classes."""
        return len(self.mean) - 1

    @classmethod
    def fit(cls, lesions: Sequence[tuple[Tensor, tuple[float, float, float]]], classes: int) -> "ShapeModel":
        """Fit a model to masks.

        Args:
            lesions: masks (X, Y, Z) uint8, k + 1 in class k, and their voxel sizes.
            classes: number K of classes.

        Raises:
            ValueError: fewer than three lesions.
        """
        if len(lesions) < 3:
            raise ValueError(f"shape model: expected three lesions or more to learn from, got {len(lesions)}")
        soft = aligned([canonical(mask, spacing, classes) for mask, spacing in lesions])
        fields = torch.stack([fields_of(one) for one in soft])
        mean = fields.mean(0)
        deviations = (fields - mean).flatten(1)
        _, size, directions = torch.linalg.svd(deviations, full_matrices=False)
        kept = min(len(lesions) - 1, MOST_COMPONENTS)
        spread = size[:kept] / (len(lesions) - 1) ** 0.5
        components = (directions[:kept] * spread[:, None]).unflatten(1, mean.shape)
        components = components.half().float()  # as a file has them
        scores = deviations @ directions[:kept].T / spread.clamp(min=1e-6)
        told = np.array([attributes(mask, spacing, classes) for mask, spacing in lesions])
        covariance = np.cov(np.concatenate((told, scores.double().numpy()), 1).T)
        covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.diag(covariance).clip(1e-6))
        smooth = cls(mean, components, torch.zeros(classes + 1), told, covariance)
        return smooth.roughened(float(np.median([surface_of(enlarged(one).sum(0)) for one in soft])))

    def roughened(self, surface: float) -> "ShapeModel":
        """Add noise until outlines of lesions have about this median surface for their volume."""
        found = []
        for share in ROUGHNESS:
            tried = self._with(share)
            drawn = [tried.drawn(np.random.default_rng(n), None, None, 1.0)[2] for n in range(TRIED)]
            found.append((abs(float(np.median([surface_of(enlarged(f)[0]) for f in drawn])) - surface), share))
        return self._with(min(found)[1])

    def _with(self, share: float) -> "ShapeModel":
        """Set the noise, as a share of the components' spread; between classes there is little, as they go together."""
        spread = self.components.square().sum(0).flatten(1).mean(1).sqrt()
        shares = torch.tensor([share, *[min(share, BETWEEN_CLASSES)] * self.classes])
        return replace(self, roughness=shares * spread)

    def drawn(
        self, rng: np.random.Generator, diameter_mm: float | None, shares: np.ndarray | None, irregularity: float
    ) -> tuple[float, np.ndarray, Tensor, int]:
        """Draw a lesion's diameter, shares and fields, those that are not given as lesions with these have them.

        Args:
            rng: drawn from as often, whatever is given.
            diameter_mm: diameter of the sphere of its volume.
            shares: (K,) of its volume, which sum to 1.
            irregularity: how far the outline strays from the mean, 1 as in the bank.

        Returns:
            Diameter, shares (K,), fields (K + 1, G, G, G), and the number of the bank's lesion that it is near in size
            and shares.
        """
        pick, noise = rng.random(), rng.standard_normal(len(self.covariance)).clip(-2, 2)
        near, values = self._told(pick, noise, diameter_mm, shares)
        own = (np.exp(values[1:]) - SHARE_FLOOR).clip(0) if shares is None else shares
        known = len(values)
        inverse = np.linalg.inv(self.covariance[:known, :known])
        across = self.covariance[known:, :known] @ inverse
        # asked for what no lesion is like, the outline does not stray further than that of an unusual one
        expected = (across @ (values - self.told.mean(0))).clip(-2, 2)
        rest = self.covariance[known:, known:] - across @ self.covariance[:known, known:]
        rest = np.linalg.cholesky(rest + 1e-6 * np.eye(len(rest)))
        scores = torch.from_numpy(expected + irregularity * (rest @ noise[known:])).float()
        fields = self.mean + torch.einsum("m,mkxyz->kxyz", scores, self.components)
        rough = _smooth_noise(int(rng.integers(2**62)), len(fields))
        return (
            float(np.exp(values[0])),
            own / own.sum(),
            fields + irregularity * self.roughness[:, None, None, None] * rough,
            near,
        )

    def _told(
        self, pick: float, noise: np.ndarray, diameter_mm: float | None, shares: np.ndarray | None
    ) -> tuple[int, np.ndarray]:
        """Draw a lesion that is like what is given, and log diameter and log shares near its."""
        size = None if diameter_mm is None else np.log(diameter_mm)
        wanted = None if shares is None else np.log(shares + SHARE_FLOOR)
        unlike = np.zeros(len(self.told))
        if size is not None:
            unlike += ((self.told[:, 0] - size) / NEAR).clip(-5, 5) ** 2
        if wanted is not None:
            unlike += ((self.told[:, 1:] - wanted).clip(-5, 5) ** 2).mean(1)
        weight = np.exp(-0.5 * (unlike - unlike.min())).cumsum()
        near = min(int(np.searchsorted(weight / weight[-1], pick)), len(weight) - 1)
        values = self.told[near].copy()
        values[0] = values[0] + JITTER * noise[0] if size is None else size
        # a class that the lesion does not have stays away
        there = np.exp(values[1:]) > 2 * SHARE_FLOOR
        values[1:] = np.where(there, values[1:] + JITTER * noise[1 : len(values)], np.log(SHARE_FLOOR))
        values[1:] = values[1:] if wanted is None else wanted
        return near, values


def enlarged(fields: Tensor) -> Tensor:
    """Enlarge fields (K, G, G, G) to the grid of the masks."""
    return F.interpolate(fields[None], scale_factor=1.5, mode="trilinear")[0]


def outline_of(odds: Tensor) -> Tensor:
    """Take the likeliest voxels (X, Y, Z), as many as the sphere of the model's radius has, none at the grid's rim."""
    side = len(odds)
    axis = torch.arange(side)
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    inner = ((place > 0) & (place < side - 1)).all(0)
    count = round(4 / 3 * np.pi * (RADIUS * side / GRID) ** 3)
    level = odds[inner].kthvalue(int(inner.sum()) - count + 1).values
    return inner & (odds >= level)


def surface_of(odds: Tensor) -> float:
    """Count the faces of the outline's voxels, as a share of (number of voxels)^(2/3): 7.3 for a ball."""
    mask = outline_of(odds).float()
    faces = sum(float(mask.diff(dim=axis).abs().sum()) for axis in range(3))
    return faces / float(mask.sum()) ** (2 / 3)


def canonical(mask: Tensor, spacing_mm: Sequence[float], classes: int) -> Tensor:
    """Bring a mask to the grid: soft classes (K, G, G, G), of the model's radius, its middle in the grid's."""
    values = torch.arange(1, classes + 1, dtype=torch.uint8)
    soft = (mask[None].cpu() == rearrange(values, "k -> k 1 1 1")).float()
    factor = 2 * RADIUS / equivalent_diameter_mm(int((mask > 0).sum()), spacing_mm)
    size = [max(1, round(n * s * factor)) for n, s in zip(mask.shape, spacing_mm, strict=True)]
    shrinks = all(a <= b for a, b in zip(size, mask.shape, strict=True))
    mode = {"mode": "area"} if shrinks else {"mode": "trilinear", "align_corners": False}
    small = F.interpolate(soft[None], size=size, **mode)[0]
    total = small.sum(0)
    grid = torch.zeros(classes, *(GRID,) * 3)
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))
    middle = (index * total).flatten(1).sum(1) / total.sum().clamp(min=1e-6)
    shift = [round(GRID / 2 - float(m)) for m in middle]
    there = [slice(max(s, 0), min(s + n, GRID)) for s, n in zip(shift, size, strict=True)]
    here = [slice(t.start - s, t.stop - s) for t, s in zip(there, shift, strict=True)]
    grid[:, there[0], there[1], there[2]] = small[:, here[0], here[1], here[2]]
    return grid


def aligned(soft: Sequence[Tensor]) -> list[Tensor]:
    """Turn lesions to the positions of the cube in which they overlap best with their mean."""
    found = list(soft)
    for _ in range(PASSES):
        template = torch.stack(found).mean(0)
        found = [max((turned(one, *p) for p in POSITIONS), key=lambda x: float((x * template).sum())) for one in found]
    return found


def fields_of(soft: Tensor) -> Tensor:
    """Turn soft classes (K, G, G, G) into fields: log-odds of lesion, logarithms of the classes' local shares."""
    smooth = moving_average(moving_average(soft[None]))[0]
    lesion = smooth.sum(0, keepdim=True).clamp(0.01, 0.99)
    wide = moving_average(smooth[None], dilation=2)[0]
    shares = (wide + 0.01) / (wide.sum(0, keepdim=True) + 0.01 * len(wide))
    return torch.cat((lesion.log() - (1 - lesion).log(), shares.log()))


def attributes(mask: Tensor, spacing_mm: Sequence[float], classes: int) -> np.ndarray:
    """Measure log diameter and log shares, (1 + K,)."""
    counts = np.bincount(mask.cpu().numpy().ravel(), minlength=classes + 1)[1:].astype(float)
    diameter = equivalent_diameter_mm(int(counts.sum()), spacing_mm)
    return np.concatenate(([np.log(diameter)], np.log(counts / counts.sum() + SHARE_FLOOR)))


def _smooth_noise(seed: int, count: int) -> Tensor:
    """Draw smooth noise of about unit variance, (count, G, G, G)."""
    rng = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, *(GRID,) * 3)
    for nodes in (GRID // 4, GRID // 2):
        noise = torch.randn(1, count, nodes, nodes, nodes, generator=rng)
        total = total + F.interpolate(noise, size=(GRID,) * 3, mode="trilinear", align_corners=True)[0]
    return total / total.std().clamp(min=1e-6)
