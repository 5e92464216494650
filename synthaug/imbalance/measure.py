"""Measurements of a data set: voxels, lesions and sizes per class, case by case, and samples of their intensities."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cc3d
import numpy as np
import torch

from synthaug.channels import canonical_channels
from synthaug.checks import in_short
from synthaug.classes import Classes, get_classes
from synthaug.data import Case, CaseError, load_case
from synthaug.data.dataset import ClassesGiven, find_dataset
from synthaug.data.maps import host_of_case
from synthaug.data.nifti import LabelledVolume
from synthaug.host import HostSample
from synthaug.host.rule import HostRule
from synthaug.host.space import Space
from synthaug.insertion.plan import equivalent_diameter_mm
from synthaug.lesions.cutting import MIN_VOXELS
from synthaug.progress import shown
from synthaug.random import stream

HOST = "host"
"""Name of healthy tissue where it stands beside the classes."""

VOXELS_PER_CASE = 3000
"""Intensities that are drawn from each class of each case, so that no large tumour speaks for all."""


@dataclass(frozen=True)
class MeasuredLesion:
    """A connected part (26 neighbours) of the tumour, or of one class of it.

    Attributes:
        case: case that it is in.
        group: patient of the case.
        voxels: number of voxels.
        ml: volume in millilitres.
        diameter_mm: diameter of the sphere of that volume.
        parts_ml: volume of each class in a whole lesion, in their order; empty for a part of one class.
    """

    case: str
    group: str
    voxels: int
    ml: float
    diameter_mm: float
    parts_ml: tuple[float, ...] = ()


@dataclass
class Measurements:
    """Voxels, lesions, sizes and intensities of a folder of cases.

    Attributes:
        classes: the vocabulary.
        channels: canonical names.
        min_voxels: smaller components are specks, which are counted and not measured.
        host_known: whether host tissue follows from a profile's rule.
        cases: names of the cases that were read, with their patients.
        left_out: messages about cases that could not be used.
        ml: (cases, classes) volume of each class in each case.
        voxels: (classes,) voxels in all cases.
        host_ml: (cases,) healthy tissue.
        voxel_mm3: (cases,) volume of a voxel.
        lesions: whole lesions, all classes together.
        parts: lesions of each single class.
        specks: components below `min_voxels`: ``"all"`` of whole lesions, and of each class.
        samples: z-scores of host tissue (N, C) per case, in a list for each class and for `HOST`.
    """

    classes: Classes
    channels: tuple[str, ...]
    min_voxels: int
    host_known: bool = False
    cases: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    ml: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    voxels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    host_ml: np.ndarray = field(default_factory=lambda: np.zeros(0))
    voxel_mm3: np.ndarray = field(default_factory=lambda: np.zeros(0))
    lesions: list[MeasuredLesion] = field(default_factory=list)
    parts: dict[str, list[MeasuredLesion]] = field(default_factory=dict)
    specks: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @property
    def intensities(self) -> dict[str, np.ndarray]:
        """Samples (N, C) of each class and of `HOST`, those of all cases together."""
        return {name: np.concatenate(cases) for name, cases in self.samples.items()}

    @property
    def shares(self) -> dict[str, float]:
        """Share of each class in the tumour volume of all cases."""
        total = self.ml.sum()
        return {name: float(self.ml[:, k].sum() / total) for k, name in enumerate(self.classes.names)}

    @property
    def present(self) -> tuple[str, ...]:
        """Classes that occur, most frequent first."""
        return tuple(sorted((n for n, s in self.shares.items() if s > 0), key=lambda n: -self.shares[n]))

    @property
    def ratio(self) -> float:
        """Volume of the most frequent class over that of the rarest that occurs; 1 for a single class."""
        return self.shares[self.present[0]] / self.shares[self.present[-1]]

    @property
    def cases_with(self) -> dict[str, int]:
        """Cases in which each class occurs."""
        return {name: int((self.ml[:, k] > 0).sum()) for k, name in enumerate(self.classes.names)}

    @property
    def host_ratio(self) -> float:
        """Healthy tissue over tumour."""
        return float(self.host_ml.sum() / self.ml.sum())


def measure_folder(
    folder: str | os.PathLike,
    classes: ClassesGiven = None,
    channels: Sequence[str] | None = None,
    layout: str = "auto",
    min_voxels: int = MIN_VOXELS,
    seed: int = 0,
    space: Space | None = None,
) -> Measurements:
    """Measure all labelled cases of a folder; classes and channels are what it says of them where not given.

    See `synthaug.data.find_cases` for the layouts and `synthaug.data.dataset` for what a folder says.

    Raises:
        ValueError: no case in the folder, no tumour in any that could be read, or classes that it does not tell.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synthaug.data import write_phantom_dataset
        >>> with TemporaryDirectory() as folder:
        ...     _ = write_phantom_dataset(folder, 2, size=(48, 48, 48))
        ...     measured = measure_folder(folder)
        >>> len(measured.cases), measured.ml.shape, measured.present
        (2, (2, 3), ('ED', 'ET', 'NCR'))
    """
    data = find_dataset(folder, classes, channels, layout)
    cases = [case for case in data.cases if case.label is not None]
    return measure_cases(cases, data.classes, data.channels, min_voxels, seed, space)


def measure_cases(
    cases: Iterable[Case],
    classes: Classes | str | Mapping[str, int],
    channels: Sequence[str],
    min_voxels: int = MIN_VOXELS,
    seed: int = 0,
    space: Space | None = None,
) -> Measurements:
    """Measure these cases, one in memory at a time; one that cannot be used is named in `left_out`.

    Args:
        cases: labelled.
        classes: vocabulary of their labels.
        channels: channels whose intensities are compared.
        min_voxels: smaller components are specks.
        seed: seed of the voxels that are drawn.
        space: host rule and units; those of skull-stripped images where not given.

    Raises:
        ValueError: no tumour in any case that could be read.
    """
    measuring = Measuring(get_classes(classes), canonical_channels(channels), min_voxels, seed, space)
    for case in shown(cases, "imbalance", "case"):
        try:
            volume = load_case(case, measuring.measured.channels)
            measuring.add(case, volume)
        except CaseError as error:
            measuring.measured.left_out.append(str(error))
    return measuring.finished()


class Measuring:
    """Measures cases one after the other.

    Args:
        classes: vocabulary of their labels.
        channels: canonical names, whose intensities are compared.
        min_voxels: smaller components are specks.
        seed: of the voxels that are drawn.
        space: host rule and units; those of skull-stripped images where not given.
    """

    def __init__(
        self, classes: Classes, channels: tuple[str, ...], min_voxels: int, seed: int, space: Space | None = None
    ):
        self.seed, self.space = seed, space or Space()
        self.measured = Measurements(classes, channels, min_voxels, host_known=self.space != Space())
        self.rows: list[dict[str, Any]] = []
        self.number = 0

    def add(self, case: Case, volume: LabelledVolume, host: np.ndarray | None = None) -> None:
        """Measure a case.

        Args:
            case: which.
            volume: of the channels.
            host: (X, Y, Z) bool, its host tissue where that is known already.

        Raises:
            CaseError: label values that the classes do not have, or a mask of the host rule that cannot be used.
        """
        measured, rule = self.measured, self.space.rule
        rng, self.number = stream(self.seed, self.number), self.number + 1
        if host is None and rule != HostRule():
            host = host_of_case(case, volume, self.space, measured.channels, measured.classes)
        volume = replace(volume, label=rule.lesions_of(volume.label))
        if problem := measured.classes.strange_values(volume.label):
            raise CaseError(f"{case.name}: {problem}")
        measured.cases[case.name] = case.group
        fixed = self.space.units.statistics(measured.channels)
        self.rows.append(_measure(measured, case, volume, rng, host, fixed))

    def finished(self) -> Measurements:
        """All cases together.

        Raises:
            ValueError: no tumour in any of them.
        """
        measured, rows = self.measured, self.rows
        if not any(row["ml"].any() for row in rows):
            reasons = in_short(measured.left_out) or f"{len(rows)} labelled cases, none with a label other than 0"
            raise ValueError(f"imbalance: expected at least one case with a tumour, got none ({reasons})")
        for name in ("ml", "host_ml", "voxel_mm3"):
            setattr(measured, name, np.array([row[name] for row in rows]))
        measured.voxels = np.sum([row["voxels"] for row in rows], axis=0)
        return measured


def _measure(
    measured: Measurements,
    case: Case,
    volume: LabelledVolume,
    rng: np.random.Generator,
    host: np.ndarray | None,
    fixed: Sequence[tuple[float, float] | None] | None,
) -> dict[str, Any]:
    voxel_mm3 = float(np.prod(volume.spacing_mm))
    index = measured.classes.index_map(volume.label)
    voxels = np.bincount(index.ravel(), minlength=len(measured.classes) + 1)[1:]
    whole, specks = _components(index, index, case, volume.spacing_mm, measured)
    measured.lesions += whole
    measured.specks["all"] = measured.specks.get("all", 0) + specks
    for k, name in enumerate(measured.classes.names):
        found, specks = _components(index == k + 1, None, case, volume.spacing_mm, measured)
        measured.parts.setdefault(name, []).extend(found)
        measured.specks[name] = measured.specks.get(name, 0) + specks
    tissue = _draw_intensities(measured, volume.image, index, rng, host, fixed)
    return {
        "ml": voxels * voxel_mm3 / 1000,
        "voxels": voxels,
        "host_ml": tissue * voxel_mm3 / 1000,
        "voxel_mm3": voxel_mm3,
    }


def _components(
    mask: np.ndarray, index: np.ndarray | None, case: Case, spacing_mm: Sequence[float], measured: Measurements
) -> tuple[list[MeasuredLesion], int]:
    """Find the lesions in a mask, largest first, and count the components that are too small."""
    labels = cc3d.connected_components(mask > 0, connectivity=26)
    sizes = np.bincount(labels.ravel())[1:]
    millilitre, found = float(np.prod(spacing_mm)) / 1000, []
    parts = np.zeros((len(sizes), len(measured.classes)))
    if index is not None and len(sizes):
        inside = labels > 0
        np.add.at(parts, (labels[inside] - 1, index[inside] - 1), millilitre)
    for i in np.argsort(-sizes, kind="stable"):
        if sizes[i] >= measured.min_voxels:
            n, diameter = int(sizes[i]), float(equivalent_diameter_mm(int(sizes[i]), spacing_mm))
            own = () if index is None else tuple(parts[i].tolist())
            found.append(MeasuredLesion(case.name, case.group, n, n * millilitre, diameter, own))
    return found, int((sizes < measured.min_voxels).sum())


def _draw_intensities(
    measured: Measurements,
    image: np.ndarray,
    index: np.ndarray,
    rng: np.random.Generator,
    given: np.ndarray | None,
    fixed: Sequence[tuple[float, float] | None] | None,
) -> int:
    """Add this case's voxels to the samples; returns the number of voxels of healthy tissue."""
    volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    tissue = None if given is None else torch.from_numpy(given)
    host = HostSample.of(volume, torch.from_numpy(index), tissue, fixed=fixed)
    z = host.to_model(volume).flatten(1).numpy()
    healthy = host.tissue.numpy() & (index == 0)
    masks = {HOST: healthy} | {name: index == k + 1 for k, name in enumerate(measured.classes.names)}
    for name, mask in masks.items():
        where = np.flatnonzero(mask)
        if len(where):
            drawn = rng.choice(where, min(VOXELS_PER_CASE, len(where)), replace=False)
            measured.samples.setdefault(name, []).append(z[:, drawn].T)
    return int(healthy.sum())
