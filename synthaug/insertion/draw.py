"""What is asked for: decided on the host from sizes and seeds, before anything on the device is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from synthaug.checks import checked_at_least
from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.insertion.blending import margin_vox
from synthaug.insertion.home import Homes
from synthaug.insertion.plan import Insertion, Outcome, equivalent_diameter_mm
from synthaug.lesions.base import Candidates, LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps
from synthaug.lesions.registry import class_order
from synthaug.lesions.scale import LARGEST_UPSCALE, ScaleRange, SizeWeights, Turns, extents_vox
from synthaug.options import InsertionOptions
from synthaug.random import Purpose, stream

BOX_STEP = 8

Aims = tuple[tuple[int, ...], ...]
"""Centres of a lesion in voxels, in the order in which they are tried."""


@dataclass(frozen=True)
class Draw:
    """What is asked for in a batch.

    Attributes:
        insertions: sample by sample.
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
        frame: (3, 4), where donors go to their own places, else None.
    """

    sample: int
    spacing_mm: tuple[float, ...]
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
        source: lesion masks.
        class_order: position of each source class in the insertion's classes.
        prob: probability of a lesion per sample.
        second: probability of another one where there is one.
        swaps: class swaps, or None.
        mix: steering towards a class mix, or None.
        scale: how large.
        turns: how turned.
        min_voxels: volume floor.
        clearance_mm: from existing labels.
        halo_mm: of the support around the lesion.
        generator_margin: voxels of surroundings that the generator wants.
        crop_sizes: sides of the crops that the generator takes, ascending, or None for any box.
        cubic: whether these crops are cubes.
        seed: of the whole run.
        rank: of this process.
        number: samples seen.
        size_weights: of lesion sizes, or None.
        shift_mm: from a donor's own place, along each axis.
        mirror: whether a donor's own place may be that on the other side.
    """

    source: LesionSource
    class_order: list[int]
    prob: float
    second: float
    swaps: Swaps | None
    mix: ClassMix | None
    scale: ScaleRange
    turns: Turns
    min_voxels: int
    clearance_mm: float
    halo_mm: float
    generator_margin: int
    crop_sizes: tuple[int, ...] | None
    cubic: bool
    seed: int
    rank: int
    number: int = 0
    size_weights: SizeWeights | None = None
    shift_mm: float = 0.0
    mirror: bool = True

    @classmethod
    def of(
        cls,
        options: InsertionOptions,
        source: LesionSource,
        classes: Classes,
        generator: TumorGenerator,
        rank: int | None,
    ) -> "Decider":
        """What draws for these options.

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
            min_voxels=options.min_voxels,
            clearance_mm=options.clearance_mm,
            halo_mm=options.halo_mm,
            generator_margin=generator.margin_vox,
            crop_sizes=generator.crop_sizes,
            cubic=generator.cubic,
            seed=options.seed,
            rank=process_rank() if rank is None else int(checked_at_least("rank", rank)),
            shift_mm=options.shift_mm,
            mirror=options.mirror,
        )

    def batch(
        self,
        spacing_mm: Sequence[tuple[float, float, float]],
        volume: Sequence[int],
        groups: Sequence[str | None],
        place: str = "anywhere",
        frames: Sequence[np.ndarray] | None = None,
    ) -> Draw:
        """The insertions asked for in the next samples, sample by sample.

        Args:
            spacing_mm: voxel size of each sample.
            volume: (X, Y, Z) of the samples.
            groups: patient group of each sample, or None.
            place: of all of them, as in `synthaug.LesionOptions`.
            frames: (3, 4) of each sample, which ``"home"`` needs.
        """
        rows, tally = [], Tally(self.mix)
        for sample, (spacing, group) in enumerate(zip(spacing_mm, groups, strict=True)):
            number = self.number + sample
            self.source.follow(number)
            first, another = stream(self.seed, self.rank, number).random(2)
            count = 0 if first >= self.prob else 1 + int(another < self.second)
            frame = frames[sample] if place == "home" else None
            host = HostFacts(sample, tuple(spacing), tuple(volume), group, place, frame)
            rows += [self._one(host, order, tally) for order in range(count)]
        insertions, aims = zip(*rows, strict=True) if rows else ((), ())
        return Draw(tuple(insertions), self.number, len(groups), tuple(tally.added), tuple(aims))

    def advance(self, samples: int, mix_voxels: Sequence[Sequence[float]]) -> None:
        """Take a draw as used: the running number and the counts of the class mix go on."""
        self.number += samples
        if self.mix is not None:
            for voxels in mix_voxels:
                self.mix.counts += voxels

    def _one(self, host: "HostFacts", order: int, tally: "Tally") -> tuple[Insertion, Aims | None]:
        """One insertion and, for a donor at its own place, where to try it."""
        number = self.number + host.sample
        rng = stream(self.seed, self.rank, number, order + 1)
        seed = int(rng.integers(2**63))
        swaps = self.swaps.sample(rng) if self.swaps else {}
        drawn, turns = self.scale.draw(rng, swaps), self.turns.draw(rng)
        base = {"sample": host.sample, "number": number, "order": order, "seed": seed, "host_group": host.group}
        base |= {"spacing_mm": host.spacing_mm, "place": host.place, **turns}
        empty = {"lesion": None, "donor_group": None, "swaps": swaps, "scale": drawn}
        candidates = self.source.candidates(rng, host.group)
        if not len(candidates):
            return Insertion(**base, **empty, refused=Outcome.NO_DONOR), None
        own, homes = stream(self.seed, self.rank, number, order + 1, Purpose.HOME), None
        if host.place == "home":
            mirror = bool(self.mirror and own.random() < 0.5)
            homes = Homes.of(candidates, self.source.margin_vox, host.frame, host.volume, mirror)
            candidates = homes.candidates
            if not len(candidates):
                return Insertion(**base, **empty, refused=Outcome.NO_HOME), None
        drawn = self.scale.tilted(drawn, swaps, candidates, self.size_weights)
        factors = self.scale.factors(drawn, candidates)
        if homes is None:
            extents = extents_vox(candidates, factors, host.spacing_mm, turns)
        else:
            extents = homes.extents_vox(factors, host.spacing_mm, turns)
        usable, refused = self.usable(candidates, factors, extents, host.spacing_mm, host.volume)
        pick, swaps = self._pick(candidates, factors, usable, refused, swaps, host.spacing_mm, rng, tally)
        lesion, aims = candidates.lesions[pick], None
        if homes is not None:
            base |= dict(zip(("axes", "flips"), homes.turns[pick], strict=True))
            aims = homes.aims(pick, host.spacing_mm, self.shift_mm, host.volume, own)
        row = Insertion(
            **base,
            lesion=lesion.name,
            donor_group=lesion.group,
            swaps=swaps,
            scale=float(factors[pick]),
            crop_vox=None if refused else self.crop(extents[pick], host.spacing_mm),
            refused=refused,
        )
        return row, aims

    def usable(self, candidates: Candidates, factors, extents, spacing, volume) -> tuple[np.ndarray, Outcome | None]:
        """Positions of the donors that fit the patch and reach the volume floor; an outcome where there are none."""
        fits = (extents <= np.asarray(volume)).all(1)
        if self.crop_sizes is not None:
            fits &= extents.max(1) + 2 * self._margin(spacing) <= self.crop_sizes[-1]
        if not fits.any():
            return np.arange(len(candidates)), Outcome.TOO_LARGE
        voxels = candidates.volume_mm3 * factors**3 / np.prod(spacing)
        # thin lesions lose volume in resampling: those well above the floor first, the others where there are none
        ample, enough = (np.flatnonzero(fits & (voxels >= m * self.min_voxels)) for m in (2, 1))
        usable = ample if len(ample) else enough
        if not len(usable):
            return np.flatnonzero(fits), Outcome.TOO_SMALL
        mild = usable[factors[usable] <= LARGEST_UPSCALE]
        return (mild if len(mild) and self.scale.diameter_mm else usable), None

    def _pick(
        self, candidates: Candidates, factors, usable, refused, swaps, spacing, rng, tally: "Tally"
    ) -> tuple[int, dict[str, str]]:
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

    def _margin(self, spacing: Sequence[float]) -> int:
        return margin_vox(self.clearance_mm, self.halo_mm, spacing, self.generator_margin)

    def crop(self, extent: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
        """Size of the crop that the generator takes for a lesion of this extent in voxels, (3,)."""
        need = extent + 2 * self._margin(spacing)
        if self.crop_sizes is None:
            return tuple(int(-(-n // BOX_STEP) * BOX_STEP) for n in need)
        wanted = [need.max()] * 3 if self.cubic else need
        return tuple(next(s for s in self.crop_sizes if s >= n) for n in wanted)


class Tally:
    """The running counts of a class mix within one draw, which a question must not change for good.

    Args:
        mix: as it stands, or None.
    """

    def __init__(self, mix: ClassMix | None):
        self.mix = None if mix is None else mix.copy()
        self.added: list[tuple[float, ...]] = []

    def choose(self, voxels: np.ndarray, factors: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None):
        """Donor and swaps, as `ClassMix.choose` finds them; they count for the lesions that come after."""
        donor, swaps, added = self.mix.choose(voxels, factors, rng, weights)
        self.mix.counts += added
        self.added.append(tuple(added.tolist()))
        return donor, swaps


def process_rank() -> int:
    """Rank of this process in `torch.distributed`, or 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return 0
