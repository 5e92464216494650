"""Maps that lie beside a case's images: where lesions may lie, and how often they do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthaug.classes import Classes
from synthaug.data.cases import Case, folder_of
from synthaug.data.nifti import CaseError, Volume, check_same_grid
from synthaug.data.stored import read_voxels
from synthaug.host.space import Space

MAP_ENDINGS = (".nii.gz", ".nii", ".npy")


def read_map(case: Case, name: str, volume: Volume) -> np.ndarray:
    """Read a map of a case's voxels.

    Args:
        case: case that the map is of.
        name: name of the file in the folder of the case's images, ``.nii``, ``.nii.gz`` or ``.npy``; one that begins
            with ``_`` or ``-`` follows the case's name, as in ``_host.nii.gz``. Or a folder of maps that are
            called like the cases.
        volume: voxels of the case, which the map must fit.

    Returns:
        (X, Y, Z) float32, in the axes of the case's files.

    Raises:
        CaseError: no such file, one that cannot be read, of another shape or affine, or with values that are not
            finite or below 0.
    """
    path = _map_path(case, name)
    grid = volume.image[:1]
    if path.suffix == ".npy":
        found = _numpy_map(case.name, path)[None], volume.affine
    else:
        found = read_voxels(case.name, path, 1)
    check_same_grid(case.name, Path("image"), (grid, volume.affine), path, found)
    values = found[0][0].astype(np.float32)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise CaseError(f"{case.name}: {path} expected finite values of at least 0, got others")
    return values


def _map_path(case: Case, name: str) -> Path:
    if Path(name).is_dir():
        return next(
            (p for end in MAP_ENDINGS if (p := Path(name) / f"{case.name}{end}").is_file()), Path(name) / case.name
        )
    return folder_of(case) / (case.name + name if name.startswith(("_", "-")) else name)


def host_of_case(case: Case, volume: Volume, space: Space, channels: Sequence[str], classes: Classes) -> np.ndarray:
    """Find host tissue of a case by the rule of a space, (X, Y, Z) bool.

    Raises:
        CaseError: a mask that the rule has and that cannot be used.
    """
    mask = None if space.rule.masks is None else read_map(case, space.rule.masks, volume)
    return space.host_of(volume.image, volume.label, channels, classes, volume.spacing_mm, mask).numpy()


def _numpy_map(case: str, path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CaseError(f"{case}: cannot read {path} as an array: {error}") from error
    if values.dtype.kind not in "iufb":
        raise CaseError(f"{case}: {path} has values of type {values.dtype}, expected numbers")
    return values
