"""Case folders in: find the cases of a data set, load one as arrays, and say clearly what is wrong with a case.

Six layouts are read, all NIfTI (``.nii`` or ``.nii.gz``) but the last:

- ``brats``: files ``<case>_<channel>`` and ``<case>_seg``, anywhere below the folder. BraTS 2018 writes
  ``_flair, _t1, _t1ce, _t2, _seg``; BraTS 2023 and later ``-t2f, -t1n, -t1c, -t2w, -seg``; ``_ct`` is read too.
- ``nnunet``: ``imagesTr/<case>_0000``, ``labelsTr/<case>``, ``imagesTs``; ``dataset.json`` names the channels.
- ``msd`` (Medical Segmentation Decathlon): ``imagesTr/<case>`` with 4-D images; ``dataset.json`` names the volumes.
- ``bids``: ``sub-*/[ses-*/]anat/*_{T1w,T2w,FLAIR}``, a T1w with ``ce-`` is ``t1ce``; label maps are ``*_dseg``
  or ``*_mask`` in ``derivatives/<pipeline>/sub-*/...``. The subject is the patient.
- ``webdataset``: members ``<case>.<channel>.nii.gz`` and ``<case>.seg.nii.gz`` of ``shards/*.tar``, as cohorts have
  them. A member's path goes on within the archive: ``shards/synth-000000.tar/synth_000003.t1.nii.gz``.
- ``zarr``: folders ``<case>.ome.zarr`` of OME-Zarr 0.5, as cohorts have them. A path goes on within such a folder by
  the name of a channel: ``synth_000003.ome.zarr/0/t1``.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, overload

import nibabel as nib
import numpy as np

from synthaug.channels import ALIASES, canonical_channels
from synthaug.data.bids import bids_images, bids_labels, is_bids
from synthaug.data.groups import GroupOf, group_function
from synthaug.data.nifti import (
    CaseError,
    LabelledVolume,
    Stored,
    Volume,
    as_label,
    check_same_grid,
    volumes_first,
)
from synthaug.data.ome_zarr import ENDING, find_files, split_case
from synthaug.data.stored import read_stored
from synthaug.data.tars import local_extents
from synthaug.geometry import triple

__all__ = ["Case", "CaseError", "LabelledVolume", "Volume", "find_cases", "load_case"]

_SUFFIXES = (".nii.gz", ".nii")
_BRATS_TAGS = {"flair", "t1", "t1ce", "t2", "ct", *ALIASES}

Split = Mapping[str, str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Case:
    """Files of one case.

    Attributes:
        name: the case, for example ``"Brats18_CBICA_AME_1"``; unique in what `find_cases` returns.
        group: the patient, for example ``"CBICA_AME"``; cases of one group must not be split apart.
        images: canonical channel name to file. Names that share one file are the volumes of a 4-D image, in order.
        label: the label map, or None where there is none.
        split: for example ``"train"`` or ``"validation"``, or None where no split was given.
    """

    name: str
    group: str
    images: Mapping[str, Path] = field(hash=False)
    label: Path | None
    split: str | None = None


def find_cases(
    folder: str | Path,
    layout: str = "auto",
    channels: Sequence[str] | None = None,
    group_pattern: str | None = None,
    split: Split | None = None,
) -> list[Case]:
    """Find the cases of a data set, or of a single case folder, without reading a voxel.

    A case that lacks a channel or its label is listed with what it has, so that `load_case` can say what is missing.
    Hidden files (``._*`` of macOS among them) are skipped.

    Args:
        folder: the data set's folder.
        layout: ``"brats"``, ``"nnunet"``, ``"msd"``, ``"bids"``, ``"webdataset"``, ``"zarr"``, or ``"auto"`` to
            tell by ``imagesTr``, ``sub-*/``, ``shards/*.tar``, ``*.ome.zarr`` and the file names.
        channels: for ``nnunet`` and ``msd`` the channel names in order, in place of those in ``dataset.json``;
            for ``brats`` further file endings to read as channels, for example ``("adc",)``.
        group_pattern: regular expression that finds the patient in a case name: its first group, or the whole match.
            Without it the patient is known from BraTS names and is the case itself elsewhere.
        split: split of each case name or group, ``{"CBICA_AME": "validation"}``, or the members of each split,
            ``{"train": [...], "validation": [...]}``. Cases that it does not mention have the split None.

    Returns:
        The cases, sorted by name.

    Raises:
        ValueError: no folder, nothing found, two files for one channel, two cases of one name, channel names that
            are missing or do not fit, a folder of OME-Zarr that is half-written or of another version, a pattern that
            does not match, a split that names unknown cases or that
            puts one patient in two splits.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synthaug.data import write_phantom_dataset
        >>> with TemporaryDirectory() as folder:
        ...     _ = write_phantom_dataset(folder, 2, size=(32, 32, 32))
        ...     first, second = find_cases(folder, split={"validation": ["Phantom_001_1"]})
        >>> first.name, list(first.images), second.split
        ('Phantom_000_1', ['flair', 't1', 't1ce', 't2'], 'validation')
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"expected a folder of cases, got {folder}, which is {'a file' if folder.exists() else 'not there'}"
        )
    finders = {
        "brats": _find_brats,
        "nnunet": _find_nnunet,
        "msd": _find_msd,
        "bids": _find_bids,
        "webdataset": _find_webdataset,
        "zarr": _find_zarr,
    }
    if layout not in ("auto", *finders):
        raise ValueError(f"layout: expected auto, {', '.join(finders)}, got {layout!r}")
    finder = finders[detected_layout(folder) if layout == "auto" else layout]
    cases = sorted(finder(folder, channels, group_function(group_pattern)), key=lambda case: case.name)
    if not cases:
        raise ValueError(_nothing_found(folder, layout))
    for first, second in itertools.pairwise(cases):
        if first.name == second.name:
            raise ValueError(f"{folder}: two cases are called {first.name}: {folder_of(first)} and {folder_of(second)}")
    return cases if split is None else _with_split(cases, split)


@overload
def load_case(case: Case, channels: Sequence[str], require_label: Literal[True] = True) -> LabelledVolume: ...


@overload
def load_case(case: Case, channels: Sequence[str], require_label: bool) -> Volume: ...


def load_case(case: Case, channels: Sequence[str], require_label: bool = True) -> Volume:
    """Read the voxels of a case and check that its files fit together.

    Args:
        case: from `find_cases`.
        channels: channel names (aliases are resolved) in the order wanted.
        require_label: whether a case without a label is an error; a label that is there is always read.

    Returns:
        The `Volume`; (C, X, Y, Z) in the order of `channels`.

    Raises:
        CaseError: a missing channel or label; a file that is missing, damaged or no NIfTI; wrong dimensions;
            shapes or affines that differ; voxels that are not finite; a label that is not integral.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synthaug.data import write_phantom_dataset
        >>> with TemporaryDirectory() as folder:
        ...     (case,) = write_phantom_dataset(folder, 1, size=(40, 32, 32))
        ...     volume = load_case(case, ("flair", "t1ce"))
        >>> volume.image.shape, volume.label.shape, volume.spacing_mm
        ((2, 40, 32, 32), (40, 32, 32), (1.0, 1.0, 1.0))
    """
    return load_stored(case, channels, require_label).volume


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A case and its files as they are stored.

    Attributes:
        volume: voxels as arrays.
        files: path to content of the files that hold the channels asked for.
        label: content of the label's file, or None.
    """

    volume: Volume
    files: Mapping[Path, Stored]
    label: Stored | None


def load_stored(case: Case, channels: Sequence[str], require_label: bool = True) -> StoredCase:
    """Read a case as `load_case` does, and keep the files as they are stored, so that they can be written again."""
    wanted = canonical_channels(channels)
    missing = [name for name in wanted if name not in case.images]
    if missing:
        known = ", ".join(case.images) or "none"
        raise CaseError(f"{case.name}: no file for {', '.join(missing)} (channels found: {known}) in {folder_of(case)}")
    if require_label and case.label is None:
        raise CaseError(f"{case.name}: no label map found in {folder_of(case)}")
    files, label_file = _checked_files(case, wanted)
    volumes = {path: volumes_first(stored.scaled) for path, stored in files.items()}
    where = [(case.images[n], _volume_names(case, case.images[n]).index(n)) for n in wanted]
    image = np.stack([volumes[path][v] for path, v in where]).astype(np.float32)
    affine = files[case.images[wanted[0]]].affine
    spacing = triple(float(s) for s in nib.affines.voxel_sizes(affine))
    if case.label is None or label_file is None:
        return StoredCase(Volume(image, None, affine, spacing), files, None)
    label = as_label(case.name, case.label, volumes_first(label_file.scaled)[0])
    return StoredCase(LabelledVolume(image, label, affine, spacing), files, label_file)


def _checked_files(case: Case, wanted: Sequence[str]) -> tuple[dict[Path, Stored], Stored | None]:
    """Read the files of these channels and the label, each once, and check that they have one shape and affine."""
    paths = list(dict.fromkeys(case.images[name] for name in wanted))
    files = {path: read_stored(case.name, path, len(_volume_names(case, path))) for path in paths}
    grids = {path: (volumes_first(f.raw), f.affine) for path, f in files.items()}
    label = None
    if case.label is not None:
        label = read_stored(case.name, case.label, 1)
        grids[case.label] = (volumes_first(label.raw), label.affine)
    for path in list(grids)[1:]:
        check_same_grid(case.name, paths[0], grids[paths[0]], path, grids[path])
    return files, label


def _volume_names(case: Case, path: Path) -> list[str]:
    return [name for name, other in case.images.items() if other == path]


# ------------------------------------------------------------------------------------------------ layouts


def _stem(path: Path) -> str:
    return next(path.name[: -len(end)] for end in _SUFFIXES if path.name.endswith(end))


def _nifti_files(folder: Path, below: bool = False) -> list[Path]:
    """List NIfTI files, of folders `below` and linked ones too, without hidden files and folders, sorted."""
    files: list[Path] = []
    folders = [(folder, frozenset({folder.resolve()}))]
    while folders:
        here, above = folders.pop()
        for path in here.iterdir() if here.is_dir() else ():
            if path.name.startswith((".", "__MACOSX")):
                continue
            if path.is_file():
                files += [path] if path.name.endswith(_SUFFIXES) else []
            elif below and path.is_dir() and (real := path.resolve()) not in above:  # a link upwards has no end
                folders.append((path, above | {real}))
    return sorted(files)


def detected_layout(folder: Path) -> str:
    """Tell the layout: nnU-Net and MSD have ``imagesTr``, and only in MSD has an image the name of its label."""
    if not (folder / "imagesTr").is_dir():
        if next((folder / "shards").glob("*.tar"), None) is not None:
            return "webdataset"
        if _zarr_cases(folder):
            return "zarr"
        return "bids" if is_bids(folder) else "brats"
    images = _nifti_files(folder / "imagesTr")
    labels = {_stem(p) for p in _nifti_files(folder / "labelsTr")}
    if any(_stem(p) in labels for p in images):
        return "msd"
    return "nnunet" if all(re.search(r"_\d{4}$", _stem(p)) for p in images) else "msd"


def _find_brats(folder: Path, channels: Sequence[str] | None, group_of: GroupOf) -> list[Case]:
    extra = canonical_channels(channels) if channels is not None else ()
    tags = "|".join(sorted(map(re.escape, {*_BRATS_TAGS, *extra, "seg"})))
    pattern = re.compile(rf"(?:(?P<case>.+)[_-])?(?P<tag>{tags})$", re.I)
    files: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in _nifti_files(folder, below=True):
        if match := pattern.match(_stem(path)):
            tag = match["tag"].lower()
            name = match["case"] or path.resolve().parent.name
            _add(files.setdefault((path.parent, name), {}), ALIASES.get(tag, tag), path, name)
    return [
        Case(name, group_of(name), {k: p for k, p in found.items() if k != "seg"}, found.get("seg"))
        for (_, name), found in files.items()
    ]


def _find_nnunet(folder: Path, channels: Sequence[str] | None, group_of: GroupOf) -> list[Case]:
    names = _listed_channels(folder, channels)
    cases = []
    for images, labels, split in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        label_of = _by_stem(folder / labels)
        found: dict[str, dict[str, Path]] = {name: {} for name in label_of}
        for path in _nifti_files(folder / images):
            match = re.fullmatch(r"(.+)_(\d{4})", _stem(path))
            if match is None or int(match[2]) >= len(names):
                expected = f"<case>_0000 to <case>_{len(names) - 1:04d} for the channels {', '.join(names)}"
                raise ValueError(f"{path}: expected {expected}")
            _add(found.setdefault(match[1], {}), names[int(match[2])], path, match[1])
        cases += [Case(name, group_of(name), files, label_of.get(name), split) for name, files in found.items()]
    return cases


def _find_msd(folder: Path, channels: Sequence[str] | None, group_of: GroupOf) -> list[Case]:
    names = _listed_channels(folder, channels)
    cases = []
    for images, labels, split in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        label_of, image_of = _by_stem(folder / labels), _by_stem(folder / images)
        for name in {**image_of, **label_of}:
            files = dict.fromkeys(names, image_of[name]) if name in image_of else {}
            cases.append(Case(name, group_of(name), files, label_of.get(name), split))
    return cases


def _find_bids(folder: Path, channels: Sequence[str] | None, group_of: GroupOf) -> list[Case]:
    groups: dict[str, str] = {}
    images: dict[str, dict[str, Path]] = {}
    for name, subject, channel, path in bids_images(folder):
        groups[name] = subject
        _add(images.setdefault(name, {}), channel, path, name)
    labels: dict[str, Path] = {}
    for name, path in bids_labels(folder):
        _add(labels, name, path, name)
    return [Case(name, group_of(groups[name]), found, labels.get(name)) for name, found in images.items()]


def _find_webdataset(folder: Path, channels: Sequence[str] | None, group_of: GroupOf) -> list[Case]:
    found: dict[str, dict[str, Path]] = {}
    for archive in sorted((folder / "shards").glob("*.tar")):
        for member in local_extents(archive):
            name, _, kind = member.partition(".")
            if kind.endswith(_SUFFIXES):
                _add(found.setdefault(name, {}), _stem(Path(kind)), archive / member, name)
    return [
        Case(name, group_of(name), {k: p for k, p in files.items() if k != "seg"}, files.get("seg"))
        for name, files in found.items()
    ]


def _find_zarr(folder: Path, channels: Sequence[str] | None, group_of: GroupOf) -> list[Case]:
    found = []
    for place in _zarr_cases(folder):
        name = place.name.removesuffix(ENDING)
        found.append(Case(name, group_of(name), *find_files(place)))
    return found


def _zarr_cases(folder: Path) -> list[Path]:
    """List the cases in OME-Zarr of a folder, or the one that it is."""
    if folder.name.endswith(ENDING):
        return [folder]
    return sorted(p for p in folder.glob(f"*{ENDING}") if p.is_dir() and not p.name.startswith("."))


def _listed_channels(folder: Path, channels: Sequence[str] | None) -> tuple[str, ...]:
    """Take channel names as given, or from ``dataset.json`` (``channel_names``; ``modality`` in MSD and nnU-Net 1)."""
    if channels is not None:
        return canonical_channels(channels)
    file = folder / "dataset.json"
    advice = "give the channel names in order as `channels`"
    if not file.is_file():
        raise ValueError(f"{folder}: no dataset.json to name the channels; {advice}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); {advice}") from error
    listed = content.get("channel_names", content.get("modality")) if isinstance(content, dict) else None
    if not isinstance(listed, dict) or sorted(listed) != sorted(str(i) for i in range(len(listed))):
        raise ValueError(
            f'{file}: expected channel_names or modality as {{"0": name, "1": name}}, got {listed}; {advice}'
        )
    try:
        return canonical_channels([listed[str(i)] for i in range(len(listed))])
    except ValueError as error:
        raise ValueError(f"{file}: {error}; {advice}") from error


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _nifti_files(folder):
        _add(found, _stem(path), path, _stem(path))
    return found


def _add(found: dict[str, Path], key: str, path: Path, name: str) -> None:
    if key in found:
        raise ValueError(f"case {name} has two files for {key}: {found[key]} and {path.name}")
    found[key] = path


def _nothing_found(folder: Path, layout: str) -> str:
    seen = [p.relative_to(folder).as_posix() for p in _nifti_files(folder, below=True)]
    if folder.name in ("imagesTr", "imagesTs", "labelsTr"):
        return f"{folder}: no case found; {folder.name} is part of a data set: give {folder.parent}, which holds it"
    holds = f"{len(seen)} NIfTI files, such as {', '.join(seen[:3])}" if seen else "no NIfTI file"
    return (
        f"{folder}: no case found (layout {layout}). Expected NIfTI files <case>_flair, _t1, _t1ce, _t2, _ct, _seg "
        "(BraTS 2018) or <case>-t2f, -t1n, -t1c, -t2w, -seg (BraTS 2023) below it, or imagesTr, labelsTr and "
        f"dataset.json in it (nnU-Net, MSD), or sub-*/anat (BIDS); it holds {holds}"
    )


def folder_of(case: Case) -> Path:
    """Find the folder that a case's images, or else its label, lie in."""
    path = next(p for p in (*case.images.values(), case.label) if p is not None)
    parts = split_case(path)
    return path.parent if parts is None else parts[0].parent


def _with_split(cases: Iterable[Case], split: Split) -> list[Case]:
    pairs = [(m, s) for s, v in split.items() if not isinstance(v, str) for m in v]
    pairs += [(m, s) for m, s in split.items() if isinstance(s, str)]
    split_of: dict[str, str] = {}
    for member, name in pairs:
        if split_of.setdefault(member, name) != name:
            raise ValueError(f"split: {member} is in both {split_of[member]} and {name}")
    cases = list(cases)
    unknown = sorted(set(split_of) - {n for case in cases for n in (case.name, case.group)})
    if unknown:
        raise ValueError(f"split: no case or group is called {', '.join(unknown)}; found {cases[0].name}, ...")
    result = [replace(c, split=split_of.get(c.name, split_of.get(c.group, c.split))) for c in cases]
    split_of_group: dict[str, str | None] = {}
    for case in result:
        if split_of_group.setdefault(case.group, case.split) != case.split:
            raise ValueError(
                f"split: patient {case.group} is in both {split_of_group[case.group]} and {case.split}; "
                "a patient's cases belong in one split"
            )
    return result
