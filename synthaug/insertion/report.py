"""Counts of insertions asked for and done, made without waiting for the device, and a warning when few are done."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.insertion.plan import InsertionPlan, Outcome
from synthaug.sizes import SizeClasses
from synthaug.transfers import Readback

WINDOW_SAMPLES = 100
DIAMETER_BINS = 256
PROCESSES = 256
SIZES = SizeClasses()


class LowInsertionRateWarning(UserWarning):
    """Far fewer insertions were done than were asked for."""


@dataclass(frozen=True)
class Report:
    """Counts of a `TumorInsertion`'s work so far; repetitions of plans are not counted.

    Attributes:
        samples: samples seen.
        asked: insertions asked for.
        done: insertions done.
        refused: reason to number, only reasons that occurred.
        voxels: class name to voxels written.
        diameter_mm: mean, and the 10th, 50th and 90th percentile and extremes (to 1 mm), of the diameters of the
            spheres of equal volume; empty where nothing was inserted.
        sizes: insertions done in each of the default `SizeClasses`.
        lesions: class name to the insertions done that have voxels of it, in each size class of the whole lesion.
    """

    samples: int
    asked: int
    done: int
    refused: dict[str, int]
    voxels: dict[str, int]
    diameter_mm: dict[str, float]
    sizes: dict[str, int] = field(default_factory=dict)
    lesions: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON-able values."""
        return dict(vars(self))

    def __str__(self) -> str:
        share = f" ({self.done / self.asked:.0%})" if self.asked else ""
        lines = [f"{self.samples} samples, {self.asked} insertions asked, {self.done} done{share}"]
        lines += [f"  refused {n}: {reason}" for reason, n in self.refused.items()]
        lines += [f"  {name}: {n} voxels" for name, n in self.voxels.items()]
        if self.diameter_mm:
            lines.append("  diameter mm: " + ", ".join(f"{k} {v:g}" for k, v in self.diameter_mm.items()))
        return "\n".join(lines)


class Audit:
    """Counts the insertions of one `TumorInsertion`; the counters live on the batch's device until they are read.

    Those of the CPU are in memory that loader workers share with the process that started them, a row per process: a
    report tells what all of them did. A deep copy counts for itself.
    """

    def __init__(self, classes: Sequence[str], rows_file: Path | None = None):
        self.classes, self.rows_file = tuple(classes), rows_file
        self._lesions = len(Outcome) + len(self.classes)  # where the columns of lesions per class and size begin
        self._bins = self._lesions + len(self.classes) * len(SIZES)
        self._width = self._bins + DIAMETER_BINS + 1
        self._shared = _shared_zeros(PROCESSES + 1, self._width + 1)  # samples are the last column, the window last row
        self._base = np.zeros(self._width + 1)
        self._on_device: Tensor | None = None
        self._pending: tuple[np.ndarray, Readback] | None = None

    def __deepcopy__(self, memo: dict) -> "Audit":
        copy = Audit(self.classes, self.rows_file)
        copy.load_state_dict(self.state_dict())
        return copy

    @property
    def samples(self) -> int:
        """Samples seen, in all processes."""
        return int(self._base[-1] + self._table()[:-1, -1].sum())

    def saw(self, samples: int) -> None:
        """Add a batch's samples to the samples seen."""
        self._table()[os.getpid() % PROCESSES, -1] += samples

    def count(self, plan: InsertionPlan) -> None:
        """Add a plan's outcomes."""
        if len(plan):
            self._add(plan, self._counters(plan.outcome.device))
            if self.rows_file is not None:
                append_rows(self.rows_file, plan.to_rows())

    def _counters(self, device: torch.device) -> Tensor:
        """Return the counters of `device`."""
        if device.type == "cpu":
            return self._shared[os.getpid() % PROCESSES, :-1]
        if self._on_device is None or self._on_device.device != device:
            if self._on_device is not None:
                self._base[:-1] += self._on_device.cpu().numpy()
            self._on_device = torch.zeros(self._width, dtype=torch.float64, device=device)
        return self._on_device

    def _table(self) -> np.ndarray:
        """View the shared rows as an array of the same memory; the host reads it without tensor operations."""
        return self._shared.numpy()

    def _add(self, plan: InsertionPlan, counts: Tensor) -> None:
        done = plan.outcome == Outcome.DONE
        spacing = torch.tensor([np.prod(i.spacing_mm) for i in plan.insertions], dtype=torch.float32)
        volume = plan.voxels.sum(1) * spacing.to(counts.device, non_blocking=True)
        diameter = (6 / torch.pi * volume).pow(1 / 3)
        bins = self._bins + diameter.long().clamp(max=DIAMETER_BINS - 1)
        size = torch.bucketize(diameter, torch.tensor(SIZES.edges_mm).to(diameter, non_blocking=True), right=True)
        first = torch.arange(self._lesions, self._bins, len(SIZES), device=diameter.device)
        has_class = ((plan.voxels > 0) & done[:, None]).double()
        counts.index_add_(0, plan.outcome, torch.ones_like(plan.outcome, dtype=torch.float64))
        counts[len(Outcome) : self._lesions] += (plan.voxels * done[:, None]).sum(0)
        counts.index_add_(0, (first + size[:, None]).flatten(), has_class.flatten())
        counts.index_add_(0, bins, done.double())
        counts[-1] += (diameter * done).sum()

    def _on_host(self) -> np.ndarray:
        """Sum the counters that can be read without waiting for a device; the samples come last."""
        return self._base + self._table()[:-1].sum(0)

    def _read(self) -> np.ndarray:
        counts = self._on_host()[:-1]
        return counts if self._on_device is None else counts + self._on_device.cpu().numpy()

    def report(self) -> Report:
        """Report all counts since the start; reading makes the host wait for the device."""
        counts = self._read()
        outcomes = {o: int(counts[o]) for o in Outcome}
        histogram, lesions = counts[self._bins : -1], counts[self._lesions : self._bins].reshape(-1, len(SIZES))
        voxels = {name: int(counts[len(Outcome) + k]) for k, name in enumerate(self.classes)}
        return Report(
            samples=self.samples,
            asked=sum(outcomes.values()),
            done=outcomes[Outcome.DONE],
            refused={o.reason: n for o, n in outcomes.items() if n and o is not Outcome.DONE},
            voxels=voxels,
            diameter_mm=_diameters(histogram, counts[-1]),
            sizes=SIZES.counts(np.repeat(np.arange(DIAMETER_BINS), histogram.astype(int))),
            lesions={
                name: dict(zip(SIZES.names, map(int, row), strict=True))
                for name, row in zip(self.classes, lesions, strict=True)
            },
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counters as JSON-able values."""
        return {"samples": self.samples, "counts": self._read().tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the counters that `state_dict` gave.

        Raises:
            ValueError: they are of another number of classes.
        """
        counts = np.array(state["counts"], dtype=np.float64)
        if counts.shape != (self._width,):
            raise ValueError(f"audit state: expected {self._width} counters, got {counts.size}: other classes?")
        self._base = np.append(counts, float(state["samples"]))
        self._table()[:] = 0
        self._table()[-1] = self._base
        self._on_device, self._pending = None, None

    def watch(self) -> None:
        """Warn when fewer than half of the insertions asked for in the last 100 samples were done.

        The counters are read once per 100 samples of all processes, without waiting for the device: a later call sees
        what arrived. One of the processes warns.
        """
        window = self._table()[-1]
        if self._pending is None:
            if self.samples - window[-1] < WINDOW_SAMPLES:
                return
            outcomes = torch.zeros(len(Outcome)) if self._on_device is None else self._on_device[: len(Outcome)]
            self._pending = (self._on_host(), Readback(outcomes))
        if self._pending[1].arrived():
            (total, on_device), self._pending = self._pending, None
            total[: len(Outcome)] += on_device.numpy()
            since = total - window
            window[:] = total
            _warn_if_low(since[: len(Outcome)], int(since[-1]))


def _shared_zeros(*shape: int) -> Tensor:
    counters = torch.zeros(shape, dtype=torch.float64)
    try:
        return counters.share_memory_()
    except RuntimeError:  # no shared memory here; loaders cannot have workers then either
        return counters


def _warn_if_low(since: np.ndarray, seen: int) -> None:
    asked, done = int(since.sum()), int(since[Outcome.DONE])
    if asked == 0 or done >= asked / 2:
        return
    main = max((o for o in Outcome if o is not Outcome.DONE), key=lambda o: since[o])
    warnings.warn(
        f"only {done} of {asked} insertions asked for in the last {seen} samples were done; "
        f"main reason: {main.reason} ({int(since[main])} times)",
        LowInsertionRateWarning,
        stacklevel=4,
    )


def _diameters(histogram: np.ndarray, total: float) -> dict[str, float]:
    count = histogram.sum()
    if not count:
        return {}
    levels = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}
    reached = np.cumsum(histogram)
    centers = {k: float(np.searchsorted(reached, max(q * count, 1e-9))) + 0.5 for k, q in levels.items()}
    return {"mean": round(float(total / count), 2), **centers}


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a JSONL file, all of them in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
