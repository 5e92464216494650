"""Draws what to insert, on the host, from sizes and seeds alone, before anything on the device is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from synthaug.checks import checked_at_least
from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.insertion.asked import Insertion, Outcome
from synthaug.insertion.limits import Limits
from synthaug.lesions.base import Candidates, LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps
from synthaug.lesions.registry import class_order
from synthaug.lesions.scale import ScaleRange, SizeWeights, Turns, extents_vox
from synthaug.options import InsertionOptions
from synthaug.random import stream
from synthaug.sizes import equivalent_diameter_mm


@dataclass(frozen=True)
class Draw:
    """The insertions drawn for a batch.

    Attributes:
        insertions: one per lesion, sample by sample.
        number: running number of the first sample.
        samples: number of samples.
        mix_voxels: what each insertion that the class mix chose adds to its running counts, (K,) voxels.
    """

    insertions: tuple[Insertion, ...]
    number: int
    samples: int
    mix_voxels: tuple[tuple[float, ...], ...] = ()


@dataclass
class Decider:
    """Draws the insertions of a batch.

    To draw is to ask: the same question gets the same answer until `advance` says that a draw was used. The randomness
    of a sample follows from (seed, rank, running number of the sample): a batch gets what its samples would get one by
    one, and ranks of a distributed run differ.

    Attributes:
        source: gives the lesion masks.
        class_order: position of each source class in the insertion's classes.
        prob: probability of a lesion per sample.
        second: probability of a second lesion where there is a first.
        swaps: class swaps, or None.
        mix: steering towards a class mix, or None.
        scale: draws the lesions' size.
        turns: draws their rotation, mirroring and bending.
        limits: tell which lesions fit the patch and the generator's crops.
        seed: from which all draws follow.
        rank: number of this process, which draws otherwise than others.
        number: running number of the next sample.
        size_weights: tilt the draw towards some lesion sizes; None for none.
    """

    source: LesionSource
    class_order: list[int]
    prob: float
    second: float
    swaps: Swaps | None
    mix: ClassMix | None
    scale: ScaleRange
    turns: Turns
    limits: Limits
    seed: int
    rank: int
    number: int = 0
    size_weights: SizeWeights | None = None

    @classmethod
    def of(
        cls,
        options: InsertionOptions,
        source: LesionSource,
        classes: Classes,
        generator: TumorGenerator,
        rank: int | None,
    ) -> "Decider":
        """Make the decider for these options.

        Raises:
            ValueError: swaps, a class mix or scales that name unknown classes or do not fit each other.
        """
        swaps = Swaps(options.swaps, options.swap_draw, classes)
        return cls(
            source=source,
            class_order=class_order(source, classes),
            prob=options.prob,
            second=options.second,
            swaps=swaps if swaps.pairs else None,
            mix=ClassMix(options.class_mix, classes) if options.class_mix else None,
            scale=ScaleRange.checked(options.scale, options.diameter_mm, options.scale_after_swap, classes),
            turns=Turns(options.flip, options.rotate90, options.rotate_deg, options.elastic_mm),
            limits=Limits(
                min_voxels=options.min_voxels,
                clearance_mm=options.clearance_mm,
                halo_mm=options.halo_mm,
                generator_margin=generator.margin_vox,
                crop_sizes=generator.crop_sizes,
                cubic=generator.cubic,
                prefer_mild=options.diameter_mm is not None,
            ),
            seed=options.seed,
            rank=process_rank() if rank is None else int(checked_at_least("rank", rank)),
        )

    def batch(
        self, spacing_mm: Sequence[tuple[float, float, float]], volume: Sequence[int], groups: Sequence[str | None]
    ) -> Draw:
        """Draw the insertions of the next samples, sample by sample."""
        rows, tally = [], Tally(self.mix)
        for sample, (spacing, group) in enumerate(zip(spacing_mm, groups, strict=True)):
            number = self.number + sample
            self.source.follow(number)
            first, another = stream(self.seed, self.rank, number).random(2)
            count = 0 if first >= self.prob else 1 + int(another < self.second)
            rows += [self._one(sample, order, spacing, volume, group, tally) for order in range(count)]
        return Draw(tuple(rows), self.number, len(groups), tuple(tally.added))

    def advance(self, samples: int, mix_voxels: Sequence[Sequence[float]]) -> None:
        """Advance the running number and the counts of the class mix past a draw that was used."""
        self.number += samples
        if self.mix is not None:
            for voxels in mix_voxels:
                self.mix.counts += voxels

    def _one(
        self,
        sample: int,
        order: int,
        spacing: tuple[float, float, float],
        volume: Sequence[int],
        group: str | None,
        tally: "Tally",
    ) -> Insertion:
        number = self.number + sample
        rng = stream(self.seed, self.rank, number, order + 1)
        seed = int(rng.integers(2**63))
        swaps = self.swaps.sample(rng) if self.swaps else {}
        drawn, turn = self.scale.draw(rng, swaps), self.turns.draw(rng)
        asked = partial(
            Insertion,
            sample=sample,
            number=number,
            order=order,
            seed=seed,
            host_group=group,
            spacing_mm=spacing,
            **turn,
        )
        candidates = self.source.candidates(rng, group)
        if not len(candidates):
            return asked(lesion=None, donor_group=None, swaps=swaps, scale=drawn, refused=Outcome.NO_DONOR)
        drawn = self.scale.tilted(drawn, swaps, candidates, self.size_weights)
        factors = self.scale.factors(drawn, candidates)
        extents = extents_vox(candidates, factors, spacing, turn)
        usable, refused = self.limits.usable(candidates, factors, extents, spacing, volume)
        pick, swaps = self._pick(candidates, factors, usable, refused, swaps, spacing, rng, tally)
        lesion = candidates.lesions[pick]
        return asked(
            lesion=lesion.name,
            donor_group=lesion.group,
            swaps=swaps,
            scale=float(factors[pick]),
            crop_vox=None if refused else self.limits.crop(extents[pick], spacing),
            refused=refused,
        )

    def _pick(
        self,
        candidates: Candidates,
        factors: np.ndarray,
        usable: np.ndarray,
        refused: Outcome | None,
        swaps: dict[str, str],
        spacing: Sequence[float],
        rng: np.random.Generator,
        tally: "Tally",
    ) -> tuple[int, dict[str, str]]:
        """Choose a donor among the usable ones, and the swaps that the class mix wants in place of those drawn."""
        weights = None
        if self.size_weights is not None:
            own = equivalent_diameter_mm(candidates.volume_mm3[usable], (1, 1, 1))
            weights = self.size_weights.of(own * factors[usable])
        if tally.mix is None or refused:
            return int(rng.choice(usable, p=None if weights is None else weights / weights.sum())), swaps
        voxels = np.zeros((len(usable), len(tally.mix.names)))
        voxels[:, self.class_order] = candidates.voxels[usable]
        volume = factors[usable] ** 3 * candidates.spacing_mm[usable].prod(1) / np.prod(spacing)
        donor, swaps = tally.choose(voxels, volume, rng, weights)
        return int(usable[donor]), swaps


class Tally:
    """Counts voxels of a class mix within one draw, apart from its own counts, which a question must not change.

    Args:
        mix: the class mix with its counts so far, or None.
    """

    def __init__(self, mix: ClassMix | None):
        self.mix = None if mix is None else mix.copy()
        self.added: list[tuple[float, ...]] = []

    def choose(
        self, voxels: np.ndarray, factors: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None
    ) -> tuple[int, dict[str, str]]:
        """Choose donor and swaps as `ClassMix.choose` does; they count for the lesions that come after.

        Raises:
            ValueError: there is no class mix.
        """
        if self.mix is None:
            raise ValueError("class mix: expected one to choose by, got none")
        donor, swaps, added = self.mix.choose(voxels, factors, rng, weights)
        self.mix.counts += added
        self.added.append(tuple(added.tolist()))
        return donor, swaps


def process_rank() -> int:
    """Return the rank of this process in `torch.distributed`, or 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return 0
