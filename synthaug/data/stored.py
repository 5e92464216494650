"""The files of a case whatever they are: NIfTI, by themselves or in archives, and arrays of OME-Zarr."""

from pathlib import Path

import numpy as np

from synthaug.data import nifti, ome_zarr, tars
from synthaug.data.nifti import Stored, nifti_bytes, volumes_first


def read_stored(case: str, path: Path, volumes: int) -> Stored:
    """Read one file whole.

    Args:
        case: name of the case, for messages.
        path: a NIfTI file, a member of an archive, or an array of OME-Zarr, as `Case` has them.
        volumes: number of volumes that it should have: 1 for a 3-D image.

    Raises:
        CaseError: it cannot be read, or its dimensions, voxels or affine are not usable.
        ModuleNotFoundError: a package that it needs is not installed.
    """
    if ome_zarr.split_case(path) is not None:
        return ome_zarr.read_array(case, path)
    return nifti.read_stored(case, path, volumes)


def read_voxels(case: str, path: Path, volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels (volumes, X, Y, Z) of one file, scaled as it says, and the affine (4, 4); as `read_stored`."""
    stored = read_stored(case, path, volumes)
    return volumes_first(stored.scaled), stored.affine


def read_as_nifti(case: str, path: Path) -> bytes:
    """Read a file as NIfTI bytes, as they are where it is one, without compression where it is not.

    Raises:
        CaseError: as `read_stored`, for arrays of OME-Zarr.
        OSError: a file that is not there or cannot be read.
    """
    if ome_zarr.split_case(path) is None:
        return tars.read_file(path)
    stored = ome_zarr.read_array(case, path)
    return nifti_bytes(stored.header, stored.raw, None)


def size_and_time(path: Path) -> tuple[int, int] | None:
    """Bytes and time in ns of the last change of a file, of its archive or array; None where it is not there."""
    return tars.size_and_time(path) if ome_zarr.split_case(path) is None else ome_zarr.size_and_time(path)


def is_packed(path: Path) -> bool:
    """Whether a path goes on within an archive or a case of OME-Zarr."""
    return tars.split_member(path.as_posix()) is not None or ome_zarr.split_case(path) is not None
