"""Checks of a batch's types, shapes and devices, without a look at its values; `Batch` holds what passed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.frames import checked_frames
from synthaug.geometry import triple
from synthaug.insertion.rows import HostStats

FINEST_MM = 0.006
"""Voxels all of whose sides are below it are taken for metres."""

SampleMap = Tensor | Callable[[int], Tensor]
"""Something for each voxel: a map of the batch, or a function from a sample's index to the map of that sample."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A checked batch: image, label and what the caller knows of them.

    Attributes:
        image: (B, C, X, Y, Z) float, a plain tensor that shares memory with what came.
        label: (B, X, Y, Z) integer, likewise.
        spacing_mm: voxel size of each sample.
        groups: patient group of each sample, or None.
        host: where lesions may lie: (B, X, Y, Z), a function of a sample's index, or None to derive it.
        host_stats: mean and standard deviation of host tissue, (B, C) lists, or None to measure them.
        prior: weights of a lesion's centre, (B, X, Y, Z) or a function of a sample's index, or None.
        frames: (3, 4) of each sample, voxel indices to host coordinates (`synthaug.frames`), or None.
    """

    image: Tensor
    label: Tensor
    spacing_mm: list[tuple[float, float, float]]
    groups: list[str | None]
    host: SampleMap | None = None
    host_stats: HostStats | None = None
    prior: SampleMap | None = None
    frames: list[np.ndarray] | None = None

    @classmethod
    def checked(
        cls,
        image: Any,
        label: Any,
        channels: Sequence[str],
        spacing_mm: Any = None,
        *,
        host: Any = None,
        groups: Any = None,
        host_stats: Any = None,
        prior: Any = None,
        frames: Any = None,
    ) -> "Batch":
        """Check a caller's arguments and make a batch of them; `TumorInsertion.plan` says what each argument is.

        Raises:
            TypeError, ValueError: what was expected and what came.
        """
        image, label = checked_tensors(image, label, channels)
        samples = image.shape[0]
        return cls(
            image,
            label,
            checked_spacing(spacing_mm, samples),
            checked_groups(groups, samples),
            checked_map("host", host, image),
            checked_statistics(host_stats, samples, len(channels)),
            checked_map("prior", prior, image),
            checked_frames(frames, samples),
        )

    @property
    def samples(self) -> int:
        """Number of samples B."""
        return self.image.shape[0]

    @property
    def volume_vox(self) -> tuple[int, int, int]:
        """Size (X, Y, Z) of each sample in voxels."""
        return triple(self.image.shape[2:])

    def map_of(self, name: str, sample: int) -> Tensor | None:
        """Return one sample's `host` or `prior`, (X, Y, Z), by a call of a function; None where none was given.

        Raises:
            TypeError, ValueError: a function whose map does not fit the sample, which is named.
        """
        given = getattr(self, name)
        if given is None or isinstance(given, Tensor):
            return None if given is None else given[sample]
        return checked_mask(f"{name} of sample {sample}", given(sample), self.image[sample])

    def stats_of(self, sample: int) -> tuple[list[float], list[float]] | None:
        """Return a sample's mean and standard deviation, (C,) each; None where the caller gave none."""
        return None if self.host_stats is None else (self.host_stats[0][sample], self.host_stats[1][sample])


def plain(tensor: Tensor) -> Tensor:
    """Strip a tensor of its subclass (MetaTensor, tv_tensors); the result shares its memory."""
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def checked_tensors(image: Any, label: Any, channels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Check image and label, and strip them of subclasses and the label of its channel axis; no memory is copied.

    Returns:
        Image (B, C, X, Y, Z) and label (B, X, Y, Z).

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
        raise TypeError(
            f"label: expected an integer dtype, got {label.dtype}; convert it, for example label.long(), unless image "
            "and label were swapped"
        )
    expected = (image.shape[0], 1, *image.shape[2:])
    if tuple(label.shape) not in (expected, (expected[0], *expected[2:])):
        raise ValueError(f"label: expected shape {expected} or without its channel axis, got {tuple(label.shape)}")
    if label.device != image.device:
        raise ValueError(f"label: expected the image's device {image.device}, got {label.device}")
    return image, (label[:, 0] if label.ndim == 5 else label)


def checked_mask(name: str, mask: Any, image: Tensor) -> Tensor:
    """Check a map of a batch or of one sample, and drop its channel axis.

    Args:
        name: what messages call the argument.
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


def checked_map(name: str, given: Any, image: Tensor) -> SampleMap | None:
    """Check an argument that may be a map of the batch, (B, X, Y, Z), a function of a sample's index, or None.

    Raises:
        TypeError: none of these.
        ValueError: a map of another shape or device than the image's.
    """
    if isinstance(given, Tensor):
        return checked_mask(name, given, image)
    if given is not None and not callable(given):
        kind = type(given).__name__
        raise TypeError(f"{name}: expected a torch.Tensor or a function of a sample's index, got {kind}")
    return given


def checked_spacing(spacing_mm: Any, samples: int) -> list[tuple[float, float, float]]:
    """Check voxel sizes (3,) or (B, 3), and spread them over the samples; 1 mm where None.

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
    if values.max() < FINEST_MM:
        raise ValueError(f"spacing_mm: expected mm, got {spacing_mm}: is it metres?")
    return [triple(float(v) for v in row) for row in values]


def checked_groups(groups: Any, samples: int) -> list[str | None]:
    """Check patient groups, one per sample; None for all where none were given.

    Raises:
        TypeError: a bare string, or a tensor, whose numbers no bank has as names.
        ValueError: another number than samples.
    """
    if groups is None:
        return [None] * samples
    if isinstance(groups, str):
        raise TypeError(f"groups: expected one name per sample, got the string {groups!r}")
    if isinstance(groups, Tensor) or any(isinstance(group, Tensor) for group in groups):
        raise TypeError("groups: expected patients' names, one per sample, as the lesions' bank has them, got a tensor")
    named = [None if g is None else str(g) for g in groups]
    if len(named) != samples:
        raise ValueError(f"groups: expected {samples} names, one per sample, got {len(named)}")
    return named


def checked_statistics(host_stats: Any, samples: int, channels: int) -> HostStats | None:
    """Check mean and standard deviation, scalars, (C,) or (B, C), and spread them to (B, C) lists.

    Raises:
        ValueError: not a pair, another shape, values that are not finite, or a standard deviation of 0 or less.
    """
    if host_stats is None:
        return None
    if len(host_stats) != 2:
        raise ValueError(f"host_stats: expected (mean, std), got {len(host_stats)} values")
    mean, std = host_stats
    return _checked_statistic("mean", mean, samples, channels), _checked_statistic("std", std, samples, channels)


def _checked_statistic(name: str, values: Any, samples: int, channels: int) -> list[list[float]]:
    table = torch.as_tensor(values, dtype=torch.float32, device="cpu")
    if tuple(table.shape) not in ((), (channels,), (samples, channels)):
        raise ValueError(f"host_stats {name}: expected {channels} or {samples} x {channels} values, got {values}")
    table = table.expand(samples, channels)
    if not table.isfinite().all() or (name == "std" and not (table > 0).all()):
        raise ValueError(f"host_stats {name}: expected finite values{', above 0' * (name == 'std')}, got {values}")
    return table.tolist()
