"""Insertion in trainers/segmentation.py: how it is made, and what surrounds it in a training step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from synthaug import LesionBank, LesionShapes, PaintedLesions, TumorInsertion
from synthaug.config import ConfigError
from synthaug.data import Case
from synthaug.data.folds import refuse_shared_patients
from synthaug.insertion.adaptive import AdaptiveInsertion
from synthaug.stopwatch import Stopwatch
from synthaug.training.artefacts import keep_example
from synthaug.training.patches import PatchBatch
from synthaug.training.segmentation_config import SegmentationConfig


def make_insertion(
    config: SegmentationConfig, train: list[Case], validation: list[Case], rank: int, device: str | torch.device = "cpu"
) -> TumorInsertion | None:
    """The insertion of a process, or None where it is off. Donors are training cases and nobody else.

    Raises:
        ConfigError: options that do not fit, or a bank with lesions of validation patients.
    """
    options = config.insertion
    if options is None:
        return None
    classes, channels = config.data.vocabulary, config.data.channels
    try:
        if options.lesions == "shapes":
            lesions = LesionShapes(classes=classes)
        elif options.bank is not None:
            lesions = LesionBank.load(options.bank)
            refuse_validation_donors(options.bank, lesions, validation)
        else:
            lesions = LesionBank.from_cases(train, classes, channels, space=config.data.space)
        if options.painted is not None:
            lesions = painted_lesions(config, lesions, validation, rank, device)
        own = {"classes": classes, "channels": channels, "rank": rank, "space": config.data.space}
        return TumorInsertion(lesions, **own, **options.arguments())
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"insertion: {error}") from error


def painted_lesions(
    config: SegmentationConfig, donors: LesionBank, validation: list[Case], rank: int, device: str | torch.device
) -> PaintedLesions:
    """The pool of lesions that are painted ahead, in the voxel size of the patches, or else the donors' usual one."""
    options, start = config.insertion, None
    if options.painted.bank is not None:
        start = LesionBank.load(options.painted.bank)
        refuse_validation_donors(options.painted.bank, start, validation)
    usual = np.median([lesion.spacing_mm for lesion in donors], axis=0)
    spacing = usual if config.data.spacing_mm is None else config.data.spacing_mm
    return PaintedLesions(
        donors, start=start, rank=rank, device=device, spacing_mm=spacing, progress=rank == 0, **options.painting()
    )


def refuse_validation_donors(path: Path, bank: LesionBank, validation: list[Case]) -> None:
    """Check that no donor of a bank is a validation patient.

    Raises:
        ValueError: some are; patients and cases are named.
    """
    refuse_shared_patients(
        f"the bank {path}", bank.groups, {case.name: case.group for case in validation}, "validation"
    )


class Inserter:
    """Insertion in the training loop: its schedule, its adaptation, its share of the time, and examples for the report.

    Args:
        config: of the run.
        insert: None where insertion is off.
        accelerator: of this process.
        out: the run's folder.
    """

    def __init__(self, config: SegmentationConfig, insert: TumorInsertion | None, accelerator: Accelerator, out: Path):
        self.insert, self.accelerator, self.out = insert, accelerator, out
        self.options, self.watch = config.insertion, Stopwatch(accelerator.device)
        self.schedule = None if insert is None else config.insertion.schedule(config.optimizer.steps)
        self.total_steps = config.optimizer.steps
        self.steps, self.latest_step = 0, 0
        self.painted = insert.lesions if insert is not None and self.options.painted is not None else None
        self.counted = (0.0, 0.0)
        self.adaptive = None
        if insert is not None and self.options.adaptive is not None:
            try:
                self.adaptive = AdaptiveInsertion(insert, **self.options.adaptive.model_dump())
            except ValueError as error:
                raise ConfigError(f"insertion.adaptive: {error}") from error
        self.examples_left = config.examples if accelerator.is_main_process else 0

    def __call__(self, step: int, batch: PatchBatch) -> tuple[Tensor, Tensor]:
        """Image (B, C, X, Y, Z) and label (B, 1, X, Y, Z) of a batch on the device, with tumours inserted there."""
        device = self.accelerator.device
        image, label = batch.image.to(device, non_blocking=True), batch.label.to(device, non_blocking=True)
        if self.insert is None:
            return image, label
        self.insert.prob = self.schedule(step)
        self.steps, self.latest_step = self.steps + (step != self.latest_step), step
        with self.watch:
            stats = (batch.host_mean, batch.host_std)
            known = {"groups": batch.groups, "host_stats": stats, "frames": batch.frames}
            known["host"] = None if batch.host is None else batch.host.to(device, non_blocking=True)
            *changed, plan = self.insert.recorded(image, label, batch.spacing_mm, **known)
        if self.examples_left:
            self._keep_examples(step, (image, label), changed, plan.to_rows())
        return tuple(changed)

    def begin(self) -> None:
        """Paint what the first batch needs to have, so that no step waits for it.

        Raises:
            ConfigError: no donor has the sizes that were asked for.
        """
        if self.painted is not None:
            try:
                self.painted.follow(self.insert.number)
            except ValueError as error:
                raise ConfigError(f"insertion.painted: {error}") from error

    def _keep_examples(self, step: int, before: Sequence[Tensor], after: Sequence[Tensor], rows: list[dict]) -> None:
        """The first sample of the batch that got a tumour, for the report."""
        done = [row["sample"] for row in rows if row["outcome"] == "done"]
        if done:
            b = done[0]
            images, labels = [x[b] for x in (before[0], after[0])], [x[b, 0] for x in (before[1], after[1])]
            keep_example(self.out, step, *images, *labels, [row for row in rows if row["sample"] == b])
            self.examples_left -= 1

    def follow(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Adapt to the rows of a validation; what was set, for the log."""
        return {} if self.adaptive is None else {"adaptive": self.adaptive.update(rows)}

    def expected(self, samples: int) -> float:
        """Insertions that will be asked for over a run of so many samples, on average."""
        if self.insert is None:
            return 0.0
        return samples * self.schedule.mean(self.total_steps) * (1 + self.options.second)

    def announcement(self, samples: int) -> str:
        """The same in words."""
        if self.insert is None:
            return "insertion is off"
        adapted = ", adapted to validation" if self.adaptive is not None else ""
        return f"about {self.expected(samples):.0f} insertions will be asked for{adapted}{self._painted_words()}"

    def _painted_words(self) -> str:
        painted = self.options.painted
        if painted is None:
            return ""
        words = f"; {painted.count} lesions are painted ahead by {self.options.generator}"
        if painted.refresh is not None:
            return f"{words}, {painted.refresh:g} anew for each patch"
        if painted.budget is not None:
            return f"{words}, and as many anew as keep insertion within {painted.budget:.1%} of the time"
        return words

    def counts(self, seconds_per_step: float) -> dict[str, Any]:
        """Counts since the start, summed over the processes, and the share of the time; nothing where it is off."""
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
        """Seconds of painting in the background, and of waiting for it, since they were counted last."""
        if self.painted is None:
            return 0.0, 0.0
        before, self.counted = self.counted, (self.painted.painting_seconds, self.painted.waited_seconds)
        return self.counted[0] - before[0], self.counted[1] - before[1]

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        state = None if self.insert is None else self.insert.state_dict()
        adaptive = None if self.adaptive is None else self.adaptive.state_dict()
        return {"insert": state, "adaptive": adaptive, "examples_left": self.examples_left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.examples_left = state["examples_left"]
        if self.insert is not None:
            self.insert.load_state_dict(state["insert"])
        if self.adaptive is not None:
            self.adaptive.load_state_dict(state["adaptive"])


def total_of(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of several processes as one; tables of counts are summed name by name."""
    total: dict[str, Any] = {key: sum(report[key] for report in reports) for key in ("samples", "asked", "done")}
    for key in ("refused", "voxels", "sizes"):
        total[key] = _summed([report[key] for report in reports])
    classes = dict.fromkeys(name for report in reports for name in report["lesions"])
    return total | {"lesions": {c: _summed([report["lesions"].get(c, {}) for report in reports]) for c in classes}}


def _summed(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for table in tables for name in table})
    return {name: sum(table.get(name, 0) for table in tables) for name in names}
