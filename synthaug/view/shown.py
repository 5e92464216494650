"""What the viewer shows of a case: its channels, its label, and its lesions with their places."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cc3d
import nibabel as nib
import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.verification import is_cohort
from synthaug.data.cases import Case, find_cases
from synthaug.data.dataset import data_folder, find_classes
from synthaug.data.nifti import volumes_first
from synthaug.data.stored import read_as_nifti, read_stored
from synthaug.figures.slices import class_colours

LEAST_VOXELS = 8
"""Smaller components of a label are specks and are not listed."""


@dataclass(frozen=True)
class Shown:
    """The cases that are shown, in order.

    Attributes:
        root: the folder that was asked for.
        cases: in it.
        before: by a case's name, the one that it was made from, where that is known.
        classes: of the labels; None where nothing says them, and every value is shown.
        inserted: by a case's name, centres in voxels of what a cohort's manifest says was inserted.
    """

    root: Path
    cases: list[Case]
    before: Mapping[str, Case] = field(default_factory=dict)
    classes: Classes | None = None
    inserted: Mapping[str, list[list[int]]] = field(default_factory=dict)


def find_shown(folder: Path, before: Path | None = None, layout: str = "auto") -> Shown:
    """Find what there is to show.

    Args:
        folder: a cohort, a folder of cases, one case's folder, or FOLDER/CASE where CASE is the name of one.
        before: a case, or a folder of cases, that these were made from.
        layout: of the folder.

    Raises:
        ValueError: no such folder or case, or `before` has none of the cases.
    """
    folder, only = Path(folder), None
    if not folder.exists() and folder.parent.is_dir():
        folder, only = folder.parent, folder.name
    root = data_folder(folder)
    cases = find_cases(root, layout)
    if only is not None:
        names = [case.name for case in cases]
        cases = [case for case in cases if case.name == only]
        if not cases:
            raise ValueError(f"{root}: expected one of its cases, such as {', '.join(names[:3])}, got {only}")
    rows = _manifest(root)
    hosts = {row["case"]: row["host"] for row in rows}
    centres: dict[str, list[list[int]]] = {}
    for row in rows:
        centres.setdefault(row["case"], []).append(row["center_vox"])
    try:
        classes = find_classes(root, cases)[0]
    except ValueError:
        classes = None
    return Shown(root, cases, {} if before is None else _originals(cases, hosts, before), classes, centres)


def _manifest(root: Path) -> list[dict[str, Any]]:
    file = root / "manifest.jsonl"
    if not (is_cohort(root) and file.is_file()):
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _originals(cases: Sequence[Case], hosts: Mapping[str, str], before: Path) -> dict[str, Case]:
    """Find the case that each was made from: the cohort's host, the case of the same name, or the only one."""
    folder, only = (before, None) if before.exists() else (before.parent, before.name)
    originals = {case.name: case for case in find_cases(data_folder(folder)) if only in (None, case.name)}
    if len(originals) == 1 and len(cases) == 1:
        return {cases[0].name: next(iter(originals.values()))}
    found = {c.name: originals[n] for c in cases if (n := hosts.get(c.name, c.name)) in originals}
    if not found:
        raise ValueError(f"--before {before}: has none of the cases, or their hosts, such as {cases[0].name}")
    return found


def channel_file(case: Case, channel: str) -> bytes:
    """Read a channel as NIfTI bytes, as ``.nii`` or ``.nii.gz``: the file itself, or a volume of a 4-D one.

    Raises:
        KeyError: the case has no such channel.
        CaseError: a file that cannot be read.
    """
    path = case.images[channel]
    sharing = [name for name, file in case.images.items() if file == path]
    if len(sharing) == 1:
        return read_as_nifti(case.name, path)
    stored = read_stored(case.name, path, len(sharing))
    voxels = volumes_first(stored.scaled)[sharing.index(channel)]
    return gzip.compress(nib.Nifti1Image(np.ascontiguousarray(voxels), stored.affine).to_bytes(), 1)


def is_compressed(case: Case, channel: str) -> bool:
    """Tell whether `channel_file` gives gzip-compressed bytes."""
    path = case.images[channel]
    return path.name.endswith(".gz") or list(case.images.values()).count(path) > 1


def described(shown: Shown, number: int) -> dict[str, Any]:
    """Say where a case's channels, its label and the channels before are, JSON-able; reads no file."""
    case = shown.cases[number]
    before = shown.before.get(case.name)
    return {
        "name": case.name,
        "channels": _channels(case, f"file/{number}/after"),
        "label": None if case.label is None else f"file/{number}/after/{_label_name(case.label)}",
        "before": None if before is None else _channels(before, f"file/{number}/before"),
    }


def listed(shown: Shown, number: int) -> dict[str, Any]:
    """List a case's classes with their colours, and its lesions, JSON-able; reads its label and the one before.

    Raises:
        CaseError: a label that cannot be read.
    """
    case = shown.cases[number]
    before = shown.before.get(case.name)
    label, affine = _label(case)
    own = None if before is None else _label(before)[0]
    classes = _classes(shown.classes, label)
    colours = class_colours(list(classes))
    return {
        "classes": [{"name": n, "value": v, "colour": colours[n]} for n, v in classes.items()],
        "lesions": [] if label is None else _lesions(label, affine, classes, own, shown.inserted.get(case.name)),
    }


def _channels(case: Case, address: str) -> list[dict[str, str]]:
    endings = {channel: ".nii.gz" if is_compressed(case, channel) else ".nii" for channel in case.images}
    return [{"name": channel, "file": f"{address}/{channel}{ending}"} for channel, ending in endings.items()]


def _label_name(path: Path) -> str:
    return "label.nii.gz" if path.name.endswith(".gz") else "label.nii"


def _label(case: Case) -> tuple[np.ndarray | None, np.ndarray]:
    if case.label is None:
        return None, np.eye(4)
    stored = read_stored(case.name, case.label, 1)
    voxels = volumes_first(stored.scaled)[0]
    whole = np.issubdtype(voxels.dtype, np.integer)  # most labels: as they are, half a second saved on a large one
    return voxels if whole else np.rint(voxels).astype(np.int32), stored.affine


def _classes(known: Classes | None, label: np.ndarray | None) -> dict[str, int]:
    if known is not None:
        return dict(known.values)
    values = [] if label is None else np.unique(label[label > 0]).tolist()
    return {f"label {value}": value for value in values}


def _lesions(
    label: np.ndarray,
    affine: np.ndarray,
    classes: Mapping[str, int],
    own: np.ndarray | None,
    centres: Sequence[Sequence[int]] | None,
) -> list[dict[str, Any]]:
    """List connected lesions, largest first: a voxel near the middle in mm, volume, and whether it was inserted."""
    parts = cc3d.connected_components(np.isin(label, list(classes.values())), connectivity=26)
    boxes = cc3d.statistics(parts)["bounding_boxes"]
    ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    rows = []
    for number, box in enumerate(boxes[1:], start=1):
        inside = parts[box] == number
        voxels = np.argwhere(inside)
        if len(voxels) < LEAST_VOXELS:
            continue
        near = voxels[np.abs(voxels - voxels.mean(0)).sum(1).argmin()] + [side.start for side in box]
        values = label[box][inside]
        new = None
        if own is not None and own.shape == label.shape:
            new = bool((own[box][inside] != values).mean() > 0.5)
        elif centres is not None:
            new = any(all(s.start <= c < s.stop for s, c in zip(box, centre, strict=True)) for centre in centres)
        rows.append(
            {
                "mm": (affine[:3, :3] @ near + affine[:3, 3]).round(2).tolist(),
                "ml": round(len(voxels) * ml, 2),
                "diameter_mm": round(float((6 * len(voxels) * ml * 1000 / np.pi) ** (1 / 3)), 1),
                "classes": {
                    n: round(float((values == v).mean()), 2) for n, v in classes.items() if (values == v).any()
                },
                "new": new,
            }
        )
    return sorted(rows, key=lambda row: -row["ml"])
