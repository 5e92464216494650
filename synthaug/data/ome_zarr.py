"""Cases in OME-Zarr 0.5 as cohorts have them, ``<case>.ome.zarr``, by paths that go on within them.

``synth_000003.ome.zarr/0/t1`` is a channel, ``synth_000003.ome.zarr/labels/tumour`` the label. A case is listed by its
``zarr.json`` alone; voxels are read through zarr, one channel at a time.
"""

import itertools
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from einops import rearrange
from nibabel.volumeutils import apply_read_scaling

from synthaug.data.nifti import CaseError, Stored, checked

ENDING, VERSION = ".ome.zarr", "0.5"
IMAGE, LABEL = "0", "labels/tumour"
FIRST_VOXEL = 352
"""Where voxels begin in a NIfTI-1 file without extensions."""

ABOUT = "synthaug"
"""Attribute of a group with what OME-Zarr has no place for: affine, names of channels, scale factors."""


def load_zarr() -> Any:
    """Import zarr.

    Raises:
        ModuleNotFoundError: it is not installed, or is older than version 3.
    """
    needed = f'OME-Zarr {VERSION} needs zarr 3 (pip install "synthaug[zarr]")'
    try:
        zarr = import_module("zarr")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(needed) from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise ModuleNotFoundError(f"{needed}, got {zarr.__version__}")
    return zarr


def split_case(path: Path) -> tuple[Path, str] | None:
    """Split a path into a case's folder and what it names within it; None where it names nothing in such a folder."""
    folder, found, within = path.as_posix().partition(f"{ENDING}/")
    return (Path(f"{folder}{ENDING}"), within) if found else None


def find_files(folder: Path) -> tuple[dict[str, Path], Path]:
    """Find the channels of a case, name to path, and its label, without reading a voxel.

    Raises:
        CaseError: the folder is half-written, of another version of OME-Zarr, or not one of a cohort.
    """
    channels = _about(folder, folder)["channels"]
    _about(folder, folder / LABEL)
    return {name: folder / IMAGE / name for name in channels}, folder / LABEL


def read_array(case: str, path: Path) -> Stored:
    """Read a channel or the label, (X, Y, Z), with a header that NIfTI files can be written with.

    Voxels that are stored as float16 are given as float32.

    Raises:
        CaseError: a folder as `find_files` refuses it, an object that is missing or damaged, voxels or an affine that
            are not usable.
        ModuleNotFoundError: zarr is not installed.
    """
    folder, within = split_case(path) or (path, "")
    zarr = load_zarr()
    if within == LABEL:
        about, place = _about(folder, folder / LABEL), folder / LABEL / "0"
        part: tuple[int, ...] = ()
    else:
        about, place = _about(folder, folder), folder / IMAGE
        part = (list(about["channels"]).index(Path(within).name),)
    try:
        array = zarr.open_array(str(place), mode="r", zarr_format=3)
        _refuse_missing(case, place, array, part)
        raw = rearrange(np.asarray(array[part or ...]), "z y x -> x y z")
    except CaseError:
        raise
    except Exception as error:  # zarr, its codecs and einops raise what they like
        raise CaseError(f"{case}: cannot read {path} as OME-Zarr: {error or type(error).__name__}") from error
    return checked(case, path, _stored(raw, about), 1)


def size_and_time(path: Path) -> tuple[int, int] | None:
    """Bytes of the objects of an array, and the time in ns of the last change among them; None where it has none."""
    folder, within = split_case(path) or (path, "")
    place = folder / (LABEL if within == LABEL else IMAGE)
    found = [file.stat() for file in place.rglob("*") if file.is_file()]
    return (sum(about.st_size for about in found), max(about.st_mtime_ns for about in found)) if found else None


def _stored(raw: np.ndarray, about: dict[str, Any]) -> Stored:
    raw = raw.astype(np.float32) if raw.dtype == np.float16 else raw  # NIfTI has no float16
    slope, inter = float(about.get("slope", 1.0)), float(about.get("intercept", 0.0))
    affine = np.array(about["affine"], np.float64)
    header = nib.Nifti1Image(raw, affine, dtype=raw.dtype).header
    header.set_xyzt_units("mm")
    header["vox_offset"] = FIRST_VOXEL
    header["scl_slope"], header["scl_inter"] = slope, inter
    scaled = apply_read_scaling(raw, np.float64(slope), np.float64(inter))
    return Stored(header, raw, scaled, affine, slope, inter)


def _about(case: Path, group: Path) -> dict[str, Any]:
    """Read what a group of a case says in `ABOUT`."""
    attributes = _attributes(case, group)
    version = attributes.get("ome", {}).get("version")
    if version != VERSION:
        raise CaseError(f"{group}: expected OME-Zarr {VERSION}, got version {version}")
    about = attributes.get(ABOUT, {})
    wanted = ("affine", "channels") if group == case else ("affine",)
    if missing := [key for key in wanted if key not in about]:
        raise CaseError(f"{group}: expected a case of a cohort, with {ABOUT}.{missing[0]} in its attributes")
    return about


def _attributes(case: Path, group: Path) -> dict[str, Any]:
    file = group / "zarr.json"
    if not file.is_file():
        if (group / ".zattrs").is_file() or (group / ".zgroup").is_file():
            raise CaseError(f"{group}: expected OME-Zarr {VERSION}, got a version before it (Zarr 2)")
        missing = file.relative_to(case).as_posix()
        raise CaseError(f"{case}: half-written, no {missing}; the command that makes the cohort makes it again")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if (content["zarr_format"], content["node_type"]) == (3, "group"):
            return content.get("attributes", {})
    except (ValueError, KeyError, TypeError) as error:
        raise CaseError(f"{file}: damaged, expected what Zarr 3 says of a group: {error}") from error
    raise CaseError(f"{file}: expected a group of Zarr 3, got {content['node_type']} of Zarr {content['zarr_format']}")


def _refuse_missing(case: str, place: Path, array: Any, part: Sequence[int]) -> None:
    """Refuse an array that lacks an object: Zarr reads what is not there as zeros."""
    sides = array.shards or array.chunks
    chosen = [[number // side] for number, side in zip(part, sides, strict=False)]
    grid = [range(-(-n // side)) for n, side in zip(array.shape[len(part) :], sides[len(part) :], strict=True)]
    for numbers in itertools.product(*chosen, *grid):
        file = place / "c" / "/".join(map(str, numbers))
        if not file.is_file():
            raise CaseError(f"{case}: half-written, no {file}; the command that makes the cohort makes it again")
