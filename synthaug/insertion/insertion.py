"""`TumorInsertion`: decide what goes where, then do it, on the batch's own device."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.channels import canonical_channels
from synthaug.checks import checked_at_least, checked_probability
from synthaug.classes import Classes, get_classes, in_names_of
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.insertion.batch import Batch, SampleMap, plain
from synthaug.insertion.draw import Decider
from synthaug.insertion.faults import PlanCheck, ValueCheck
from synthaug.insertion.groups import GroupWatch
from synthaug.insertion.plan import InsertionPlan, Outcome
from synthaug.insertion.report import Audit, Report
from synthaug.insertion.work import Lesions, Work, find_places
from synthaug.insertion.write import CropWriter
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix
from synthaug.lesions.registry import channels_of, donor_channels, resolve_lesions, vocabulary_of
from synthaug.lesions.scale import SizeWeights
from synthaug.lesions.shapes import LesionShapes
from synthaug.options import InsertionOptions
from synthaug.stopwatch import costed
from synthaug.transfers import on_device

STATE_VERSION = 2
"""States of version 1, which did not name it, can be loaded."""


class TumorInsertion:
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
        lesions: masks: a `LesionBank` (or the path of one), `LesionShapes`, or `PaintedLesions`.
        generator: appearance: ``"paste"``, ``"procedural"``, or a `TumorGenerator`.
        classes: label vocabulary of the batches; where not given, that of the lesions' own cases, or BraTS 2018's for
            BraTS lesions.
        channels: names of the image channels, in order; aliases of BraTS 2023 are understood. Where not given, BraTS's
            four, or those of a bank that has not all of them.
        audit: a JSONL file to which the rows of every plan that is counted are appended; this makes the device wait.
        rank: of this process, so that ranks differ; by default that of `torch.distributed`, or 0.
        **options: those of `synthaug.InsertionOptions`, such as ``prob=0.6``, ``scale=(0.3, 0.8)`` or ``seed=0``; and
            for a trained generator given by name, folder or hub id its own, such as ``steps=4``; see
            `synthaug.load_generator`.

    Attributes:
        options: as they were given.

    Raises:
        ValueError: an empty bank, a bank or generator of other classes or channels, a probability outside [0, 1], an
            inverted range, a swap of an unknown class, `swaps` with `class_mix`, `scale` with `diameter_mm`.
        TypeError: an argument of the wrong kind, or one that neither this class nor the generator knows.
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
        **options: Any,
    ):
        own = {name: options.pop(name) for name in InsertionOptions.model_fields if name in options}
        self.options = InsertionOptions.checked(**own)
        self.lesions = resolve_lesions(lesions)
        self.classes = vocabulary_of(self.lesions) if classes is None else get_classes(classes)
        self.channels = channels_of(self.lesions) if channels is None else canonical_channels(channels)
        painter = resolve_generator(generator, **_not_ours(options, generator))
        self.generator = painter.bind(self.channels, in_names_of(self.classes.names, painter.classes))
        self._decider = Decider.of(self.options, self.lesions, self.classes, self.generator, rank)
        self._made = Lesions(self.lesions, self.classes, self._donor_channels(self._decider.mix))
        self._writer = CropWriter(self.generator, self.classes, self.options.halo_mm, self.options.edge_vox)
        self._audit = Audit(self.classes.names, None if audit is None else Path(audit))
        self._values = ValueCheck(self.classes, self.options.ignore_label)
        self._plans = PlanCheck(self.channels)
        self._groups = GroupWatch(self.lesions)
        self._watch = None

    def __call__(self, image: Tensor, label: Tensor, spacing_mm: Any = None, **context: Any) -> tuple[Tensor, Tensor]:
        """Plan and apply; see `plan` for the arguments.

        Returns:
            image and label of the same shapes, dtypes and subclass, changed only where a tumour went in.
        """
        return self.recorded(image, label, spacing_mm, **context)[:2]

    @costed
    @torch.no_grad()
    def recorded(
        self, image: Tensor, label: Tensor, spacing_mm: Any = None, **context: Any
    ) -> tuple[Tensor, Tensor, InsertionPlan]:
        """Plan and apply, and the plan as well: at the price of a call, where `plan` and `apply` look at a batch each.

        Returns:
            image and label as of a call, and the plan, whose `to_rows` tells what was done.
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
    ) -> InsertionPlan:
        """Decide what goes where; nothing is changed or counted, and an accelerator is not waited for.

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

        Raises:
            TypeError, ValueError: what was expected and what came, for all that `synthaug.insertion.batch` checks.
        """
        context = {"host": host, "groups": groups, "host_stats": host_stats, "prior": prior}
        return self._planned(Batch.checked(image, label, self.channels, spacing_mm, **context))[1]

    @costed
    @torch.no_grad()
    def apply(
        self, image: Tensor, label: Tensor, plan: InsertionPlan, *, host: SampleMap | None = None
    ) -> tuple[Tensor, Tensor]:
        """Do what a plan says; the same plan on the same batch gives the same bits, also from its JSON rows.

        The batch's host tissue must be that of the batch that the plan was made for: mean, standard deviation (unless
        the caller gave them) and lowest intensity of each sample that gets a lesion, up to rounding. On an accelerator
        a sample of other tissue is left alone, and the error comes with a later call or `report`.

        Args:
            image: the batch that the plan was made for.
            label: likewise.
            plan: of `plan`, or of `InsertionPlan.from_rows`.
            host: the mask or function, where the plan was made with one.

        Raises:
            ValueError: a plan for other sizes, classes or tissue, a lesion that the source does not have, no `host`
                mask for a plan that was made with one; and what `plan` raises for the batch.
        """
        batch = Batch.checked(image, label, self.channels, host=host)
        if not isinstance(plan, InsertionPlan):
            raise TypeError(f"plan: expected an InsertionPlan, got {type(plan).__name__}")
        if plan.host_given:
            batch = self._with_option("host", batch)
        plan.check_fits(batch.samples, len(self.channels), batch.volume_vox, self.classes.names, batch.host is not None)
        work = Work(replace(batch, host_stats=plan.host_stats), plan.insertions, self._made)
        plan = self._fitting(work, plan.to(batch.image.device))
        self._count(plan)
        return self._written(work, plan, image, label)

    def report(self) -> Report:
        """What was asked for, done and refused so far; reading it makes the host wait for the device."""
        self._values.late.raise_pending(wait=True)
        self._plans.late.raise_pending(wait=True)
        return self._audit.report()

    def expected(self, samples: int) -> float:
        """Insertions that will be asked for, on average, over this many samples at the present `prob`."""
        return samples * self._decider.prob * (1 + self._decider.second)

    def _planned(self, batch: Batch) -> tuple[Work, InsertionPlan]:
        batch = self._with_option("prior", self._with_option("host", batch))
        usable = self._values.check(batch.image, batch.label)
        draw = self._decider.batch(batch.spacing_mm, batch.volume_vox, batch.groups)
        work = Work(batch, draw.insertions, self._made)
        plan = InsertionPlan(
            insertions=draw.insertions,
            classes=self.classes.names,
            volume_vox=batch.volume_vox,
            host_given=batch.host is not None,
            host_stats=batch.host_stats,
            samples=draw.samples,
            number=draw.number,
            mix_voxels=draw.mix_voxels,
            **vars(find_places(work, usable, self.options)),
        )
        return work, plan

    def _with_option(self, name: str, batch: Batch) -> Batch:
        """The batch with the option's `host` or `prior` where the caller gave none.

        Raises:
            ValueError: the option is a file, which who reads cases has to give.
        """
        option = getattr(self.options, name)
        if option is None or getattr(batch, name) is not None:
            return batch
        if isinstance(option, str):
            raise ValueError(f"{name}: {option} is a file of each case; expected {name}=... with the batch")
        return replace(batch, **{name: lambda b: option(batch.image[b], batch.label[b])})

    def _fitting(self, work: Work, plan: InsertionPlan) -> InsertionPlan:
        """The plan, with samples of other tissue than it was made for refused; the plan's own statistics are used."""
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
        """Take a plan as used, unless it is a repetition."""
        if plan.number == self._decider.number:
            self._decider.advance(plan.samples, plan.mix_voxels)
            self._audit.saw(plan.samples)
            self._audit.count(plan)
            self._groups.saw(row.host_group for row in plan.insertions)

    def _written(self, work: Work, plan: InsertionPlan, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The batch with the plan's lesions; the inputs themselves where none is asked for."""
        if plan.live:
            image, label = (x.clone(memory_format=torch.contiguous_format) for x in (image, label))
            self._writer.write(work, plan, plain(image), plain(label).view(work.batch.label.shape))
        self._audit.watch()
        return image, label

    def _donor_channels(self, mix: ClassMix | None) -> list[int] | None:
        return donor_channels(self.lesions, self.generator, self.classes, self.channels, self._decider.swaps, mix)

    @property
    def prob(self) -> float:
        """Probability of a lesion per sample; may be set between batches."""
        return self._decider.prob

    @prob.setter
    def prob(self, value: float) -> None:
        self._decider.prob = checked_probability("prob", value)

    @property
    def number(self) -> int:
        """Running number of the next sample; with `seed` and `rank` it decides what is drawn for it.

        May be set between batches: loader workers, which start from equal copies of one insertion, set it to a number
        of their framework's random state.
        """
        return self._decider.number

    @number.setter
    def number(self, value: int) -> None:
        checked_at_least("number", value)
        self._decider.number = int(value)

    @property
    def class_mix(self) -> dict[str, float] | None:
        """Target shares of the inserted voxels, or None; may be set between batches where there are no swaps.

        With other shares than before the running counts begin anew: they would otherwise make up for the past, and
        overshoot for as long as it lasted.
        """
        mix = self._decider.mix
        return None if mix is None else dict(zip(mix.names, mix.target.tolist(), strict=True))

    @class_mix.setter
    def class_mix(self, shares: Mapping[str, float] | None) -> None:
        if shares is None:
            self._decider.mix = None
            return
        if self._decider.swaps is not None:
            raise ValueError("class_mix: this insertion has swaps; it may have one of the two")
        new, old = ClassMix(shares, self.classes), self._decider.mix
        self._donor_channels(new)  # raises where donors lack a class
        if old is None or not np.array_equal(new.target, old.target):
            self._decider.mix = new

    @property
    def size_weights(self) -> SizeWeights | None:
        """Weights of lesion sizes, or None for none; may be set between batches."""
        return self._decider.size_weights

    @size_weights.setter
    def size_weights(self, weights: SizeWeights | None) -> None:
        if weights is not None and not isinstance(weights, SizeWeights):
            raise TypeError(f"size_weights: expected SizeWeights or None, got {type(weights).__name__}")
        if weights is not None and isinstance(self.lesions, LesionShapes) and self._decider.scale.diameter_mm is None:
            raise ValueError(
                "size_weights: LesionShapes draws its own diameters; give TumorInsertion(diameter_mm=...) instead"
            )
        self._decider.size_weights = weights

    def state_dict(self) -> dict[str, Any]:
        """Where the random sequence, the counters and the adjustable values stand, JSON-able; waits for the device."""
        mix, weights = self._decider.mix, self._decider.size_weights
        return {
            "version": STATE_VERSION,
            "number": self._decider.number,
            "prob": self._decider.prob,
            "mix_target": None if mix is None else mix.target.tolist(),
            "mix_counts": None if mix is None else mix.counts.tolist(),
            "size_weights": None if weights is None else weights.to_dict(),
            "lesions": self.lesions.state_dict(),
            "audit": self._audit.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, with the values that were set then.

        Raises:
            ValueError: a state of a later version of the library, or of other classes.
        """
        version = state.get("version", 1)
        if version not in (1, STATE_VERSION):
            raise ValueError(f"insertion state: expected version {STATE_VERSION} or 1, got {version!r}")
        self._audit.load_state_dict(state["audit"] if version != 1 else _with_other_batch(state["audit"]))
        self.number = state["number"]
        self.lesions.load_state_dict(state.get("lesions", {}))
        self.prob = state.get("prob", self.prob)
        if state.get("mix_target") is not None:
            self.class_mix = dict(zip(self.classes.names, state["mix_target"], strict=True))
            self._decider.mix.target[:] = state["mix_target"]
        if self._decider.mix is not None and state["mix_counts"] is not None:
            self._decider.mix.counts[:] = state["mix_counts"]
        weights = state.get("size_weights")
        self.size_weights = None if weights is None else SizeWeights.from_dict(weights)


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


def _with_other_batch(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The audit's state of version 1, which had no counter of plans for another batch."""
    counts = list(audit["counts"])
    return {**audit, "counts": [*counts[: Outcome.OTHER_BATCH], 0.0, *counts[Outcome.OTHER_BATCH :]]}
