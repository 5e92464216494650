"""Checks of a batch: its form at once, its values without making an accelerator wait."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.classes import Classes
from synthaug.transfers import Readback, on_device

NOT_FINITE, UNKNOWN_LABEL = 1, 2

HostMask = Tensor | Callable[[int], Tensor]
"""Where lesions may lie: a mask of the batch, or a function from a sample's index to the mask of that sample."""


def plain(tensor: Tensor) -> Tensor:
    """The tensor without its subclass (MetaTensor, tv_tensors), sharing its memory."""
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def checked_batch(image: Any, label: Any, channels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The batch as plain tensors, image (B, C, X, Y, Z) and label (B, X, Y, Z), sharing memory with what came.

    Raises:
        TypeError: not tensors, a list of targets, a dtype that is not floating (image) or integer (label).
        ValueError: wrong number of dimensions or channels, no samples or voxels, shapes or devices that differ.
    """
    if isinstance(label, (list, tuple)):
        raise TypeError(
            f"label: expected one integer tensor (B, 1, X, Y, Z), got a list of {len(label)}: deep-supervision targets "
            "are made from the label after insertion"
        )
    for name, value in (("image", image), ("label", label)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    image, label = plain(image), plain(label)
    if image.ndim != 5:
        raise ValueError(f"image: expected 5 dimensions (B, C, X, Y, Z), got {image.ndim}: {tuple(image.shape)}")
    if not image.is_floating_point():
        raise TypeError(f"image: expected a floating dtype, got {image.dtype}; convert it, for example image.float()")
    if image.shape[1] != len(channels):
        raise ValueError(f"image: expected {len(channels)} channels ({', '.join(channels)}), got {image.shape[1]}")
    if 0 in image.shape:
        raise ValueError(f"image: expected at least one sample and voxel, got {tuple(image.shape)}")
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise TypeError(f"label: expected an integer dtype, got {label.dtype}; convert it, for example label.long()")
    expected = (image.shape[0], 1, *image.shape[2:])
    if tuple(label.shape) not in (expected, (expected[0], *expected[2:])):
        raise ValueError(f"label: expected shape {expected} or without its channel axis, got {tuple(label.shape)}")
    if label.device != image.device:
        raise ValueError(f"label: expected the image's device {image.device}, got {label.device}")
    return image, (label[:, 0] if label.ndim == 5 else label)


def checked_mask(name: str, mask: Any, image: Tensor) -> Tensor:
    """A map for a batch or for one sample of it, without channel axis, on its device.

    Args:
        name: of the argument.
        mask: (B, 1, X, Y, Z) or (B, X, Y, Z); (1, X, Y, Z) or (X, Y, Z) for a sample.
        image: (B, C, X, Y, Z), or (C, X, Y, Z) of a sample.

    Returns:
        (B, X, Y, Z) or (X, Y, Z).

    Raises:
        TypeError: not a tensor.
        ValueError: another shape or device than the image's.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(mask).__name__}")
    batch, volume = image.shape[:-4], image.shape[-3:]
    mask, expected = plain(mask), (*batch, *volume)
    if tuple(mask.shape) not in (expected, (*batch, 1, *volume)):
        raise ValueError(f"{name}: expected shape {expected}, with or without a channel axis, got {tuple(mask.shape)}")
    if mask.device != image.device:
        raise ValueError(f"{name}: expected the image's device {image.device}, got {mask.device}")
    return mask.reshape(expected)


def checked_host(host: Any, image: Tensor) -> HostMask | None:
    """Host tissue as it was given: a mask of the batch, (B, X, Y, Z), a function of a sample's index, or None.

    Raises:
        TypeError: none of these.
        ValueError: a mask of another shape or device than the image's.
    """
    if isinstance(host, Tensor):
        return checked_mask("host", host, image)
    if host is not None and not callable(host):
        raise TypeError(f"host: expected a torch.Tensor or a function of a sample's index, got {type(host).__name__}")
    return host


def host_of(host: HostMask | None, sample: int, image: Tensor) -> Tensor | None:
    """The host mask of one sample, (X, Y, Z), of what `checked_host` gave; None where nothing was given.

    Args:
        host: mask or function; the function is called.
        sample: index in the batch.
        image: (B, C, X, Y, Z).

    Raises:
        TypeError, ValueError: a function whose mask does not fit the sample, which is named.
    """
    if host is None or isinstance(host, Tensor):
        return None if host is None else host[sample]
    return checked_mask(f"host of sample {sample}", host(sample), image[sample])


def checked_spacing(spacing_mm: Any, samples: int) -> list[tuple[float, float, float]]:
    """Voxel sizes per sample from (3,) or (B, 3) values; 1 mm where None.

    Raises:
        ValueError: another length, or a value that is not finite and above 0.
    """
    if spacing_mm is None:
        return [(1.0, 1.0, 1.0)] * samples
    table = torch.as_tensor(spacing_mm, dtype=torch.float64, device="cpu")
    if tuple(table.shape) not in ((3,), (samples, 3)):
        raise ValueError(f"spacing_mm: expected 3 values or {samples} x 3, got shape {tuple(table.shape)}")
    values = table.expand(samples, 3).numpy()
    if not ((values > 0) & (values < float("inf"))).all():
        raise ValueError(f"spacing_mm: expected finite values above 0, got {spacing_mm}")
    return [tuple(float(v) for v in row) for row in values]


def checked_groups(groups: Any, samples: int) -> list[str | None]:
    """Patient groups, one per sample; None where not given.

    Raises:
        TypeError: a bare string.
        ValueError: another number than samples.
    """
    if groups is None:
        return [None] * samples
    if isinstance(groups, str):
        raise TypeError(f"groups: expected one name per sample, got the string {groups!r}")
    named = [None if g is None else str(g) for g in groups]
    if len(named) != samples:
        raise ValueError(f"groups: expected {samples} names, one per sample, got {len(named)}")
    return named


def checked_statistics(host_stats: Any, samples: int, channels: int) -> tuple[list, list] | None:
    """Mean and standard deviation as (B, C) lists from scalars, (C,) or (B, C).

    Raises:
        ValueError: not a pair, another shape, values that are not finite, or a standard deviation of 0 or less.
    """
    if host_stats is None:
        return None
    if len(host_stats) != 2:
        raise ValueError(f"host_stats: expected (mean, std), got {len(host_stats)} values")
    out = []
    for name, values in zip(("mean", "std"), host_stats, strict=True):
        table = torch.as_tensor(values, dtype=torch.float32, device="cpu")
        if tuple(table.shape) not in ((), (channels,), (samples, channels)):
            raise ValueError(f"host_stats {name}: expected {channels} or {samples} x {channels} values, got {values}")
        table = table.expand(samples, channels).numpy()
        if not (abs(table) < float("inf")).all() or (name == "std" and not (table > 0).all()):
            raise ValueError(f"host_stats {name}: expected finite values{', above 0' * (name == 'std')}, got {values}")
        out.append(table.tolist())
    return tuple(out)


def value_faults(image: Tensor, label: Tensor, classes: Classes, ignore_label: int | None) -> Tensor:
    """Per sample (B,) uint8 on the device: 0, or the sum of NOT_FINITE and UNKNOWN_LABEL."""
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


class ValueCheck:
    """Raises for NaN, infinity and unknown labels: at once on the CPU, without waiting on an accelerator.

    There the samples at fault are refused, the verdict is on its way to the host, and the first call that finds it has
    arrived raises the error. Batches that come meanwhile are folded into one verdict on the device, the next to be
    read: it names the first of them that is at fault and its samples, and counts the others.
    """

    def __init__(self, classes: Classes, ignore_label: int | None):
        self.classes, self.ignore_label = classes, ignore_label
        self._batches = 0
        self._folded: Tensor | None = None
        self._reading: Readback | None = None

    def check(self, image: Tensor, label: Tensor) -> Tensor:
        """(B,) bool on the device, which samples may be used.

        Raises:
            ValueError: voxels that are not finite or labels outside the classes, here or in an earlier batch.
        """
        batch, self._batches = self._batches, self._batches + 1
        self.raise_pending()
        faults = value_faults(image, label, self.classes, self.ignore_label)
        verdict = F.pad(F.pad(faults.long(), (1, 0)), (1, 0), value=batch)
        self._folded = verdict if self._folded is None else _folded(self._folded.to(verdict.device), verdict)
        self.raise_pending(batch=batch)
        return faults == 0

    def raise_pending(self, wait: bool = False, batch: int | None = None) -> None:
        """Raise what a batch had wrong, once it is known; each verdict is raised once.

        Args:
            wait: for the device, until it has said so of every batch.
            batch: number of the one that is being checked, which an error about it need not name.

        Raises:
            ValueError: voxels that are not finite, or labels outside the classes.
        """
        while self._reading is not None or self._folded is not None:
            if self._reading is None:
                self._reading, self._folded = Readback(self._folded), None
            if not self._reading.arrived(wait):
                return
            (first, others, *faults), self._reading = self._reading.numpy().tolist(), None
            if any(faults):
                late = "" if first == batch else _lateness(first, others)
                raise ValueError(fault_message(faults, self.classes, self.ignore_label, late))


def _folded(first: Tensor, then: Tensor) -> Tensor:
    """One verdict of two; the first batch at fault stands for both.

    A verdict is (2 + B,) int64: number of its batch, how many later ones are at fault, faults of its samples.
    """
    length = max(len(first), len(then))
    first, then = (F.pad(verdict, (0, length - len(verdict))) for verdict in (first, then))
    at_fault = (first[2:] != 0).any()
    kept = torch.where(at_fault, first, then)
    kept[1] += at_fault & (then[2:] != 0).any()
    return kept


def _lateness(batch: int, others: int) -> str:
    also = f"; later batches at fault: {others}" if others else ""
    return f" (batch {batch}; its samples at fault were left alone{also})"


def fault_message(faults: Sequence[int], classes: Classes, ignore_label: int | None, when: str) -> str:
    """What is wrong with the samples of a batch, in words."""
    parts = []
    not_finite = [i for i, f in enumerate(faults) if f & NOT_FINITE]
    unknown = [i for i, f in enumerate(faults) if f & UNKNOWN_LABEL]
    if not_finite:
        parts.append(f"image: expected finite voxels, got NaN or infinity in samples {not_finite}")
    if unknown:
        also = "" if ignore_label is None else f" and {ignore_label} (ignored)"
        parts.append(
            f"label: expected 0 and the values of {classes}{also}, got others in samples {unknown}; "
            "ignore_label=... admits one more"
        )
    return "; ".join(parts) + when
