"""Training patches: whole volumes kept in memory, and random patches of them with lesions oversampled.

A patch is a function of the seed and of its number in the training alone, so that a training that goes on from
step n sees what it would have seen without the interruption, however many worker processes draw the patches; and two
processes see, together, what one process with the doubled batch sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from synthaug.classes import Classes
from synthaug.data.cases import Case, CaseError, load_case
from synthaug.data.maps import host_of_case
from synthaug.data.resampling import resample_image, resample_label
from synthaug.frames import changed, cropped, host_frame
from synthaug.geometry import overlap, triple
from synthaug.host import HostSample
from synthaug.host.space import Space
from synthaug.random import Purpose, stream
from synthaug.training.carvemix import CarvedLesions

LESION_VOXELS_KEPT = 10_000
"""Voxels per class and volume, drawn once, on which lesion patches may be centred."""


@dataclass(frozen=True)
class CachedVolume:
    """A labelled case in memory.

    Attributes:
        name: name of the case.
        group: patient group.
        image: (C, X, Y, Z) float16 or float32, z-scores; background is 0.
        label: (X, Y, Z) int16, values as stored in the label map.
        spacing_mm: voxel size.
        host_mean: (C,) float32, mean of the tissue outside the lesions, in the image's units.
        host_std: (C,) float32, its standard deviation.
        frame: (3, 4) float64, voxel indices to host coordinates (`synthaug.frames`).
        host: (X, Y, Z) bool, host tissue by a profile's rule, or None where it is found in each patch.
        outside: (C,) float32, what stands for outside, or None where that is 0.
    """

    name: str
    group: str
    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float, float]
    host_mean: np.ndarray
    host_std: np.ndarray
    frame: np.ndarray
    host: np.ndarray | None = None
    outside: np.ndarray | None = None


class PatchBatch(NamedTuple):
    """The patches of one step.

    Attributes:
        image: (B, C, X, Y, Z) float32.
        label: (B, 1, X, Y, Z) int16.
        groups: B patient groups.
        spacing_mm: B voxel sizes.
        host_mean: (B, C) float32 of the whole volumes; with `host_std` the `host_stats` of `TumorInsertion`.
        host_std: (B, C) float32.
        frames: (B, 3, 4) float64, voxel indices to host coordinates, which follow the spatial augmentation.
        seeds: of the samples, for the change of their intensities.
        host: (B, 1, X, Y, Z) bool, host tissue by a profile's rule, or None.
    """

    image: Tensor
    label: Tensor
    groups: list[str]
    spacing_mm: list[tuple[float, float, float]]
    host_mean: Tensor
    host_std: Tensor
    frames: Tensor
    seeds: list[int]
    host: Tensor | None = None


class PatchAugmentation(Protocol):
    """Protocol of spatial augmentations of patches: `synthaug.segmentation.augmentation.SpatialAugmentation`."""

    def region_size(self, seed: int) -> tuple[int, int, int]:
        """Tell the size of the region that a sample's patch is made from."""

    def __call__(self, image: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
        """Make image and label of the patch, and the map (3, 4) of its voxel indices to those of the region."""


def cache_case(
    case: Case,
    channels: Sequence[str],
    classes: Classes,
    dtype: str = "float32",
    spacing_mm: Sequence[float] | None = None,
    tumour_free: bool = False,
    space: Space | None = None,
) -> CachedVolume:
    """Read a case, tell it in model intensities (`Space.network_image`), resample it where asked to, and keep it.

    Args:
        case: case with a label, unless it is tumour-free.
        channels: channel names in the order wanted.
        classes: vocabulary of the label.
        dtype: ``"float32"`` or ``"float16"`` (half the memory), of the image.
        spacing_mm: voxel size to resample to (`synthaug.data.resampling`); the case's own where not given.
        tumour_free: the case is declared to have no lesion; where it has no label map, it gets one of zeros.
        space: host rule and units of a profile; those of skull-stripped images where not given.

    Raises:
        CaseError: what `load_case` finds; an image that cannot be z-scored; label values outside `classes`.
    """
    volume = load_case(case, channels, require_label=not tumour_free)
    label = np.zeros(volume.image.shape[1:], np.int16) if volume.label is None else volume.label
    space, host = space or Space(), None
    if space != Space():
        host = host_of_case(case, replace(volume, label=label), space, channels, classes)
        label = space.rule.lesions_of(label)
    if problem := classes.strange_values(label):
        raise CaseError(f"{case.name}: {case.label}: {problem}")
    try:
        image, outside = space.network_image(volume.image, channels, volume.spacing_mm)
    except ValueError as error:
        raise CaseError(f"{case.name}: {error}") from error
    spacing, affine = volume.spacing_mm, volume.affine
    if spacing_mm is not None:
        image, affine = resample_image(image, volume.affine, spacing_mm, masked=host is None)
        label = resample_label(label, volume.affine, affine, image.shape[1:])
        if host is not None:
            host = resample_label(host.astype(np.int16), volume.affine, affine, image.shape[1:]) > 0
        spacing = triple(float(s) for s in spacing_mm)
    known = None if host is None else torch.from_numpy(host)
    # in fixed units the image is in model intensities already
    fixed = [None if scale is None else (0.0, 1.0) for scale in space.units.statistics(channels) or [None] * len(image)]
    sample = HostSample.of(torch.from_numpy(image), torch.from_numpy(label), known, fixed=fixed if any(fixed) else None)
    return CachedVolume(
        *(case.name, case.group, image.astype(dtype), label, spacing, sample.mean.numpy(), sample.std.numpy()),
        host_frame(sample.tissue.numpy(), affine),
        *((None, None) if host is None else (host, outside)),
    )


class PatchSampler(Dataset):
    """Random patches of volumes in memory; item n is the `PatchBatch` of batch n of one process.

    A volume is drawn uniformly. With probability `lesion_share` the patch is centred on a voxel of a class drawn
    uniformly from those in the volume (moved inside the volume at its border); else it lies anywhere. A volume
    without lesions always takes the latter way. With `class_balanced`, which oversamples volumes with rare classes, a
    patch on a lesion is of a class drawn uniformly from those in any volume, and of a volume drawn by how many of the
    class's voxels it has. A volume that is smaller than the patch is padded on both sides,
    each channel with its `background` and the label with 0.

    Args:
        volumes: at least one.
        patch_size: (X, Y, Z) in voxels.
        batch: patches per batch and process.
        lesion_share: 0 to 1.
        background: value of each channel outside the body, one or C numbers; 0 in what `cache_case` returns.
        seed: seed of everything random; the global generators are left alone.
        rank: number of this process; ranks draw different patches.
        processes: number of processes.
        augment: changes the shapes in each patch.
        carved: mixes lesions of other patients into patches before that, or None.
        free: volumes without lesions, beside the others.
        free_share: share of the patches that are of these, 0 to 1.
        class_balanced: draw patches on lesions by class, not by volume.

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
        processes: int = 1,
        augment: PatchAugmentation | None = None,
        carved: CarvedLesions | None = None,
        free: Sequence[CachedVolume] = (),
        free_share: float = 0.0,
        class_balanced: bool = False,
    ):
        if not volumes:
            raise ValueError("patches: expected at least one volume, got none")
        every = [*volumes, *free]
        if len({len(v.image) for v in every}) != 1:
            raise ValueError(f"patches: volumes differ in channels: { {v.name: len(v.image) for v in every} }")
        if wrong := [v.name for v in free if np.any(v.label > 0)]:
            raise ValueError(f"patches: expected tumour-free volumes, got labels in {', '.join(wrong)}")
        if len(patch_size) != 3 or min(patch_size) < 1 or batch < 1:
            raise ValueError(f"patches: expected three sides and a batch above 0, got {patch_size} and {batch}")
        if not 0 <= lesion_share <= 1 or not 0 <= free_share <= 1 or seed < 0 or not 0 <= rank < processes:
            raise ValueError(
                "patches: expected lesion_share and free_share in [0, 1], seed >= 0 and rank below processes, "
                f"got {lesion_share}, {free_share}, {seed}, {rank} of {processes}"
            )
        self.patch_size, self.batch, self.lesion_share = triple(patch_size), batch, lesion_share
        self.seed, self.rank, self.processes, self.augment, self.carved = seed, rank, processes, augment, carved
        self._outside = np.broadcast_to(np.asarray(background, np.float32), len(volumes[0].image))
        self.volumes = [padded(volume, self.patch_size, self._beyond(volume)) for volume in volumes]
        self.free, self.free_share = [padded(v, self.patch_size, self._beyond(v)) for v in free], free_share
        self._lesions = [_lesion_voxels(v.label, stream(seed, i)) for i, v in enumerate(self.volumes)]
        self._shares = _class_shares([v.label for v in self.volumes]) if class_balanced else {}

    def _beyond(self, volume: CachedVolume) -> np.ndarray:
        return self._outside if volume.outside is None else volume.outside

    def __getitem__(self, number: int) -> PatchBatch:
        """Draw the patches of one batch, the same whenever and wherever it is asked for."""
        first = (number * self.processes + self.rank) * self.batch
        samples = [self._sample(first + i) for i in range(self.batch)]
        volumes, images, labels, frames, seeds, hosts = zip(*samples, strict=True)
        return PatchBatch(
            image=torch.stack(images),
            label=rearrange(list(labels), "b x y z -> b 1 x y z"),
            groups=[v.group for v in volumes],
            spacing_mm=[v.spacing_mm for v in volumes],
            host_mean=torch.from_numpy(np.stack([v.host_mean for v in volumes])),
            host_std=torch.from_numpy(np.stack([v.host_std for v in volumes])),
            frames=torch.from_numpy(np.stack(frames)),
            seeds=list(seeds),
            host=None if any(h is None for h in hosts) else rearrange(list(hosts), "b x y z -> b 1 x y z"),
        )

    def _sample(self, number: int) -> tuple[CachedVolume, Tensor, Tensor, np.ndarray, int, Tensor | None]:
        """Draw a sample: volume, image, label, frame, seed and, by a profile's rule, host tissue."""
        rng = stream(self.seed, number)
        volume, start = self._place(rng)
        seed = int(rng.integers(2**31))
        size = self.patch_size if self.augment is None else self.augment.region_size(seed)
        start = start - (np.array(size) - self.patch_size) // 2
        beyond = self._beyond(volume)
        cut = np.stack([_cut(c, start, size, v) for c, v in zip(volume.image, beyond, strict=True)])
        cut_label = np.array(_cut(volume.label, start, size, 0))
        if self.carved is not None:
            own = stream(self.seed, number, Purpose.CARVE)
            cut, cut_label = self.carved.mixed(volume, start, cut, cut_label, own)
        image, label = torch.from_numpy(cut.astype(np.float32)), torch.from_numpy(cut_label)
        frame, host = cropped(volume.frame, start), None
        if volume.host is not None:
            # the mask goes with the label, as its lowest bit, so that both are turned alike
            label = 2 * label + torch.from_numpy(_cut(volume.host, start, size, False).astype(np.int16))
        if self.augment is not None:
            # what turns patches fills with 0 what it has no voxels for
            shift = torch.from_numpy(np.array(beyond, np.float32))[:, None, None, None]
            image, label, matrix = self.augment(image - shift if shift.any() else image, label, seed)
            image, frame = image + shift if shift.any() else image, changed(frame, matrix)
        if volume.host is not None:
            label, host = label // 2, label % 2 == 1
        return volume, image, label, frame, seed, host

    def _place(self, rng: np.random.Generator) -> tuple[CachedVolume, np.ndarray]:
        """Draw a volume and the first voxel of a patch in it."""
        if self.free and rng.random() < self.free_share:
            volume = self.free[int(rng.integers(len(self.free)))]
            return volume, rng.integers(0, np.array(volume.label.shape) - np.array(self.patch_size) + 1)
        number = int(rng.integers(len(self.volumes)))
        volume, classes = self.volumes[number], self._lesions[number]
        last = np.subtract(volume.label.shape, self.patch_size)
        start = rng.integers(0, last + 1)
        if rng.random() < self.lesion_share and (self._shares or classes):
            if self._shares:
                wanted = list(self._shares)[rng.integers(len(self._shares))]
                number = int(rng.choice(len(self.volumes), p=self._shares[wanted]))
                volume, voxels = self.volumes[number], self._lesions[number][wanted]
                last = np.subtract(volume.label.shape, self.patch_size)
            else:
                voxels = list(classes.values())[rng.integers(len(classes))]
            center = np.unravel_index(voxels[rng.integers(len(voxels))], volume.label.shape)
            start = np.clip(np.array(center) - np.array(self.patch_size) // 2, 0, last)
        return volume, start


def _cut(voxels: np.ndarray, start: np.ndarray, size: Sequence[int], outside: float) -> np.ndarray:
    """Cut the box of `size` from `start` on, which may reach beyond the voxels."""
    source, target = overlap(start.tolist(), size, voxels.shape)
    inside = voxels[source]
    if inside.shape == tuple(size):
        return inside
    box = np.full(tuple(size), outside, voxels.dtype)
    box[target] = inside
    return box


def padded(volume: CachedVolume, size: Sequence[int], background: np.ndarray) -> CachedVolume:
    """Pad a volume to at least `size` along each axis; itself where it is as large already.

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
    frame = cropped(volume.frame, [-before for before, _ in sides])
    host = None if volume.host is None else np.pad(volume.host, sides)
    return replace(volume, image=image, label=np.pad(volume.label, sides), frame=frame, host=host)


def _lesion_voxels(label: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """List flat positions of the voxels of each value in the volume, at most `LESION_VOXELS_KEPT` of them."""
    found = {}
    for value in np.unique(label[label > 0]):
        voxels = np.flatnonzero(label == value)
        if len(voxels) > LESION_VOXELS_KEPT:
            voxels = np.sort(rng.choice(voxels, LESION_VOXELS_KEPT, replace=False))
        found[int(value)] = voxels
    return found


def _class_shares(labels: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Tell how the voxels of each value are shared out among the volumes: (V,) shares that sum to 1."""
    counts = [np.bincount(label[label > 0]) for label in labels]
    table = np.stack([np.pad(c, (0, max(map(len, counts)) - len(c))) for c in counts], 1)
    return {value: row / row.sum() for value, row in enumerate(table) if row.any()}
