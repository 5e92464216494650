"""`TumorInsertion`: plans insertions and applies them, on the batch's own device."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthaug.channels import canonical_channels
from synthaug.classes import Classes, get_classes, in_names_of
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.host.fluid import check_fluid
from synthaug.host.space import Space
from synthaug.insertion.batch import Batch, SampleMap, plain
from synthaug.insertion.blending import Edge
from synthaug.insertion.draw import Decider
from synthaug.insertion.faults import PlanCheck, ValueCheck
from synthaug.insertion.groups import GroupWatch
from synthaug.insertion.looks import Looks
from synthaug.insertion.means import bounds_of
from synthaug.insertion.plan import InsertionPlan, Outcome
from synthaug.insertion.report import Audit, Report
from synthaug.insertion.show_through import shares_of
from synthaug.insertion.state import InsertionState
from synthaug.insertion.surroundings import Surroundings, check_place
from synthaug.insertion.work import Lesions, Placing, Work, find_places
from synthaug.insertion.write import CropWriter
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource
from synthaug.lesions.places import PlaceFrequency
from synthaug.lesions.registry import channels_of, resolve_lesions, vocabulary_of
from synthaug.options import InsertionOptions
from synthaug.stopwatch import Stopwatch, costed
from synthaug.transfers import on_device


class TumorInsertion(InsertionState):
    """Inserts label-conditioned synthetic tumours into training batches.

    ``insert(image, label)`` is ``insert.apply(image, label, insert.plan(image, label))``, and quicker. Inputs are never
    modified: new tensors come back, or the inputs themselves where nothing was asked for. Outside the support of an
    insertion every voxel of image and label is the input's, bit for bit.

    To plan is to ask: it changes and counts nothing, and asked twice it answers twice the same. To apply a plan that
    was made at the present `number` is to use it: `number` goes on past the batch's samples, the class mix and the
    report count it. Any other plan is a repetition, which does the same to a batch and counts nothing: one that was
    applied before, one that another was applied after, one of `InsertionPlan.from_rows`.

    `prob`, `number`, `class_mix` and `size_weights` may be set between batches. Each setter checks its value and leaves
    the insertion as it was where it raises. Setting a value does not touch the random sequence: with the same values
    set at the same samples, a run repeats bit for bit.

    Args:
        lesions: source of the masks: a `LesionBank` or `LesionSampler` (or the path of one), `LesionShapes`, or
            `PaintedLesions`.
        generator: paints them: ``"paste"``, ``"procedural"`` for gliomas on skull-stripped MR,
            ``"procedural:fitted"`` with the bank's own statistics for everything else, the name of trained weights, or
            a `TumorGenerator`.
        classes: label vocabulary of the batches; where not given, that of the lesions' own cases, or BraTS 2018's for
            BraTS lesions.
        channels: names of the image channels, in order; aliases of BraTS 2023 are understood. Where not given, BraTS's
            four, or those of a bank that has not all of them.
        audit: a JSONL file to which the rows of every plan that is counted are appended; this makes the device wait.
        rank: number of this process, so that ranks differ; by default that of `torch.distributed`, or 0.
        space: which voxels may hold a lesion where a batch comes without `host` masks, which label values are organs,
            and the units of model intensities (`synthaug.host.space`); by default those of skull-stripped images.
            Where it has fixed units, batches are expected in the intensities of the files, such as HU, or with their
            `host_stats`, and the mean of each class that a generator paints is held within those of the bank's lesions.
        looks: bank whose lesions have the looks that `style` asks for; `lesions` where that is a bank.
        places: how often lesions lie where in a host, for ``place="like-data"``; by default as the lesions did.
        **options: those of `synthaug.InsertionOptions`, such as ``prob=0.6``, ``scale=(0.3, 0.8)`` or ``seed=0``; and
            for a trained generator given by name, folder or hub id its own, such as ``steps=4``; see
            `synthaug.load_generator`.

    Attributes:
        options: the checked `synthaug.InsertionOptions`.

    Raises:
        ValueError: an empty bank, a bank or generator of other classes or channels, a probability outside [0, 1], an
            inverted range, a swap of an unknown class, `swaps` with `class_mix`, `scale` with `diameter_mm`.
        TypeError: an argument of the wrong kind, or one that neither this class nor the generator knows.

    Example:
        >>> from synthaug import LesionShapes
        >>> insert = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0, seed=0)
        >>> image = torch.rand(2, 4, 40, 40, 40)
        >>> label = torch.zeros(2, 1, 40, 40, 40, dtype=torch.int16)
        >>> new_image, new_label = insert(image, label, spacing_mm=(1.0, 1.0, 1.0))
        >>> new_image.shape, new_label.unique().tolist()
        (torch.Size([2, 4, 40, 40, 40]), [0, 1, 2, 4])
        >>> insert.report().done
        2
    """

    def __init__(
        self,
        lesions: LesionSource | str | os.PathLike,
        generator: str | TumorGenerator = "paste",
        *,
        classes: Classes | str | Mapping[str, int] | None = None,
        channels: Sequence[str] | None = None,
        audit: str | os.PathLike | None = None,
        rank: int | None = None,
        space: Space | None = None,
        places: PlaceFrequency | None = None,
        looks: LesionBank | str | os.PathLike | None = None,
        **options: Any,
    ):
        own = {name: options.pop(name) for name in InsertionOptions.model_fields if name in options}
        self.options = InsertionOptions.checked(**own)
        source = resolve_lesions(lesions)
        vocabulary = vocabulary_of(source) if classes is None else get_classes(classes)
        names = channels_of(source) if channels is None else canonical_channels(channels)
        self.space = space or Space()
        self.space.check(names, vocabulary)
        painter = resolve_generator(generator, source, **_not_ours(options, generator))
        bound = painter.bind(names, in_names_of(vocabulary.names, painter.classes))
        known = source if looks is None else resolve_lesions(looks)
        look = Looks.of(self.options.style, known, vocabulary, names, bound)
        decider = Decider.of(self.options, source, vocabulary, bound, rank, len(names), look)
        counters = Audit(vocabulary.names, None if audit is None else Path(audit))
        super().__init__(source, bound, vocabulary, names, decider, counters)
        self._made = Lesions(source, vocabulary, self._donor_channels(decider.mix))
        self.space.check_same("this insertion", "the lesion bank", source.space)
        self.space.check_same("this insertion", bound.described, bound.space)
        host_label = next(iter(self.space.rule.labels.values()), 0)
        limits, ignored = self.space.units.limits(names), self.options.ignore_label
        asked = self.options
        edge = Edge(asked.halo_mm, asked.fringe_mm, asked.edge_vox, asked.edge_texture, bound.needs_donor)
        self._around = Surroundings(self.options, self.space, vocabulary, names)
        means = None if bound.needs_donor else bounds_of(source, vocabulary, names, self._around.fixed)
        showing = shares_of(asked.show_through, vocabulary, names)
        self._writer = CropWriter(bound, vocabulary, edge, limits, host_label, look, means, showing)
        self._values = ValueCheck(vocabulary, self._around.blocked if self.space.rule.changes_labels else ignored)
        self._plans = PlanCheck(names)
        self.places = source.places if places is None else places
        check_place(self.options, source, self.places)
        if self.options.avoid_fluid:
            check_fluid(names)
        self._groups = GroupWatch(source)
        self._watch: Stopwatch | None = None

    @classmethod
    def from_profile(
        cls,
        profile: Any,
        lesions: LesionSource | str | os.PathLike | None = None,
        generator: str | TumorGenerator | None = None,
        **changes: Any,
    ) -> "TumorInsertion":
        """Make the insertion that follows from a data set's profile (`synthaug fit`).

        Args:
            profile: ``synthaug.json``, the folder that holds it, or a `synthaug.profile.Profile`.
            lesions: source in place of the bank beside the profile.
            generator: generator in place of the one that the profile recommends.
            **changes: further arguments of this class; each wins over the profile, and the log says so.

        Raises:
            ConfigError: a profile that cannot be read, with the path of the key; or no bank beside it.
            ValueError: lesions or a generator that were made in other units; both sides are named.

        Example:
            >>> insert = TumorInsertion.from_profile("data/synthaug.json", prob=0.5)  # doctest: +SKIP
        """
        from synthaug.profile.use import insertion_arguments

        return cls(**insertion_arguments(profile, lesions, generator, changes))

    def __call__(self, image: Tensor, label: Tensor, spacing_mm: Any = None, **context: Any) -> tuple[Tensor, Tensor]:
        """Plan and apply insertions; see `plan` for the arguments.

        Returns:
            image and label of the same shapes, dtypes and subclass, changed only where a tumour went in.
        """
        return self.recorded(image, label, spacing_mm, **context)[:2]

    @costed
    @torch.no_grad()
    def recorded(
        self, image: Tensor, label: Tensor, spacing_mm: Any = None, **context: Any
    ) -> tuple[Tensor, Tensor, InsertionPlan]:
        """Plan and apply insertions, and return the plan too, at the price of a call; `plan` and `apply` cost more.

        Returns:
            image and label as a call returns them, and the plan, whose `to_rows` tells what was done.
        """
        work, plan = self._planned(Batch.checked(image, label, self.channels, spacing_mm, **context))
        self._count(plan)
        return *self._written(work, plan, image, label), plan

    @costed
    @torch.no_grad()
    def plan(
        self,
        image: Tensor,
        label: Tensor,
        spacing_mm: Any = None,
        *,
        host: SampleMap | None = None,
        groups: Sequence[str | None] | None = None,
        host_stats: tuple[Any, Any] | None = None,
        prior: SampleMap | None = None,
        frames: Any = None,
    ) -> InsertionPlan:
        """Plan the insertions of a batch; nothing is changed or counted, and an accelerator is not waited for.

        Args:
            image: (B, C, X, Y, Z) float on any device.
            label: (B, 1, X, Y, Z) or (B, X, Y, Z) integer, same device.
            spacing_mm: voxel size, (3,) or (B, 3); 1 mm where not given.
            host: where lesions may lie, of the label's shape, non-zero for tissue; derived from the image
                where not given (`synthaug.host`). Where the mask costs something, a function instead, which is
                given a sample's index and returns its mask, (X, Y, Z) or (1, X, Y, Z), on the batch's device: it is
                called for samples that get a lesion alone, once each. Where not given, the option `host`, and `prior`
                likewise.
            groups: the samples' patient groups; donors of a sample's own group are not used.
            host_stats: mean and standard deviation of the whole volume's host tissue, scalars, (C,) or (B, C), in the
                batch's units; estimated from the patch where not given. (0, 1) for data that are such z-scores.
            prior: weights of the lesion's centre, of the label's shape, at least 0; or a function likewise.
            frames: (B, 3, 4) or (3, 4), voxel indices to host coordinates, on the CPU (`synthaug.frames`): where in
                their hosts the samples lie, which ``place="like-data"`` and ``"home"`` need.

        Raises:
            TypeError, ValueError: what was expected and what came, for all that `synthaug.insertion.batch` checks.

        Example:
            >>> from synthaug import LesionShapes
            >>> insert = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
            >>> image, label = torch.rand(1, 4, 40, 40, 40), torch.zeros(1, 1, 40, 40, 40, dtype=torch.int16)
            >>> plan = insert.plan(image, label, (1.0, 1.0, 1.0), groups=["patient 7"], host_stats=(0.5, 0.3))
            >>> plan.center_vox.shape, plan.voxels.shape, plan.to_rows()[0]["outcome"]
            (torch.Size([1, 3]), torch.Size([1, 3]), 'done')
            >>> new_image, new_label = insert.apply(image, label, plan)
        """
        context = {"host": host, "groups": groups, "host_stats": host_stats, "prior": prior, "frames": frames}
        return self._planned(Batch.checked(image, label, self.channels, spacing_mm, **context))[1]

    @costed
    @torch.no_grad()
    def apply(
        self, image: Tensor, label: Tensor, plan: InsertionPlan, *, host: SampleMap | None = None
    ) -> tuple[Tensor, Tensor]:
        """Write a plan's lesions into a batch; the same plan gives the same bits, also from its JSON rows.

        The batch's host tissue must be that of the batch that the plan was made for: mean, standard deviation (unless
        the caller gave them) and lowest intensity of each sample that gets a lesion, up to rounding. On an accelerator
        a sample of other tissue is left alone, and the error comes with a later call or `report`.

        Args:
            image: (B, C, X, Y, Z), the image that the plan was made for.
            label: (B, 1, X, Y, Z) or (B, X, Y, Z), its label.
            plan: what `plan` or `InsertionPlan.from_rows` returned.
            host: the mask or function, where the plan was made with one.

        Raises:
            ValueError: a plan for other sizes, classes or tissue, a lesion that the source does not have, no `host`
                mask for a plan that was made with one; and what `plan` raises for the batch.
        """
        batch = Batch.checked(image, label, self.channels, host=host)
        if not isinstance(plan, InsertionPlan):
            raise TypeError(f"plan: expected an InsertionPlan, got {type(plan).__name__}")
        if plan.host_given:
            batch = replace(batch, host=self._around.of_option("host", batch))
        plan.check_fits(batch.samples, len(self.channels), batch.volume_vox, self.classes.names, batch.host is not None)
        batch, placing = self._around.with_rule(batch), Placing(self.options, channels=self.channels)
        batch = replace(batch, spacing_mm=plan.spacing_of(batch.spacing_mm), host_stats=plan.host_stats)
        work = Work(batch, plan.insertions, self._made, placing, self._around.fixed)
        plan = self._fitting(work, plan.to(batch.image.device))
        self._count(plan)
        return self._written(work, plan, image, label)

    def report(self) -> Report:
        """Report insertions asked for, done and refused so far; reading it makes the host wait for the device."""
        self._values.late.raise_pending(wait=True)
        self._plans.late.raise_pending(wait=True)
        return self._audit.report()

    def _planned(self, batch: Batch) -> tuple[Work, InsertionPlan]:
        batch = replace(batch, host=self._around.of_option("host", batch), prior=self._around.of_option("prior", batch))
        given, batch = batch.host is not None, self._around.with_rule(batch)
        usable = self._values.check(batch.image, batch.label)
        place = self._around.place_of(batch, self.places)
        draw = self._decider.batch(batch.spacing_mm, batch.volume_vox, batch.groups, place, batch.frames)
        frequency = self.places if place == "like-data" else None
        placing = Placing(self.options, draw.aims, frequency, batch.frames or (), self.channels)
        work = Work(batch, draw.insertions, self._made, placing, self._around.fixed)
        plan = InsertionPlan(
            insertions=draw.insertions,
            classes=self.classes.names,
            volume_vox=batch.volume_vox,
            host_given=given,
            host_stats=batch.host_stats,
            samples=draw.samples,
            number=draw.number,
            mix_voxels=draw.mix_voxels,
            **vars(find_places(work, usable)),
        )
        return work, plan

    def _fitting(self, work: Work, plan: InsertionPlan) -> InsertionPlan:
        """Refuse samples of other tissue than the plan was made for, and use the plan's statistics for the others."""
        if plan.tissue is None or not plan.live:
            return plan
        samples = sorted({plan.insertions[n].sample for n in plan.live})
        expected, changed = plan.tissue_of(work.batch.samples)
        fits = self._plans.check(expected, work.tissue(samples), changed)
        for b in samples:
            work.write_with(b, *expected[b])
        rows = fits.index_select(0, on_device([row.sample for row in plan.insertions], fits.device))
        return replace(
            plan,
            outcome=torch.where(rows, plan.outcome, Outcome.OTHER_BATCH),
            voxels=plan.voxels * rows[:, None],
        )

    def _count(self, plan: InsertionPlan) -> None:
        """Count a plan as used, unless it is a repetition."""
        if plan.number == self._decider.number:
            self._decider.advance(plan.samples, plan.mix_voxels)
            self._audit.saw(plan.samples)
            self._audit.count(plan)
            self._groups.saw(row.host_group for row in plan.insertions)

    def _written(self, work: Work, plan: InsertionPlan, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Write the plan's lesions into a copy of the batch; the inputs themselves where none is asked for."""
        if plan.live:
            image, label = (x.clone(memory_format=torch.contiguous_format) for x in (image, label))
            self._writer.write(work, plan, plain(image), plain(label).view(work.batch.label.shape))
        self._audit.watch()
        return image, label


def _not_ours(options: dict[str, Any], generator: Any) -> dict[str, Any]:
    """The options that are the generator's; a slip of one of the insertion's is not, where the generator takes none.

    Raises:
        TypeError: an option that neither knows, and what may have been meant.
    """
    if generator in ("paste", "procedural") or isinstance(generator, TumorGenerator):
        for name in options:
            if close := get_close_matches(name, InsertionOptions.model_fields, n=1, cutoff=0.5):
                raise TypeError(f"unexpected {name}: did you mean {close[0]}?")
    return options
