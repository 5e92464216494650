"""Training patches: whole volumes kept in memory, and random patches of them with lesions oversampled.

Step n of a `PatchSampler` is a function of (seed, n, rank) alone, so that a training that goes on from step n
sees what it would have seen without the interruption, however many worker processes draw the patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from synthaug.classes import Classes
from synthaug.data.cases import Case, CaseError, load_case, zscore_host
from synthaug.intensity import host_statistics, host_tissue

LESION_VOXELS_KEPT = 10_000
"""Voxels per class and volume, drawn once, on which lesion patches may be centred."""


@dataclass(frozen=True)
class CachedVolume:
    """A labelled case in memory.

    Attributes:
        name: of the case.
        group: patient group.
        image: (C, X, Y, Z) float16 or float32, z-scores; background is 0.
        label: (X, Y, Z) int16, values as stored in the label map.
        spacing_mm: voxel size.
        host_mean: (C,) float32, mean of the tissue outside the lesions, in the image's units.
        host_std: (C,) float32, its standard deviation.
    """

    name: str
    group: str
    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float, float]
    host_mean: np.ndarray
    host_std: np.ndarray


class PatchBatch(NamedTuple):
    """The patches of one step.

    Attributes:
        image: (B, C, X, Y, Z) float32.
        label: (B, 1, X, Y, Z) int16.
        groups: B patient groups.
        spacing_mm: B voxel sizes.
        host_mean: (B, C) float32 of the whole volumes; with `host_std` the `host_stats` of `TumorInsertion`.
        host_std: (B, C) float32.
    """

    image: Tensor
    label: Tensor
    groups: list[str]
    spacing_mm: list[tuple[float, float, float]]
    host_mean: Tensor
    host_std: Tensor


def cache_case(case: Case, channels: Sequence[str], classes: Classes, dtype: str = "float32") -> CachedVolume:
    """Read a case, z-score it over the brain (`zscore_host`), and keep it.

    Args:
        case: with a label.
        channels: in the order wanted.
        classes: vocabulary of the label.
        dtype: of the image, ``"float32"`` or ``"float16"`` (half the memory).

    Raises:
        CaseError: what `load_case` finds; an image that cannot be z-scored; label values outside `classes`.
    """
    volume = load_case(case, channels)
    unknown = sorted({*np.unique(volume.label).tolist()} - {0, *classes.values.values()})
    if unknown:
        raise CaseError(f"{case.name}: {case.label} holds the values {unknown}; expected 0 and those of {classes!r}")
    try:
        image = zscore_host(volume.image)
    except ValueError as error:
        raise CaseError(f"{case.name}: {error}") from error
    tensor = torch.from_numpy(image)
    mean, std = host_statistics(tensor, host_tissue(tensor) & torch.from_numpy(volume.label == 0))
    return CachedVolume(
        case.name, case.group, image.astype(dtype), volume.label, volume.spacing_mm, mean.numpy(), std.numpy()
    )


class PatchSampler(Dataset):
    """Random patches of volumes in memory; item n is the `PatchBatch` of step n of one process.

    A volume is drawn uniformly. With probability `lesion_share` the patch is centred on a voxel of a class drawn
    uniformly from those in the volume (moved inside the volume at its border); else it lies anywhere. A volume
    without lesions always takes the latter way. A volume that is smaller than the patch is padded on both sides,
    each channel with its `background` and the label with 0.

    Args:
        volumes: at least one.
        patch_size: (X, Y, Z) in voxels.
        batch: patches per step and process.
        lesion_share: 0 to 1.
        background: value of each channel outside the body, one or C numbers; 0 in what `cache_case` returns.
        seed: of everything random; the global generators are left alone.
        rank: of this process; ranks draw different patches.

    Raises:
        ValueError: no volume, volumes of differing channels, or a number out of range.
    """

    def __init__(
        self,
        volumes: Sequence[CachedVolume],
        patch_size: Sequence[int],
        batch: int,
        lesion_share: float = 0.5,
        background: float | Sequence[float] = 0.0,
        seed: int = 0,
        rank: int = 0,
    ):
        if not volumes:
            raise ValueError("patches: expected at least one volume, got none")
        if len({len(v.image) for v in volumes}) != 1:
            raise ValueError(f"patches: volumes differ in channels: { {v.name: len(v.image) for v in volumes} }")
        if len(patch_size) != 3 or min(patch_size) < 1 or batch < 1:
            raise ValueError(f"patches: expected three sides and a batch above 0, got {patch_size} and {batch}")
        if not 0 <= lesion_share <= 1 or seed < 0 or rank < 0:
            raise ValueError(
                f"patches: expected lesion_share in [0, 1], seed and rank >= 0, got {lesion_share}, {seed}, {rank}"
            )
        self.patch_size, self.batch, self.lesion_share = tuple(patch_size), batch, lesion_share
        self.seed, self.rank = seed, rank
        outside = np.broadcast_to(np.asarray(background, np.float32), len(volumes[0].image))
        self.volumes = [padded(volume, self.patch_size, outside) for volume in volumes]
        self._lesions = [_lesion_voxels(v.label, np.random.default_rng((seed, i))) for i, v in enumerate(self.volumes)]

    def __getitem__(self, step: int) -> PatchBatch:
        """The patches of one step, the same whenever and wherever it is asked for."""
        picked = [self._sample(np.random.default_rng((self.seed, step, self.rank, b))) for b in range(self.batch)]
        volumes = [volume for volume, _ in picked]
        return PatchBatch(
            image=torch.from_numpy(np.stack([v.image[:, *box] for v, box in picked]).astype(np.float32)),
            label=torch.from_numpy(rearrange([v.label[box] for v, box in picked], "b x y z -> b 1 x y z")),
            groups=[v.group for v in volumes],
            spacing_mm=[v.spacing_mm for v in volumes],
            host_mean=torch.from_numpy(np.stack([v.host_mean for v in volumes])),
            host_std=torch.from_numpy(np.stack([v.host_std for v in volumes])),
        )

    def _sample(self, rng: np.random.Generator) -> tuple[CachedVolume, tuple[slice, slice, slice]]:
        """One volume and the box of a patch in it."""
        number = int(rng.integers(len(self.volumes)))
        volume, classes = self.volumes[number], self._lesions[number]
        last = np.array(volume.label.shape) - self.patch_size
        start = rng.integers(0, last + 1)
        if rng.random() < self.lesion_share and classes:
            voxels = classes[rng.integers(len(classes))]
            center = np.unravel_index(voxels[rng.integers(len(voxels))], volume.label.shape)
            start = np.clip(np.array(center) - np.array(self.patch_size) // 2, 0, last)
        return volume, tuple(slice(int(s), int(s) + p) for s, p in zip(start, self.patch_size, strict=True))


def padded(volume: CachedVolume, size: Sequence[int], background: np.ndarray) -> CachedVolume:
    """The volume, at least as large as `size` along each axis; itself where it is already.

    Args:
        volume: any size.
        size: (X, Y, Z) in voxels.
        background: (C,) values that the added voxels have; their label is 0.
    """
    missing = [max(0, wanted - have) for wanted, have in zip(size, volume.label.shape, strict=True)]
    if not any(missing):
        return volume
    sides = [(n // 2, n - n // 2) for n in missing]
    image = np.stack(
        [np.pad(c, sides, constant_values=value) for c, value in zip(volume.image, background, strict=True)]
    )
    return replace(volume, image=image, label=np.pad(volume.label, sides))


def _lesion_voxels(label: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Flat positions of the voxels of each class in the volume, at most `LESION_VOXELS_KEPT` of them."""
    found = []
    for value in np.unique(label[label > 0]):
        voxels = np.flatnonzero(label == value)
        if len(voxels) > LESION_VOXELS_KEPT:
            voxels = np.sort(rng.choice(voxels, LESION_VOXELS_KEPT, replace=False))
        found.append(voxels)
    return found
