"""The voxels of one NIfTI file, checked, and of one case, as arrays."""

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from synthaug.data.tars import read_file

AFFINE_TOLERANCE = 1e-3
"""Largest difference, in mm or mm per voxel, between two affines that count as the same."""

_READ_ERRORS = (
    *(OSError, EOFError, zlib.error, ValueError),
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError),
)


class CaseError(ValueError):
    """A case that cannot be used; the message names the case, the file and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Volume:
    """The voxels of one case.

    Attributes:
        image: (C, X, Y, Z) float32, intensities as stored.
        label: (X, Y, Z) int16, values as stored, or None where the case has no label.
        affine: (4, 4) float64, voxel indices to mm.
        spacing_mm: voxel size along X, Y, Z.
    """

    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class LabelledVolume(Volume):
    """The voxels of a case that has a label."""

    label: np.ndarray


@dataclass(frozen=True, eq=False)
class Stored:
    """A file as it is stored, so that it can be written again with nothing changed but what is meant to change.

    Attributes:
        header: as in the file, with its scale factors, offset and extensions.
        raw: (X, Y, Z) or (X, Y, Z, V) in the file's dtype and byte order, before scaling.
        scaled: the same, scaled as the header says; `raw` itself where the header says nothing.
        affine: (4, 4).
        slope: factor of the scaling.
        inter: offset of the scaling.
    """

    header: nib.Nifti1Header
    raw: np.ndarray
    scaled: np.ndarray
    affine: np.ndarray
    slope: float = 1.0
    inter: float = 0.0

    def stored_values(self, values: np.ndarray) -> np.ndarray:
        """Convert scaled intensities to stored values: rounded and clipped to the range where the dtype is integer."""
        raw = (values.astype(np.float64) - self.inter) / self.slope
        if self.raw.dtype.kind in "iu":
            limits = np.iinfo(self.raw.dtype)
            raw = np.clip(np.rint(raw), limits.min, limits.max)
        return raw.astype(self.raw.dtype)


def read_stored(case: str, path: Path, volumes: int) -> Stored:
    """Read one file whole, so that the checksum of a compressed one is checked too.

    Args:
        case: name of the case, for messages.
        path: a NIfTI-1 or NIfTI-2 file, gzip-compressed where it ends in ``.gz``.
        volumes: number of volumes that it should have: 1 for a 3-D image.

    Raises:
        CaseError: the file cannot be read, or its dimensions, voxels or affine are not usable.
    """
    try:
        content = read_file(path)
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        nifti = nifti_of(content)
        header = type(nifti.header).from_fileobj(io.BytesIO(content))
        proxy = cast(ArrayProxy, nifti.dataobj)  # as of every image that was read
        raw, voxels = proxy.get_unscaled(), np.asanyarray(proxy)
    except _READ_ERRORS as error:
        raise CaseError(f"{case}: cannot read {path} as NIfTI: {error or type(error).__name__}") from error
    stored = Stored(header, raw, voxels, nifti.affine, float(proxy.slope), float(proxy.inter))
    return checked(case, path, stored, volumes)


def checked(case: str, path: Path, stored: Stored, volumes: int) -> Stored:
    """Check that what was read of a file is usable, and give it back.

    Args:
        case: name of the case, for messages.
        path: of the file, for messages.
        stored: what was read.
        volumes: number of volumes that it should have: 1 for a 3-D image.

    Raises:
        CaseError: voxels that are no finite numbers, other dimensions, or an affine that cannot be inverted.
    """
    voxels, affine = stored.scaled, stored.affine
    if voxels.dtype.kind not in "iufb":
        raise CaseError(f"{case}: {path} has voxels of type {voxels.dtype}, expected numbers")
    with_volumes = voxels.shape if voxels.ndim != 3 else (*voxels.shape, 1)
    if len(with_volumes) != 4 or with_volumes[-1] != volumes or 0 in with_volumes:
        expected = "(X, Y, Z)" if volumes == 1 else f"(X, Y, Z, {volumes})"
        raise CaseError(f"{case}: {path} has the shape {voxels.shape}, expected {expected}")
    with np.errstate(over="ignore"):
        finite = np.isfinite(voxels.astype(np.float32, copy=False))
    if not finite.all():
        raise CaseError(f"{case}: {path} has {int((~finite).sum())} voxels that are not finite")
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise CaseError(f"{case}: {path} has an affine that is no invertible matrix: {affine.tolist()}")
    return stored


def nifti_of(content: bytes) -> nib.Nifti1Image:
    """Decode a NIfTI-1 or NIfTI-2 file, gzip-compressed or not; voxels are decoded when they are asked for."""
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    is_nifti2 = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
    return (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(content)


def volumes_first(voxels: np.ndarray) -> np.ndarray:
    """Turn (X, Y, Z, V) or (X, Y, Z) voxels into (V, X, Y, Z)."""
    return voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)


def nifti_bytes(
    like: nib.Nifti1Header, raw: np.ndarray, level: int | None = 1, scaling: Sequence[float] | None = None
) -> bytes:
    """Encode a NIfTI file with a header like another file's: its affine, units, description and extensions are kept.

    The same voxels give the same bytes whenever they are written: no time stamp goes into the compressed file.

    Args:
        like: the header, of `Stored`; left as it is.
        raw: (X, Y, Z) or (X, Y, Z, V), stored values; dtype and shape go into the new header where they differ.
        level: level of gzip compression, 1 to 9, or None for a file without.
        scaling: slope and intercept in place of those of `like`.
    """
    header = like.copy()
    if header.get_data_shape() != raw.shape:
        header.set_data_shape(raw.shape)
        if raw.ndim == 4 and not header["pixdim"][4] > 0:
            header["pixdim"][4] = 1  # a step of 0 between volumes is an error for some readers
    if header.get_data_dtype().newbyteorder("=") != raw.dtype.newbyteorder("="):
        header.set_data_dtype(raw.dtype)
    if scaling is not None:
        header["scl_slope"], header["scl_inter"] = scaling
    beside = io.BytesIO()
    header.write_to(beside)
    head = beside.getvalue().ljust(int(header["vox_offset"]), b"\0")
    content = head + raw.astype(header.get_data_dtype(), copy=False).tobytes(order="F")
    return content if level is None else gzip.compress(content, level, mtime=0)


def check_same_grid(case: str, path_a: Path, a: tuple, path_b: Path, b: tuple) -> None:
    """Check that two files, given with what `read_voxels` returned, have one shape and one affine.

    Raises:
        CaseError: they do not.
    """
    if a[0].shape[1:] != b[0].shape[1:]:
        raise CaseError(f"{case}: {path_b} has the shape {b[0].shape[1:]}, but {path_a.name} has {a[0].shape[1:]}")
    difference = float(np.abs(a[1] - b[1]).max())
    if difference > AFFINE_TOLERANCE:
        raise CaseError(f"{case}: the affine of {path_b} differs from that of {path_a.name} by {difference:.4g}")


def as_label(case: str, path: Path, voxels: np.ndarray) -> np.ndarray:
    """Convert a label map's voxels (X, Y, Z) to int16.

    Raises:
        CaseError: a value that is not integral or does not fit.
    """
    limits = np.iinfo(np.int16)
    if (voxels != np.rint(voxels)).any() or voxels.min() < limits.min or voxels.max() > limits.max:
        raise CaseError(
            f"{case}: the label {path} has values from {voxels.min():g} to {voxels.max():g} "
            "that are not all integers of 16 bits"
        )
    return voxels.astype(np.int16)
