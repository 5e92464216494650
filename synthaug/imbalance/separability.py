"""Separability of two classes by their intensities alone.

Three figures for each pair of classes, per channel and for all channels together:

- AUC, the chance that a voxel of one class is brighter than one of the other, taken as 0.5 to 1.
- Overlap coefficient, the shared area of the two histograms, 1 for the same distribution.
- Fisher ratio, (m1 - m2)^2 / (s1^2 + s2^2).

All channels together means their best linear combination, Fisher's discriminant w = (S1 + S2)^-1 (m1 - m2), on which
the same three are worked out. It is fitted to the voxels that it is judged by; with thousands of voxels and a handful
of channels that flatters it little. Intensities are z-scores of each case's host tissue, so what differs between
scanners counts as overlap, as it does for a network. Shape and place, by which a network also tells, are not in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from synthaug.evaluation.fidelity import roc_auc

HARD, EASY = 0.7, 0.85
"""AUC below which a pair is hardly told apart by intensity, and from which on it is well."""

BINS = 64
ALL = "all channels"


@dataclass(frozen=True)
class Separability:
    """Overlap of two distributions of intensities; see the head of the module."""

    auc: float
    overlap: float
    fisher: float


@dataclass(frozen=True)
class ClassPair:
    """Two classes compared.

    Attributes:
        first: name of a class, or of healthy tissue.
        second: name of another.
        by_channel: channel name to `Separability`; `ALL` for all together.
    """

    first: str
    second: str
    by_channel: Mapping[str, Separability]

    @property
    def auc(self) -> float:
        """AUC of all channels together."""
        return self.by_channel[ALL].auc

    @property
    def best_channel(self) -> str:
        """The channel that alone tells the two apart best."""
        return max((c for c in self.by_channel if c != ALL), key=lambda c: self.by_channel[c].auc)

    @property
    def words(self) -> str:
        """Separability in words."""
        return "hardly" if self.auc < HARD else "partly" if self.auc < EASY else "well"


def compare_all(samples: Mapping[str, np.ndarray], channels: Sequence[str]) -> list[ClassPair]:
    """Compare every pair of classes.

    Args:
        samples: class name to (N, C) intensities; classes without a voxel are left out.
        channels: names of the C channels.
    """
    names = [name for name, values in samples.items() if len(values) > 1]
    return [_pair(a, b, samples[a], samples[b], channels) for a, b in combinations(names, 2)]


def find_pair(pairs: Sequence[ClassPair], first: str, second: str) -> ClassPair | None:
    """Find the comparison of two classes in either order, or None where one of them does not occur."""
    return next((pair for pair in pairs if {pair.first, pair.second} == {first, second}), None)


def _pair(first: str, second: str, a: np.ndarray, b: np.ndarray, channels: Sequence[str]) -> ClassPair:
    compared = {name: compare(a[:, c], b[:, c]) for c, name in enumerate(channels)}
    direction = discriminant(a, b)
    return ClassPair(first, second, compared | {ALL: compare(a @ direction, b @ direction)})


def discriminant(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute Fisher's linear discriminant (C,) of two samples (N, C) and (M, C)."""
    within = np.atleast_2d(np.cov(a, rowvar=False)) + np.atleast_2d(np.cov(b, rowvar=False))
    ridge = 1e-6 * max(np.trace(within), 1e-12) * np.eye(len(within))
    return np.linalg.solve(within + ridge, a.mean(0) - b.mean(0))


def compare(a: np.ndarray, b: np.ndarray) -> Separability:
    """Compare two samples of one quantity, (N,) and (M,)."""
    auc = roc_auc(b, a)
    low, high = np.percentile(np.concatenate((a, b)), (0.1, 99.9))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [np.histogram(x.clip(edges[0], edges[-1]), edges)[0] / len(x) for x in (a, b)]
    spread = a.var() + b.var()
    fisher = float((a.mean() - b.mean()) ** 2 / spread) if spread > 0 else 0.0
    return Separability(max(auc, 1 - auc), float(np.minimum(*shares).sum()), fisher)
