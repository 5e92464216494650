"""Insertion in trainers/segmentation.py: making it, calling it in a training step, counting it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from synthaug import LesionBank, LesionSampler, LesionShapes, PaintedLesions, TumorInsertion
from synthaug.config import ConfigError
from synthaug.data import Case
from synthaug.data.folds import refuse_shared_patients
from synthaug.insertion.adaptive import AdaptiveInsertion
from synthaug.lesions.base import LesionSource
from synthaug.lesions.painted.sampled import mask_bank
from synthaug.lesions.registry import resolve_lesions
from synthaug.stopwatch import Stopwatch
from synthaug.training.artefacts import keep_example
from synthaug.training.patches import PatchBatch
from synthaug.training.segmentation_config import InsertionConfig, PatchDataConfig, SegmentationConfig


def make_insertion(
    config: SegmentationConfig, train: list[Case], validation: list[Case], rank: int, device: str | torch.device = "cpu"
) -> TumorInsertion | None:
    """Make the insertion of a process, or None where it is off. Donors are training cases and nobody else.

    Raises:
        ConfigError: options that do not fit, or a bank or a sampler of masks that has seen validation patients.
    """
    options = config.insertion
    if options is None:
        return None
    classes, channels = config.data.vocabulary, config.data.channels
    try:
        lesions: LesionSource
        if options.lesions == "shapes":
            lesions = LesionShapes(classes=classes)
        else:
            donors: LesionBank | LesionSampler
            if options.bank is None:
                donors = LesionBank.from_cases(train, classes, channels, space=config.data.space)
            else:
                donors = checked_lesions(options.bank, validation)
            lesions = donors
            if options.painted is not None:
                lesions = painted_lesions(options, donors, config.data, validation, rank, device)
        own: dict[str, Any] = {"classes": classes, "channels": channels, "rank": rank, "space": config.data.space}
        return TumorInsertion(lesions, **own, **options.arguments())
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"insertion: {error}") from error


def painted_lesions(
    options: InsertionConfig,
    donors: LesionBank | LesionSampler,
    data: PatchDataConfig,
    validation: list[Case],
    rank: int,
    device: str | torch.device,
) -> PaintedLesions:
    """Make the pool of lesions that are painted ahead.

    Args:
        options: options of the insertion.
        donors: whose masks are painted; of a sampler as many as the pool holds.
        data: of the run: voxel size and channels of the patches.
        validation: cases of whose patients the pool may not begin with lesions.
        rank: number of this process; ranks paint different lesions.
        device: device that paints them.

    Raises:
        ValueError: a painted bank with lesions of validation patients, and what `PaintedLesions` raises.
    """
    painted = options.painted
    assert painted is not None  # else nothing is painted ahead
    start = None if painted.bank is None else checked_lesions(painted.bank, validation)
    if isinstance(start, LesionSampler):
        raise ValueError(f"painted.bank: expected a painted bank, got the sampler of masks {painted.bank}")
    spacing: Sequence[float] | None = data.spacing_mm
    if isinstance(donors, LesionSampler):
        spacing = spacing or (1.0, 1.0, 1.0)
        donors = mask_bank(donors, painted.count, options.seed, data.channels)
    elif spacing is None:
        spacing = np.median([lesion.spacing_mm for lesion in donors], axis=0).tolist()
    asked: dict[str, Any] = {"spacing_mm": spacing} | options.painting()
    return PaintedLesions(donors, start=start, rank=rank, device=device, progress=rank == 0, **asked)


def checked_lesions(path: Path, validation: list[Case]) -> LesionBank | LesionSampler:
    """Load a bank or a sampler of masks that has seen no validation patient.

    Raises:
        ValueError: it has; patients and cases are named.
    """
    lesions = resolve_lesions(path)
    patients = {case.name: case.group for case in validation}
    kind = "sampler" if isinstance(lesions, LesionSampler) else "bank"
    refuse_shared_patients(f"the {kind} {path}", lesions.patients, patients, "validation")
    return lesions


class Inserter:
    """Insertion in the training loop, with its schedule, adaptation, share of the time and examples for the report.

    Args:
        config: configuration of the run.
        insert: insertion of this process, None where insertion is off.
        accelerator: accelerator of this process.
        out: folder of the run.
    """

    def __init__(self, config: SegmentationConfig, insert: TumorInsertion | None, accelerator: Accelerator, out: Path):
        self.insert, self.accelerator, self.out = insert, accelerator, out
        self.options, self.watch = None if insert is None else config.insertion, Stopwatch(accelerator.device)
        self.schedule = None if self.options is None else self.options.schedule(config.optimizer.steps)
        self.total_steps = config.optimizer.steps
        self.steps, self.latest_step = 0, 0
        self.painted = insert.lesions if insert is not None and isinstance(insert.lesions, PaintedLesions) else None
        self.counted = (0.0, 0.0)
        self.adaptive = None
        if insert is not None and self.options is not None and self.options.adaptive is not None:
            try:
                self.adaptive = AdaptiveInsertion(insert, **self.options.adaptive.model_dump())
            except ValueError as error:
                raise ConfigError(f"insertion.adaptive: {error}") from error
        self.examples_left = config.examples if accelerator.is_main_process else 0

    def __call__(self, step: int, batch: PatchBatch) -> tuple[Tensor, Tensor]:
        """Move a batch to the device and insert there; returns image (B, C, X, Y, Z) and label (B, 1, X, Y, Z)."""
        device = self.accelerator.device
        image, label = batch.image.to(device, non_blocking=True), batch.label.to(device, non_blocking=True)
        if self.insert is None or self.schedule is None:
            return image, label
        self.insert.prob = self.schedule(step)
        self.steps, self.latest_step = self.steps + (step != self.latest_step), step
        with self.watch:
            stats = (batch.host_mean, batch.host_std)
            known: dict[str, Any] = {"groups": batch.groups, "host_stats": stats, "frames": batch.frames}
            known["host"] = None if batch.host is None else batch.host.to(device, non_blocking=True)
            changed, changed_label, plan = self.insert.recorded(image, label, batch.spacing_mm, **known)
        if self.examples_left:
            self._keep_examples(step, (image, label), (changed, changed_label), plan.to_rows())
        return changed, changed_label

    def begin(self) -> None:
        """Paint the lesions of the first batch, so that no step waits for them.

        Raises:
            ConfigError: no donor has the sizes that were asked for.
        """
        if self.insert is not None and self.painted is not None:
            try:
                self.painted.follow(self.insert.number)
            except ValueError as error:
                raise ConfigError(f"insertion.painted: {error}") from error

    def _keep_examples(
        self, step: int, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], rows: list[dict]
    ) -> None:
        """Keep the first sample of the batch that got a tumour, for the report."""
        done = [row["sample"] for row in rows if row["outcome"] == "done"]
        if done:
            b = done[0]
            (image, label), (changed, changed_label) = before, after
            mine = [row for row in rows if row["sample"] == b]
            keep_example(self.out, step, image[b], changed[b], label[b, 0], changed_label[b, 0], mine)
            self.examples_left -= 1

    def follow(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Adapt to the rows of a validation; returns the new weights, for the log."""
        return {} if self.adaptive is None else {"adaptive": self.adaptive.update(rows)}

    def expected(self, samples: int) -> float:
        """Compute how many insertions a run of so many samples will ask for, on average."""
        if self.options is None or self.schedule is None:
            return 0.0
        return samples * self.schedule.mean(self.total_steps) * (1 + self.options.second)

    def announcement(self, samples: int) -> str:
        """Say in words how many insertions will be asked for."""
        if self.options is None:
            return "insertion is off"
        adapted = ", adapted to validation" if self.adaptive is not None else ""
        painted = _painted_words(self.options)
        return f"about {self.expected(samples):.0f} insertions will be asked for{adapted}{painted}"

    def counts(self, seconds_per_step: float) -> dict[str, Any]:
        """Sum counts since the start over the processes, and work out the share of the time; empty where it is off."""
        if self.insert is None:
            return {}
        reports = gather_object([self.insert.report().to_dict()])
        steps, self.steps = max(1, self.steps), 0
        painting, waited = (seconds / steps for seconds in self._painting_and_waiting())
        # what was waited for is on the watch
        seconds = self.watch.take() / steps + max(0.0, painting - waited)
        share = {"insertion_seconds_per_step": seconds, "insertion_share": min(1.0, seconds / seconds_per_step)}
        if self.painted is not None:
            share |= {"painting_share": min(1.0, painting / seconds_per_step), "repainted": self.painted.repainted}
        return {"insertion": total_of(reports)} | share

    def _painting_and_waiting(self) -> tuple[float, float]:
        """Take the seconds of painting in the background, and of waiting for it, since the last call."""
        if self.painted is None:
            return 0.0, 0.0
        before, self.counted = self.counted, (self.painted.painting_seconds, self.painted.waited_seconds)
        return self.counted[0] - before[0], self.counted[1] - before[1]

    def state_dict(self) -> dict[str, Any]:
        """Give the state of insertion and adaptation, JSON-able."""
        state = None if self.insert is None else self.insert.state_dict()
        adaptive = None if self.adaptive is None else self.adaptive.state_dict()
        return {"insert": state, "adaptive": adaptive, "examples_left": self.examples_left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.examples_left = state["examples_left"]
        if self.insert is not None:
            self.insert.load_state_dict(state["insert"])
        if self.adaptive is not None:
            self.adaptive.load_state_dict(state["adaptive"])


def _painted_words(options: InsertionConfig) -> str:
    """Say what is painted ahead, as the end of a sentence."""
    painted = options.painted
    if painted is None:
        return ""
    words = f"; {painted.count} lesions are painted ahead by {options.generator}"
    if painted.refresh is not None:
        return f"{words}, {painted.refresh:g} anew for each patch"
    if painted.budget is not None:
        return f"{words}, and as many anew as keep insertion within {painted.budget:.1%} of the time"
    return words


def total_of(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the counts of several processes; tables of counts name by name."""
    total: dict[str, Any] = {key: sum(report[key] for report in reports) for key in ("samples", "asked", "done")}
    for key in ("refused", "voxels", "sizes"):
        total[key] = _summed([report[key] for report in reports])
    classes = dict.fromkeys(name for report in reports for name in report["lesions"])
    return total | {"lesions": {c: _summed([report["lesions"].get(c, {}) for report in reports]) for c in classes}}


def _summed(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for table in tables for name in table})
    return {name: sum(table.get(name, 0) for table in tables) for name in names}
