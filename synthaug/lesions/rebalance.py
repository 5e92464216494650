"""Changes of a lesion's classes: swaps as in the BraTS 2025 winner, or steering towards a class mix.

Ferreira et al. (arXiv 2509.24973) exchange classes in the lesion masks before they are inserted: SNFH to ET and
ET to NETC, with probability 0.7. Two readings of that sentence are offered:

- ``joint``: one event decides for all swaps together. Either the whole chain happens or nothing does.
- ``each``: every swap has an event of its own.

In both, a swap acts on the lesion's *original* classes: oedema that became enhancing tumour does not go on to become
necrosis, and a lesion does not end as one class.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import product

import numpy as np

from synthaug.classes import Classes

Swap = tuple[str, str, float]


class Swaps:
    """Draws class swaps.

    Args:
        swaps: triples (from, to, probability); each class may stand first in one swap only.
        draw: ``"joint"`` or ``"each"``; joint swaps must share one probability.
        classes: vocabulary of the names; aliases such as SNFH are understood.

    Raises:
        ValueError: an unknown class, a class swapped twice or with itself, a probability outside [0, 1],
            joint swaps of unlike probabilities, or an unknown `draw`.
    """

    def __init__(self, swaps: Sequence[Swap], draw: str, classes: Classes):
        if draw not in ("joint", "each"):
            raise ValueError(f"swap_draw: expected 'joint' or 'each', got {draw!r}")
        self.pairs: list[tuple[str, str]] = []
        self.probs: list[float] = []
        for swap in swaps:
            if len(tuple(swap)) != 3:
                raise ValueError(f"swaps: expected triples (from, to, probability), got {swap!r}")
            source, target, prob = classes.canonical(swap[0]), classes.canonical(swap[1]), float(swap[2])
            if source == target or source in [s for s, _ in self.pairs]:
                raise ValueError(f"swaps: {source} may be swapped once, with another class; got {list(swaps)}")
            if not 0 <= prob <= 1:
                raise ValueError(f"swaps: expected a probability in [0, 1] for {source} -> {target}, got {prob}")
            self.pairs.append((source, target))
            self.probs.append(prob)
        if draw == "joint" and len(set(self.probs)) > 1:
            raise ValueError(f"swaps: a joint draw needs one probability, got {self.probs}; or swap_draw='each'")
        self.draw = draw

    def sample(self, rng: np.random.Generator) -> dict[str, str]:
        """Draw the swaps of one lesion, old name to new name; always takes as many random numbers."""
        uniform = rng.random(len(self.pairs))
        if self.draw == "joint":
            uniform[:] = uniform[:1]
        return {s: t for (s, t), p, u in zip(self.pairs, self.probs, uniform, strict=True) if u < p}


class ClassMix:
    """Steers the inserted classes towards target shares, by choice of donor and swaps.

    The running counts are those of the plans, predicted from the donors' class counts and their scale, because the
    voxels that were really written are known to the device alone. A change of class costs a little, so that lesions
    keep their own classes where that serves the target as well.

    Args:
        mix: class name to share of all inserted lesion voxels; shares of classes not named are 0.
        classes: vocabulary of the names.

    Raises:
        ValueError: an unknown class, a negative share, or shares that do not sum to 1 (within 1 %).
    """

    change_cost = 0.02
    considered = 6
    pull = 0.3

    def __init__(self, mix: Mapping[str, float], classes: Classes):
        target = np.zeros(len(classes))
        for name, share in mix.items():
            if not share >= 0:
                raise ValueError(f"class_mix: expected shares of at least 0, got {share} for {name}")
            target[classes.index(name)] += share
        if abs(target.sum() - 1) > 0.01:
            raise ValueError(f"class_mix: expected shares that sum to 1, got {dict(mix)} = {target.sum():.3f}")
        self.names, self.target = classes.names, target / target.sum()
        self.counts = np.zeros(len(classes))
        k = len(classes)
        maps = [m for m in product(range(k), repeat=k) if all(self.target[j] > 0 or j == i for i, j in enumerate(m))]
        self.maps = np.array(maps)
        self.moves = np.eye(k)[self.maps]
        self.renamed = self.maps != np.arange(k)

    def copy(self) -> "ClassMix":
        """Copy the mix, with running counts of its own."""
        copied = copy(self)
        copied.counts = self.counts.copy()
        return copied

    def choose(
        self, voxels: np.ndarray, factors: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
    ) -> tuple[int, dict[str, str], np.ndarray]:
        """Choose donor and swaps that bring the running counts nearest to the target; `counts` stay as they are.

        Args:
            voxels: (D, K) class counts of the donors that may be taken.
            factors: (D,) volume factor that the insertion's scale gives each of them.
            rng: the insertion's; at most `considered` donors are compared, drawn at random.
            weights: (D,) above 0, of the donors in that draw; all alike where not given.

        Returns:
            Position of the donor, its swaps, old name to new name, and (K,) what they add to the running counts.
        """
        now = self.counts / self.counts.sum() if self.counts.any() else self.target
        best, best_cost = (0, 0), np.inf
        if weights is None:
            compared = rng.permutation(len(voxels))[: self.considered]
        else:
            few = min(self.considered, len(voxels))
            compared = rng.choice(len(voxels), few, replace=False, p=weights / weights.sum())
        for d in compared:
            # judged by its composition, not by its size: else tiny lesions, which disturb least, would always win
            mixes = np.einsum("k,mkj->mj", voxels[d] / voxels[d].sum(), self.moves)
            distance = np.abs((1 - self.pull) * now + self.pull * mixes - self.target).sum(1)
            cost = distance + self.change_cost * (self.renamed & (voxels[d] > 0)).sum(1)
            if cost.min() < best_cost:
                best, best_cost = (int(d), int(cost.argmin())), cost.min()
        donor, m = best
        changed = np.flatnonzero(self.renamed[m] & (voxels[donor] > 0))
        swaps = {self.names[i]: self.names[self.maps[m, i]] for i in changed}
        return donor, swaps, voxels[donor] @ self.moves[m] * factors[donor]
