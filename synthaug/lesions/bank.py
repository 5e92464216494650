"""Real multi-class lesion masks, cut from labelled cases, with the donor's intensities for paste.

One safetensors file holds a bank: all masks and intensities end to end in flat tensors, a table of sizes, voxel
sizes, class counts and class statistics, and names, patient groups, classes and channels as JSON in its header.
Intensities are model intensities: z-scores of the donor's own host tissue (`synthaug.host`), float16.
"""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as serialized
from torch import Tensor

from synthaug.channels import canonical_channels
from synthaug.checks import checked_at_least
from synthaug.classes import Classes, get_classes, of_names
from synthaug.files import replace_file
from synthaug.generators.base import TumorGenerator
from synthaug.geometry import triple
from synthaug.host.space import Space
from synthaug.lesions.base import Candidates, Lesion, LesionSource, known_frame
from synthaug.lesions.cutting import MARGIN_VOX, MIN_VOXELS, UNKNOWN_FRAME, LesionCutter, names_of, tensors_of
from synthaug.lesions.places import PlaceFrequency, points_of
from synthaug.lesions.tensors import read_tensors

FORMAT = "synthaug-lesion-bank"
VERSION = 2
"""Files of version 1 can be read; they do not say where in their hosts the lesions lay."""

_TENSORS = ("masks", "intensities", "sizes", "spacing_mm", "voxels", "class_mean", "class_std", "frames")


class LesionBank(LesionSource):
    """Stores lesion masks of real cases, with the donors' intensities.

    Built by `from_folder` or `from_cases`, kept with `save` and `load`. Its classes are names: a bank made with
    `BRATS18` serves an insertion with `BRATS23`.

    Attributes:
        classes: class names, in mask order.
        channels: canonical channel names of the intensities.
        space: host rule and units in which it was cut; None where the host was given as masks.
        skipped: what was left out when the bank was made, and why, in words.

    Example:
        >>> image = np.random.default_rng(0).normal(100, 10, (2, 32, 32, 32))
        >>> label = np.zeros((32, 32, 32), np.int16)
        >>> label[10:20, 10:20, 10:20], label[13:17, 13:17, 13:17] = 2, 4
        >>> bank = LesionBank.from_arrays([("case 1", "patient 1", image, label, (1, 1, 2))], "BRATS18", ("t1", "t2"))
        >>> [(lesion.name, lesion.size_vox, lesion.voxels) for lesion in bank]
        [('case 1/0', (10, 10, 10), (0, 936, 64))]
        >>> cpu = torch.device("cpu")
        >>> bank.mask("case 1/0", cpu).shape, bank.intensities("case 1/0", [0, 1], cpu).shape
        (torch.Size([16, 16, 16]), torch.Size([2, 16, 16, 16]))
    """

    channels: tuple[str, ...]
    margin_vox = MARGIN_VOX

    def __init__(self, header: dict[str, Any], tensors: dict[str, Tensor]):
        self.classes = tuple(header["classes"])
        self.channels = tuple(header["channels"])
        self.skipped: list[str] = list(header["skipped"])
        self._header, self._tensors = header, tensors
        space = header.get("space", {})
        self.space = None if space is None else Space.model_validate(space)
        boxes = (tensors["sizes"].long() + 2 * MARGIN_VOX).prod(1)
        self._offsets = [0, *boxes.cumsum(0).tolist()]
        self._lesions = [
            Lesion(name, group, triple(size), triple(spacing), tuple(voxels), known_frame(frame))
            for name, group, size, spacing, voxels, frame in zip(
                header["names"],
                header["groups"],
                tensors["sizes"].tolist(),
                tensors["spacing_mm"].tolist(),
                tensors["voxels"].tolist(),
                tensors["frames"].tolist(),
                strict=True,
            )
        ]
        self._candidates = Candidates(self._lesions)
        self._groups = np.array([str(group) for group in header["groups"]])
        self._index = {lesion.name: i for i, lesion in enumerate(self._lesions)}

    @cached_property
    def _meant(self) -> dict[str, str]:
        """Names of cases, as far as lesions have them, to their patient group; with and without BraTS's prefix."""
        from synthaug.data.groups import case_names

        return {
            spelt: lesion.group
            for lesion in self._lesions
            if lesion.group is not None
            for spelt in case_names(lesion.name.split("/")[0])
        }

    def group_of(self, given: str) -> str:
        """The bank's patient group that is meant by a group, the name of a case, or that of its folder.

        Names of cases that lesions were cut from are known, and so are BraTS's names of further cases of these
        patients; `given` itself is returned where it is neither.

        Example:
            >>> bank.group_of("Brats18_2013_11_1")  # doctest: +SKIP
            '2013_11'
        """
        from synthaug.data.groups import group_function

        known, name = self._known_groups, given.rstrip("/").rsplit("/", 1)[-1]
        found = (given, self._meant.get(name), group_function(None)(name))
        return next((group for group in found if group in known), given)

    @property
    def vocabulary(self) -> Classes | None:
        """The classes with the label values of the cases; None for files from before banks kept them."""
        values = self._header.get("values")
        return None if values is None else Classes("of the bank", values, of_names(self.classes).aliases)

    def __len__(self) -> int:
        return len(self._lesions)

    def __iter__(self) -> Iterator[Lesion]:
        return iter(self._lesions)

    @property
    def groups(self) -> set[str]:
        """Patient groups of the donors."""
        return set(self._known_groups)

    @property
    def patients(self) -> set[str]:
        """Patients that its masks are of, or were learned from where a sampler drew them."""
        return {*self.groups, *(self.painting or {}).get("source", {}).get("patients", ())}

    @cached_property
    def _known_groups(self) -> frozenset[str]:
        return frozenset(lesion.group for lesion in self._lesions if lesion.group is not None)

    def subset(self, names: Iterable[str]) -> "LesionBank":
        """Select lesions: a bank of these alone, in this order.

        Raises:
            ValueError: a name that the bank does not have, or no name.
        """
        positions = [self._position(name) for name in names]
        if not positions:
            raise ValueError("subset: expected at least one lesion name, got none")
        flat = {
            key: torch.cat([self._tensors[key][..., self._offsets[i] : self._offsets[i + 1]] for i in positions], -1)
            for key in ("masks", "intensities")
        }
        rows = {key: self._tensors[key][positions] for key in _TENSORS if key not in flat}
        header = self._header | {key: [self._header[key][i] for i in positions] for key in ("names", "groups")}
        return LesionBank(header, flat | rows)

    def of_groups(self, keep: Iterable[str]) -> "LesionBank":
        """Select the lesions of these patient groups, for example those of a fold's training set.

        Raises:
            ValueError: there is none.
        """
        wanted = set(keep)
        return self.subset(lesion.name for lesion in self if lesion.group in wanted)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike,
        classes: Classes | str | None = None,
        channels: Sequence[str] | None = None,
        per: str = "lesion",
        min_voxels: int = MIN_VOXELS,
        layout: str = "auto",
        space: Space | None = None,
        group_pattern: str | None = None,
    ) -> "LesionBank":
        """Cut a bank from all labelled cases in a folder; see `synthaug.data.find_cases` for the layouts.

        Args:
            folder: the data set's.
            classes: vocabulary of the labels; where not given, what the data set says (`synthaug.data.dataset`).
            channels: whose intensities are kept; where not given, those that the cases have.
            per: as for `from_cases`.
            min_voxels: likewise.
            layout: of the folder.
            group_pattern: finds the patient in a case name, see `synthaug.data.find_cases`.

        Raises:
            ValueError: no case in the folder, no lesion in any of them, or classes that the data set does not tell.
        """
        from synthaug.data.dataset import find_dataset

        data = find_dataset(folder, classes, channels, layout, group_pattern)
        return cls.from_cases(data.training, data.classes, data.channels, per, min_voxels, space)

    @classmethod
    def from_cases(
        cls,
        cases: Iterable[Any],
        classes: Classes | str,
        channels: Sequence[str] = ("flair", "t1", "t1ce", "t2"),
        per: str = "lesion",
        min_voxels: int = MIN_VOXELS,
        space: Space | None = None,
    ) -> "LesionBank":
        """Cut a bank from these cases.

        A case that cannot be read (damaged, mismatched, incomplete) is named in a log warning and in `skipped`, and
        the others go on; so is a case without a lesion, and the number of components below `min_voxels`.

        Args:
            cases: `synthaug.data.Case`, labelled.
            classes: vocabulary of their labels.
            channels: canonical names; their intensities are kept.
            per: ``"lesion"`` for connected components (26 neighbours) one by one, ``"case"`` for all of a case's
                lesions as one.
            min_voxels: smallest lesion that is kept.
            space: host rule and units (`synthaug.host.space`); those of skull-stripped images where not given.

        Raises:
            ValueError: an unknown `per`, or no lesion in any case.
        """
        from synthaug.data import CaseError, load_case
        from synthaug.data.maps import host_of_case

        cutter = LesionCutter(get_classes(classes), canonical_channels(channels), per, min_voxels, space)
        for case in cases:
            try:
                volume = load_case(case, cutter.channels)
                assert volume.label is not None  # it requires one, unless it is told otherwise
                default, names = cutter.space == Space(), cutter.channels
                host = None if default else host_of_case(case, volume, cutter.space, names, cutter.classes)
                cutter.add(
                    *(case.name, case.group, volume.image, volume.label, volume.spacing_mm), host, affine=volume.affine
                )
            except CaseError as error:
                cutter.skip(str(error))
        return cls._of(cutter)

    @classmethod
    def from_arrays(
        cls,
        samples: Iterable[tuple],
        classes: Classes | str,
        channels: Sequence[str],
        per: str = "lesion",
        min_voxels: int = MIN_VOXELS,
        space: Space | None = None,
    ) -> "LesionBank":
        """Cut a bank from samples in memory.

        Each is (name, patient group, image (C, X, Y, Z), label (X, Y, Z), spacing in mm), and where they are known a
        mask of host tissue (X, Y, Z), which is derived from the image otherwise, and the affine (4, 4) to mm, with
        which the bank knows where in their hosts lesions lie. What is not known is None or left out.

        Raises:
            ValueError: as for `from_cases`, and a label with values outside `classes`.
        """
        cutter = LesionCutter(get_classes(classes), canonical_channels(channels), per, min_voxels, space)
        for name, group, image, label, spacing_mm, *more in samples:
            known = [None if x is None else np.asarray(x) for x in more]
            cutter.add(name, group, np.asarray(image), np.asarray(label), spacing_mm, *known)
        return cls._of(cutter)

    @classmethod
    def _of(cls, cutter: LesionCutter) -> "LesionBank":
        header, tensors = cutter.collected()
        return cls({"format": FORMAT, "version": VERSION} | header, tensors)

    def painted(
        self, generator: str | TumorGenerator, count: int, *, progress: bool = False, **options: Any
    ) -> "LesionBank":
        """Paint lesions ahead: a bank of them, to be inserted with ``"paste"`` at paste's price.

        Each is a function of its mask, size, swaps and seed, all of which are in its name: the mask of a donor at its
        final size, painted in a neutral host. Insert them at scale 1 (the default): the texture is then that of the
        generator, voxel for voxel. Donors are taken in turn; a painting keeps its donor's patient group.

        Args:
            generator: name, folder, hub id, or `TumorGenerator`; one that needs no donor.
            count: number of lesions.
            progress: show a progress bar.
            **options: ``scale`` or ``diameter_mm``, ``scale_after_swap``, ``swaps``, ``swap_draw``, ``seed`` as for
                `TumorInsertion`; ``spacing_mm`` of the patches into which they will be inserted, 1 mm by default;
                ``device``; and the generator's own, such as ``steps=4``.

        Raises:
            ValueError: a generator that needs a donor or does not know the bank's classes or channels; sizes or swaps
                that do not fit; no donor that has the sizes asked for.
        """
        from synthaug.lesions.painted.painter import LesionPainter
        from synthaug.lesions.painted.threads import painted_by

        painter = LesionPainter(self, generator, **options)
        paintings = painted_by(painter, range(int(checked_at_least("count", count, 1))), progress)
        return self.of_rows([timed.painting.row for timed in paintings], painter.facts)

    def of_rows(self, rows: Sequence[Mapping[str, Any]], painted: dict[str, Any]) -> "LesionBank":
        """Make a bank of painted lesions, of this bank's classes and channels.

        Args:
            rows: what `synthaug.lesions.cutting.lesion_row` gives, one per lesion.
            painted: how they were painted; goes into the file.
        """
        return LesionBank(self._header | {"skipped": [], "painted": painted} | names_of(rows), tensors_of(rows))

    def rows(self) -> list[dict[str, Any]]:
        """Return the bank's row of each lesion, as `synthaug.lesions.cutting.lesion_row` gives it."""
        tensors, rows = self._tensors, []
        for i, lesion in enumerate(self):
            row = {key: getattr(lesion, key) for key in ("name", "group", "spacing_mm", "voxels")}
            flat = {key: tensors[key][..., self._offsets[i] : self._offsets[i + 1]] for key in ("masks", "intensities")}
            row |= {"size": lesion.size_vox, "mask": flat["masks"], "intensities": flat["intensities"]}
            row |= {"mean": tensors["class_mean"][i], "std": tensors["class_std"][i]}
            rows.append(row | {"frame": tensors["frames"][i].numpy()})
        return rows

    @property
    def painting(self) -> dict[str, Any] | None:
        """Facts of a painted bank's painting: generator, sizes, swaps, seed, source; None for other banks."""
        return self._header.get("painted")

    @cached_property
    def places(self) -> PlaceFrequency | None:
        """How often its lesions lie where; None where no lesion's place is known."""
        known = [lesion for lesion in self if lesion.frame is not None]
        masks = (self.mask(lesion.name, torch.device("cpu")).numpy() for lesion in known)
        points = (points_of(mask, np.array(lesion.frame)) for mask, lesion in zip(masks, known, strict=True))
        return PlaceFrequency.of_points(points) if known else None

    @property
    def checksum(self) -> int:
        """CRC-32 of all masks, intensities and tables."""
        return checksum_of(self._tensors)

    def candidates(self, rng: np.random.Generator, exclude_group: str | None) -> Candidates:
        """List all lesions that are not of `exclude_group`."""
        if exclude_group is None:
            return self._candidates
        return self._candidates.at(np.flatnonzero(self._groups != self.group_of(exclude_group)))

    def lesion(self, name: str) -> Lesion:
        """Find the lesion of that name.

        Raises:
            ValueError: the bank has none.
        """
        return self._lesions[self._position(name)]

    def mask(self, name: str, device: torch.device) -> Tensor:
        """Return a lesion's mask, (X, Y, Z) uint8, k + 1 in class k: the tight box and 3 voxels around it."""
        return self._box("masks", name).to(device, non_blocking=True)

    def intensities(self, name: str, channels: Sequence[int], device: torch.device) -> Tensor:
        """Return intensities in the mask's box, (C, X, Y, Z) float32 z-scores of the donor's host tissue."""
        return self._box("intensities", name)[list(channels)].to(device, non_blocking=True).float()

    def class_statistics(self, name: str, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (K, C) of a lesion's classes; the whole bank's where it lacks a class."""
        i, columns = self._position(name), list(channels)
        own_mean, own_std = (self._tensors[k][i][:, columns] for k in ("class_mean", "class_std"))
        mean, std = (self._tensors[k][:, :, columns].nanmean(0) for k in ("class_mean", "class_std"))
        return torch.where(own_mean.isnan(), mean, own_mean), torch.where(own_std.isnan(), std, own_std)

    def class_bounds(self, channels: Sequence[int]) -> Tensor:
        """Return the least and greatest mean of the classes over all lesions, (2, K, C); NaN of one that none has."""
        means = self._tensors["class_mean"][:, :, list(channels)]
        unknown = means.isnan()
        least = means.masked_fill(unknown, torch.inf).amin(0)
        greatest = means.masked_fill(unknown, -torch.inf).amax(0)
        return torch.stack((least, greatest)).masked_fill(unknown.all(0), torch.nan)

    def save(self, path: str | os.PathLike) -> None:
        """Write the bank to one safetensors file; beside it first, then renamed, so that none is half-written."""
        header = json.dumps(self._header | {"skipped": self.skipped, "crc32": checksum_of(self._tensors)})
        # not safetensors' save_file, which makes files that only their owner may read
        replace_file(path, serialized(self._tensors, metadata={"bank": header}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LesionBank":
        """Read a bank file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another kind or of another version.
        """
        path = Path(path)
        header, tensors = read_tensors(path, "bank")
        _check_file(path, header, tensors)
        unknown = torch.from_numpy(UNKNOWN_FRAME).expand(len(header["names"]), 3, 4)
        return cls(header | {"version": VERSION}, {"frames": unknown} | tensors)

    def _position(self, name: str) -> int:
        if name not in self._index:
            raise ValueError(
                f"the lesion bank has no lesion {name!r} among its {len(self)}; was the plan made with it?"
            )
        return self._index[name]

    def _box(self, key: str, name: str) -> Tensor:
        i = self._position(name)
        shape = [n + 2 * MARGIN_VOX for n in self._lesions[i].size_vox]
        flat = self._tensors[key][..., self._offsets[i] : self._offsets[i + 1]]
        return flat.reshape(*flat.shape[:-1], *shape)


def _check_file(path: Path, header: Any, tensors: dict[str, Tensor]) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(
            f"lesion bank {path}: expected a file written by LesionBank.save, got another safetensors file"
        )
    if header.get("version") not in (1, VERSION):
        raise ValueError(f"lesion bank {path}: expected version {VERSION} or 1, got {header.get('version')!r}")
    missing = [name for name in _TENSORS if name not in tensors and (name, header["version"]) != ("frames", 1)]
    if missing:
        raise ValueError(f"lesion bank {path}: damaged, lacks {', '.join(missing)}")
    if header.get("crc32") != checksum_of(tensors):
        raise ValueError(f"lesion bank {path}: damaged, its checksum is not that of its tensors")
    boxes = int((tensors["sizes"].long() + 2 * MARGIN_VOX).prod(1).sum())
    if len(header["names"]) != len(tensors["sizes"]) or tensors["masks"].numel() != boxes:
        raise ValueError(f"lesion bank {path}: damaged, its tables and masks do not fit together")


def checksum_of(tensors: dict[str, Tensor]) -> int:
    """Compute the CRC-32 of a bank's tensors."""
    value = 0
    for name in (name for name in _TENSORS if name in tensors):
        value = zlib.crc32(tensors[name].contiguous().view(torch.uint8).numpy().data, value)
    return value
