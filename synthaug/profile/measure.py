"""The second look, once roles and modalities are known: sizes, places and intensities of lesions and of their hosts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cc3d
import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

from synthaug.classes import Classes
from synthaug.data.cases import Case, CaseError, load_case
from synthaug.data.maps import host_of_case
from synthaug.data.nifti import LabelledVolume
from synthaug.geometry import bounding_box, squared_distance, triple
from synthaug.host.rule import smoothed
from synthaug.host.space import Space
from synthaug.imbalance.measure import Measurements, Measuring
from synthaug.insertion.plan import equivalent_diameter_mm
from synthaug.lesions.cutting import MIN_VOXELS
from synthaug.random import stream

GRID = 12
NEAR_MM, FAR_MM = 2.0, 10.0
"""The surroundings of a lesion: beyond its blurred edge, and not farther than this."""

SAMPLES = 4000
DEEP_VOX = 3


@dataclass(frozen=True)
class LesionPlace:
    """A lesion in its host.

    Attributes:
        case: its name.
        diameter_mm: of the sphere of equal volume.
        extent_vox: of its box.
        place: of its centre in the box around the host, 0 to 1 along right-left, back-front, foot-head.
        inside: share of it in host tissue.
        around: channel to the percentiles 5 and 95 of smoothed intensities in its surroundings, where there are any.
        own: the same, 2.5 and 97.5, of the lesion.
        edge: step across its border, between the two layers of voxels beside it, as a share of its contrast to the
            surroundings, in the channel where that contrast is greatest; None for lesions too small to tell.
    """

    case: str
    diameter_mm: float
    extent_vox: tuple[int, int, int]
    place: tuple[float, float, float]
    inside: float
    around: dict[str, tuple[float, float]]
    own: dict[str, tuple[float, float]]
    edge: float | None


@dataclass
class CaseLook:
    """What the page shows and the plan needs of a case.

    Attributes:
        name: of the case.
        group: of its patient.
        size: in voxels.
        spacing_mm: voxel size.
        lesions: connected ones, of any size.
        host_share: of the volume.
    """

    name: str
    group: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    lesions: int
    host_share: float


@dataclass
class Look:
    """All cases.

    Attributes:
        cases: case by case.
        places: lesion by lesion.
        lesion: channel to raw intensities of lesion voxels, case by case.
        host: channel to raw intensities of host voxels, and the same smoothed; (N, 2) each, case by case.
        around: channel to raw intensities of lesions' surroundings, case by case.
        measured: volumes, sizes and z-scores, for the insertion that is suggested.
        left_out: cases that could not be measured, and why.
    """

    measured: Measurements = field(init=False)
    cases: list[CaseLook] = field(default_factory=list)
    places: list[LesionPlace] = field(default_factory=list)
    lesion: dict[str, list[np.ndarray]] = field(default_factory=dict)
    host: dict[str, list[np.ndarray]] = field(default_factory=dict)
    around: dict[str, list[np.ndarray]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def measure(cases: Iterable[Case], channels: tuple[str, ...], classes: Classes, space: Space, seed: int = 0) -> Look:
    """Measure cases, one in memory at a time; one that cannot be used is named in `left_out`.

    Args:
        cases: labelled.
        channels: canonical names.
        classes: of the lesions.
        space: host rule, as far as it is known, and units.
        seed: of the voxels that are drawn.

    Raises:
        ValueError: no lesion in any of them.
    """
    look, measuring = Look(), Measuring(classes, channels, MIN_VOXELS, seed, space)
    for number, case in enumerate(cases):
        try:
            volume = load_case(case, channels)
            host = host_of_case(case, volume, space, channels, classes)
            measuring.add(case, volume, host)
        except CaseError as error:
            look.left_out.append(str(error))
            continue
        _look_at(look, case, volume, host, classes, channels, stream(seed, 1, number))
    look.measured = measuring.finished()
    return look


def _look_at(
    look: Look,
    case: Case,
    volume: LabelledVolume,
    host: np.ndarray,
    classes: Classes,
    channels,
    rng: np.random.Generator,
) -> None:
    index = classes.index_map(volume.label)
    components, count = cc3d.connected_components(index > 0, connectivity=26, return_N=True)
    size, spacing = volume.image.shape[1:], volume.spacing_mm
    look.cases.append(CaseLook(case.name, case.group, size, spacing, int(count), float(host.mean())))
    mean = {
        name: smoothed(torch.from_numpy(values)).numpy() for name, values in zip(channels, volume.image, strict=True)
    }
    _draw(look, volume.image, mean, index > 0, host, channels, rng)
    around: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in channels}
    box = bounding_box(host, (0, 0, 0)) if host.any() else None
    sizes = np.bincount(components.ravel())
    for number in range(1, count + 1):
        if box is not None and sizes[number] >= MIN_VOXELS:
            mask = components == number
            look.places.append(_place(around, case, volume, mask, index > 0, host, box, mean, channels, rng))
    for name, found in around.items():
        look.around.setdefault(name, []).append(np.concatenate(found))


def _draw(look: Look, image, mean, lesion, host, channels, rng: np.random.Generator) -> None:
    healthy = np.flatnonzero(host & ~lesion)
    ill = np.flatnonzero(lesion)
    healthy, ill = (rng.choice(w, min(SAMPLES, len(w)), replace=False) if len(w) else w for w in (healthy, ill))
    for name, values in zip(channels, image, strict=True):
        look.lesion.setdefault(name, []).append(values.ravel()[ill])
        pair = np.stack([values.ravel()[healthy], mean[name].ravel()[healthy]], 1)
        look.host.setdefault(name, []).append(pair)


def _place(
    shells: dict[str, list], case, volume: LabelledVolume, mask, lesion, host, box, mean, channels, rng
) -> LesionPlace:
    margin = [int(FAR_MM / s) + 1 for s in volume.spacing_mm]
    window = bounding_box(mask, margin)
    own = torch.from_numpy(mask[window])
    distance = squared_distance(own, FAR_MM, volume.spacing_mm)
    shell = ((distance > NEAR_MM**2) & (distance <= FAR_MM**2)).numpy() & host[window] & ~lesion[window]
    around, of_lesion = {}, {}
    for number, name in enumerate(channels):
        values = mean[name][window]
        of_lesion[name] = tuple(np.percentile(values[mask[window]], (2.5, 97.5)).tolist())
        if shell.sum() >= MIN_VOXELS:
            around[name] = tuple(np.percentile(values[shell], (5, 95)).tolist())
            raw = volume.image[number][window][shell]
            shells[name].append(rng.choice(raw, min(SAMPLES, len(raw)), replace=False))
    where = np.nonzero(mask)
    extent = tuple(int(w.max() - w.min() + 1) for w in where)
    center = [(w.mean() - s.start) / max(s.stop - s.start - 1, 1) for w, s in zip(where, box, strict=True)]
    diameter = float(equivalent_diameter_mm(int(mask.sum()), volume.spacing_mm))
    inside = float(host[mask].mean())
    place, edge = (
        to_ras(center, volume.affine),
        _edge(own, torch.from_numpy(host[window] & ~lesion[window]), torch.from_numpy(shell), volume.image[:, *window]),
    )
    return LesionPlace(case.name, diameter, triple(extent), place, inside, around, of_lesion, edge)


def _edge(lesion: torch.Tensor, free: torch.Tensor, around: torch.Tensor, image: np.ndarray) -> float | None:
    depth = squared_distance(~lesion, DEEP_VOX, (1.0, 1.0, 1.0))
    layer, deep = lesion & (depth <= 1), lesion & (depth >= DEEP_VOX**2)
    beyond = free & (squared_distance(lesion, DEEP_VOX, (1.0, 1.0, 1.0)) <= 1)
    if min(mask.sum() for mask in (deep, layer, beyond, around)) < MIN_VOXELS:
        return None
    values = torch.from_numpy(np.ascontiguousarray(image))
    within, outside, inner, outer = (values[:, mask] for mask in (deep, around, layer, beyond))
    contrast = within.mean(1) - outside.mean(1)
    best = int((contrast.abs() / outside.std(1).clamp(min=1e-6)).argmax())
    return float((inner.mean(1) - outer.mean(1))[best] / contrast[best]) if contrast[best] else None


def to_ras(place: Sequence[float], affine: np.ndarray) -> tuple[float, float, float]:
    """Turn a place of the volume's own axes, 0 to 1 each, into one that leads to the right, to the front and up."""
    turned = [0.0, 0.0, 0.0]
    for value, (axis, sign) in zip(place, nib.io_orientation(affine), strict=True):
        turned[int(axis)] = float(np.clip(value if sign > 0 else 1 - value, 0, 1))
    return triple(turned)


def frequency(places: Sequence[LesionPlace], mirrored: bool, grid: int = GRID) -> np.ndarray:
    """(grid, grid, grid) share of lesion centres, smoothed by about a cell, each lesion counting once."""
    counts = np.zeros((grid,) * 3, np.float32)
    for lesion in places:
        cell = tuple(min(int(p * grid), grid - 1) for p in lesion.place)
        counts[cell] += 1
        if mirrored:
            counts[(grid - 1 - cell[0], *cell[1:])] += 1
    kernel = torch.tensor([0.25, 0.5, 0.25])
    values = torch.from_numpy(counts)[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 3
        padding = [int(a == axis) for a in range(3)]
        values = F.conv3d(values, kernel.reshape(shape), padding=padding)
    found = values[0, 0].numpy()
    return found / found.sum()


def alike_on_both_sides(places: Sequence[LesionPlace]) -> bool:
    """Test whether the data do not contradict that lesions lie as often on the left as on the right.

    A lesion counts for a side where it is farther than a tenth of the host's width from the middle.
    """
    right = sum(lesion.place[0] > 0.6 for lesion in places)
    left = sum(lesion.place[0] < 0.4 for lesion in places)
    total = right + left
    # two standard deviations of a fair coin
    return abs(right - left) <= max(1.0, total**0.5) * 2 if total else True
