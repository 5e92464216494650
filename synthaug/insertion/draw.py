"""Draws what to insert, on the host, from sizes and seeds alone, before anything on the device is looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from synthaug.checks import checked_at_least
from synthaug.classes import Classes
from synthaug.frames import other_side
from synthaug.generators.base import TumorGenerator
from synthaug.insertion.asked import Insertion, Outcome
from synthaug.insertion.contrast import Contrast
from synthaug.insertion.home import Homes
from synthaug.insertion.limits import Limits
from synthaug.insertion.looks import Looks
from synthaug.lesions.base import Candidates, LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps
from synthaug.lesions.registry import class_order
from synthaug.lesions.scale import ScaleRange, SizeWeights, Turns, extents_vox
from synthaug.options import InsertionOptions
from synthaug.random import Purpose, stream
from synthaug.sizes import equivalent_diameter_mm

Aims = tuple[tuple[int, ...], ...]
"""Centres of a lesion in voxels, in the order in which they are tried."""


@dataclass(frozen=True)
class Draw:
    """The insertions drawn for a batch.

    Attributes:
        insertions: one per lesion, sample by sample.
        number: running number of the first sample.
        samples: number of samples.
        mix_voxels: what each insertion that the class mix chose adds to its running counts, (K,) voxels.
        aims: of each insertion, the centres in voxels to try, or None where it may lie anywhere.
    """

    insertions: tuple[Insertion, ...]
    number: int
    samples: int
    mix_voxels: tuple[tuple[float, ...], ...] = ()
    aims: tuple[Aims | None, ...] = ()


@dataclass(frozen=True, eq=False)
class HostFacts:
    """What is known of a sample on the host.

    Attributes:
        sample: its index in the batch.
        spacing_mm: voxel size.
        volume: (X, Y, Z) in voxels.
        group: patient group, or None.
        place: where its lesions go, as in `synthaug.LesionOptions`.
        frame: (3, 4), where donors go to their own places or the host's own lesions are painted anew, else None.
    """

    sample: int
    spacing_mm: tuple[float, float, float]
    volume: tuple[int, ...]
    group: str | None
    place: str
    frame: np.ndarray | None


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
        shift_mm: greatest displacement from a donor's own place, along each axis.
        mirror: whether a donor's own place may be that on the other side.
        styled: whether the host's own lesions get the look of a donor.
        contrast: draws changes of contrast, or None.
        smooth_mm: smoothing of outlines.
        mass_effect_mm: push of the surroundings.
        looks: draw whose look lesions get, or None.
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
    shift_mm: float = 0.0
    mirror: bool = True
    styled: bool = False
    contrast: Contrast | None = None
    smooth_mm: float = 0.0
    mass_effect_mm: float = 0.0
    looks: Looks | None = None

    @classmethod
    def of(
        cls,
        options: InsertionOptions,
        source: LesionSource,
        classes: Classes,
        generator: TumorGenerator,
        rank: int | None,
        channels: int,
        looks: Looks | None = None,
    ) -> "Decider":
        """Make the decider for these options and batches of so many channels.

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
                halo_mm=max(options.halo_mm, options.fringe_mm),
                generator_margin=generator.margin_vox,
                crop_sizes=generator.crop_sizes,
                cubic=generator.cubic,
                prefer_mild=options.diameter_mm is not None,
            ),
            seed=options.seed,
            rank=process_rank() if rank is None else int(checked_at_least("rank", rank)),
            shift_mm=options.shift_mm,
            mirror=options.mirror,
            styled=generator.needs_donor and options.style == "donor",
            contrast=Contrast.of(options, len(classes), channels),
            smooth_mm=options.smooth_mm,
            mass_effect_mm=options.mass_effect_mm,
            looks=looks,
        )

    def batch(
        self,
        spacing_mm: Sequence[tuple[float, float, float]],
        volume: Sequence[int],
        groups: Sequence[str | None],
        place: str = "anywhere",
        frames: Sequence[np.ndarray] | None = None,
    ) -> Draw:
        """Draw the insertions of the next samples, sample by sample.

        Args:
            spacing_mm: voxel size of each sample.
            volume: (X, Y, Z) of the samples.
            groups: patient group of each sample, or None.
            place: of all of them, as in `synthaug.LesionOptions`.
            frames: (3, 4) of each sample, which ``"home"`` needs and ``"own"`` heals better with.
        """
        rows, tally = [], Tally(self.mix)
        for sample, (spacing, group) in enumerate(zip(spacing_mm, groups, strict=True)):
            number = self.number + sample
            self.source.follow(number)
            first, another = stream(self.seed, self.rank, number).random(2)
            count = 0 if first >= self.prob else 1 + int(another < self.second)
            frame = frames[sample] if place in ("home", "own") and frames is not None else None
            host = HostFacts(sample, spacing, tuple(volume), group, place, frame)
            rows += [self._contrasted(*self._one(host, order, tally)) for order in range(count)]
        insertions, aims = zip(*rows, strict=True) if rows else ((), ())
        return Draw(tuple(insertions), self.number, len(groups), tuple(tally.added), tuple(aims))

    def advance(self, samples: int, mix_voxels: Sequence[Sequence[float]]) -> None:
        """Advance the running number and the counts of the class mix past a draw that was used."""
        self.number += samples
        if self.mix is not None:
            for voxels in mix_voxels:
                self.mix.counts += voxels

    def _contrasted(self, row: Insertion, aims: Aims | None) -> tuple[Insertion, Aims | None]:
        if self.looks is not None and row.refused is None:
            lesion = None if row.lesion is None else self.source.lesion(row.lesion)
            row = replace(row, look=self.looks.draw(row, lesion, self.source.classes))
        return row if self.contrast is None else replace(row, **self.contrast.draw(row.seed)), aims

    def _one(self, host: "HostFacts", order: int, tally: "Tally") -> tuple[Insertion, Aims | None]:
        """Draw one insertion and, for a donor at its own place, where to try it."""
        number = self.number + host.sample
        rng = stream(self.seed, self.rank, number, order + 1)
        seed = int(rng.integers(2**63))
        swaps = self.swaps.sample(rng) if self.swaps else {}
        drawn, turn = self.scale.draw(rng, swaps), self.turns.draw(rng)
        asked = partial(
            Insertion,
            sample=host.sample,
            number=number,
            order=order,
            seed=seed,
            host_group=host.group,
            spacing_mm=host.spacing_mm,
            place=host.place,
            smooth_mm=self.smooth_mm,
            mass_effect_mm=self.mass_effect_mm,
        )
        if host.place == "own":
            return self._own(asked, host, swaps, drawn, rng), None
        refused_as = partial(asked, lesion=None, donor_group=None, swaps=swaps, scale=drawn, **turn)
        candidates = self.source.candidates(rng, host.group)
        if not len(candidates):
            return refused_as(refused=Outcome.NO_DONOR), None
        own, homes = stream(self.seed, self.rank, number, order + 1, Purpose.HOME), None
        if host.frame is not None:
            mirror = bool(self.mirror and own.random() < 0.5)
            homes = Homes.of(candidates, self.source.margin_vox, host.frame, host.volume, mirror)
            candidates = homes.candidates
            if not len(candidates):
                return refused_as(refused=Outcome.NO_HOME), None
        drawn = self.scale.tilted(drawn, swaps, candidates, self.size_weights)
        factors = self.scale.factors(drawn, candidates)
        if homes is None:
            extents = extents_vox(candidates, factors, host.spacing_mm, turn)
        else:
            extents = homes.extents_vox(factors, host.spacing_mm, turn)
        usable, refused = self.limits.usable(candidates, factors, extents, host.spacing_mm, host.volume)
        pick, swaps = self._pick(candidates, factors, usable, refused, swaps, host.spacing_mm, rng, tally)
        lesion, aims = candidates.lesions[pick], None
        if homes is not None:
            axes, flips = homes.turns[pick]
            turn = {**turn, "axes": axes, "flips": flips}
            aims = homes.aims(pick, host.spacing_mm, self.shift_mm, host.volume, own)
        row = asked(
            **turn,
            lesion=lesion.name,
            donor_group=lesion.group,
            swaps=swaps,
            scale=float(factors[pick]),
            crop_vox=None if refused else self.limits.crop(extents[pick], host.spacing_mm),
            refused=refused,
        )
        return row, aims

    def _own(
        self,
        asked: Callable[..., Insertion],
        host: "HostFacts",
        swaps: dict[str, str],
        scale: float,
        rng: np.random.Generator,
    ) -> Insertion:
        """Draw the change of one of the host's own lesions, and the donor whose look it gets."""
        lesion = None
        if self.styled:
            lesions = self.source.candidates(rng, host.group).lesions
            if not len(lesions):
                return asked(lesion=None, donor_group=None, swaps=swaps, scale=scale, refused=Outcome.NO_DONOR)
            lesion = lesions[int(rng.integers(len(lesions)))]
        side = None if host.frame is None else other_side(host.frame)
        return asked(
            lesion=None if lesion is None else lesion.name,
            donor_group=None if lesion is None else lesion.group,
            swaps=swaps,
            scale=scale,
            crop_vox=self.limits.whole(host.volume),
            other_side=None if side is None else tuple(tuple(row) for row in side.tolist()),
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
