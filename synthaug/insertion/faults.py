"""Checks of a batch's values: errors come at once on the CPU, late and without a wait on an accelerator."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.classes import NO_LESIONS, Classes
from synthaug.transfers import Readback, on_device

NOT_FINITE, UNKNOWN_LABEL = 1, 2

STATISTICS = ("mean", "standard deviation", "lowest intensity")
ROUNDING = 1e-4
"""How far a batch's statistics may be from a plan's, as a share of their size: other devices add in another order."""


class LateFaults:
    """Brings verdicts over batches from the device to the host without waiting, and raises them there.

    One is read at a time. Those that come meanwhile are folded into one on the device, the next to be read: it keeps
    the first of them that is at fault, and counts the others.

    Args:
        words: makes a message of a verdict's facts.
    """

    def __init__(self, words: Callable[[np.ndarray], str]):
        self.words = words
        self._batches = 0
        self._folded: Tensor | None = None
        self._reading: Readback | None = None

    def add(self, at_fault: Tensor, facts: Tensor) -> None:
        """Add the verdict over a batch.

        Args:
            at_fault: () bool, whether anything is wrong.
            facts: (N,) numbers for `words`; a shorter row is filled up with zeros.

        Raises:
            ValueError: the batch is at fault, and the host knows it already.
        """
        batch, self._batches = self._batches, self._batches + 1
        number = torch.full((1,), batch, dtype=torch.float64, device=facts.device)  # head[0] = batch would wait on CUDA
        none_later = torch.zeros_like(number)
        verdict = torch.cat([number, none_later, at_fault.double().reshape(1), facts.double()])
        self._folded = verdict if self._folded is None else _folded(self._folded.to(verdict.device), verdict)
        self.raise_pending(batch=batch)

    def raise_pending(self, wait: bool = False, batch: int | None = None) -> None:
        """Raise what a batch had wrong, once it is known; each verdict is raised once.

        Args:
            wait: whether to wait for the device's verdicts over all batches.
            batch: number of the one that is being checked, which an error about it need not name.

        Raises:
            ValueError: a batch was at fault.
        """
        while True:
            if self._reading is None and self._folded is not None:
                self._reading, self._folded = Readback(self._folded), None
            if self._reading is None or not self._reading.arrived(wait):
                return
            verdict, self._reading = self._reading.numpy(), None
            first, others, at_fault = (int(number) for number in verdict[:3])
            if at_fault:
                raise ValueError(self.words(verdict[3:]) + ("" if first == batch else _lateness(first, others)))


def _folded(first: Tensor, then: Tensor) -> Tensor:
    """Fold two verdicts into one; the first batch at fault stands for both.

    A verdict is (3 + N,) float64: number of its batch, how many later ones are at fault, whether it is, its facts.
    """
    length = max(len(first), len(then))
    first, then = (F.pad(verdict, (0, length - len(verdict))) for verdict in (first, then))
    at_fault = first[2] != 0
    kept = torch.where(at_fault, first, then)
    kept[1] += at_fault & (then[2] != 0)
    return kept


def _lateness(batch: int, others: int) -> str:
    also = f"; later batches at fault: {others}" if others else ""
    return f" (batch {batch}; its samples at fault were left alone{also})"


class ValueCheck:
    """Raises for NaN, infinity and unknown labels; an accelerator's samples at fault are refused until it can.

    Args:
        classes: vocabulary of the labels.
        ignore_label: a value outside of it that may occur, or None.

    Raises:
        ValueError: the ignored value is one of the vocabulary.
    """

    def __init__(self, classes: Classes, ignore_label: int | None):
        if ignore_label is not None and ignore_label in (0, *classes.values.values()):
            raise ValueError(f"ignore_label: expected a value that is neither 0 nor of {classes}, got {ignore_label}")
        self.classes, self.ignore_label = classes, ignore_label
        self.late = LateFaults(self._words)

    def check(self, image: Tensor, label: Tensor) -> Tensor:
        """Tell which samples may be used, (B,) bool on the device.

        Raises:
            ValueError: voxels that are not finite or labels outside the classes, here or in an earlier batch.
        """
        self.late.raise_pending()
        faults = value_faults(image, label, self.classes, self.ignore_label)
        self.late.add((faults != 0).any(), faults)
        return faults == 0

    def _words(self, faults: np.ndarray) -> str:
        return fault_message(faults.astype(int).tolist(), self.classes, self.ignore_label)


class PlanCheck:
    """Raises where the host tissue of a batch is not that of the batch which a plan was made for.

    Args:
        channels: names, for the message.
    """

    def __init__(self, channels: Sequence[str]):
        self.channels = tuple(channels)
        self.late = LateFaults(self._words)

    def check(self, expected: Tensor, found: Tensor, changed: Tensor) -> Tensor:
        """Tell which samples are those that the plan was made for.

        Args:
            expected: (B, 3, C) mean, standard deviation and lowest intensity of host tissue, of the plan.
            found: (B, 3, C), of the batch.
            changed: (B,) bool, samples that get a lesion; the others are as good as any.

        Returns:
            (B,) bool on the device.

        Raises:
            ValueError: they differ by more than rounding does, here or in an earlier batch.
        """
        self.late.raise_pending()
        rounding = ROUNDING * (expected.abs() + expected[:, 1:2])
        rounding = torch.where(expected.isfinite(), rounding, 0.0)  # a sample without tissue has no lowest intensity
        alike = (expected == found) | ((expected - found).abs() <= rounding) | ~changed[:, None, None]
        facts = torch.stack([~alike, expected, found], -1)
        self.late.add(~alike.all(), facts.flatten())
        return alike.flatten(1).all(1)

    def _words(self, facts: np.ndarray) -> str:
        table = facts.reshape(-1, len(STATISTICS), len(self.channels), 3)
        parts = [
            f"sample {b}, {self.channels[c]}: expected {STATISTICS[s]} {table[b, s, c, 1]:g}, got {table[b, s, c, 2]:g}"
            for b, s, c in np.argwhere(table[..., 0] != 0)
        ]
        more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
        return f"plan: made for a batch of other host tissue: {'; '.join(parts[:3])}{more}"


def value_faults(image: Tensor, label: Tensor, classes: Classes, ignore_label: int | None) -> Tensor:
    """Find the faults of each sample, (B,) uint8 on the device: 0, or the sum of NOT_FINITE and UNKNOWN_LABEL."""
    return torch.stack([_faults(i, lab, classes, ignore_label) for i, lab in zip(image, label, strict=True)])


def _faults(image: Tensor, label: Tensor, classes: Classes, ignore_label: int | None) -> Tensor:
    low, high = image.aminmax()
    finite = low.isfinite() & high.isfinite()
    allowed = {0, *classes.values.values()} | ({ignore_label} if ignore_label is not None else set())
    smallest, largest = label.aminmax()
    known = (smallest >= min(allowed)) & (largest <= max(allowed))
    gaps = [v for v in range(min(allowed), max(allowed)) if v not in allowed]
    if len(gaps) > 8:
        known = known & torch.isin(label, on_device(sorted(allowed), label.device)).all()
    else:
        for value in gaps:
            known = known & (label != value).all()
    return (~finite).to(torch.uint8) * NOT_FINITE + (~known).to(torch.uint8) * UNKNOWN_LABEL


def fault_message(faults: Sequence[int], classes: Classes, ignore_label: int | None) -> str:
    """Say in words what is wrong with a batch's samples."""
    parts = []
    not_finite = [i for i, f in enumerate(faults) if f & NOT_FINITE]
    unknown = [i for i, f in enumerate(faults) if f & UNKNOWN_LABEL]
    if not_finite:
        parts.append(f"image: expected finite voxels, got NaN or infinity in samples {not_finite}")
    if unknown:
        also = "" if ignore_label is None else f" and {ignore_label} (ignored)"
        parts.append(
            f"label: expected 0 and the values of {classes}{also}, got others in samples {unknown}; ignore_label=... "
            f"admits one more, which lesions keep away from; {NO_LESIONS}"
        )
    return "; ".join(parts)
