"""A case back to NIfTI: affine, dtype, scaling and every untouched voxel as they were."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synthaug.data.cases import Case, StoredCase, load_stored
from synthaug.data.nifti import Stored, nifti_bytes, volumes_first
from synthaug.files import replace_files

UNSCALED = (1.0, 0.0)
"""Slope and intercept of a label map."""


def write_case(case: Case, image: Mapping[str, np.ndarray], label: np.ndarray, out: str | Path) -> list[Path]:
    """Write a changed case into a folder, under the names of its files.

    A voxel whose intensity did not change keeps its stored value, bit for bit. Changed ones are rounded and clipped
    to the range of the file's dtype, through its scale factors. All files are written beside first and then renamed.

    Args:
        case: case whose files are changed.
        image: channel name to (X, Y, Z) intensities, scaled as the files' headers say.
        label: (X, Y, Z) integer label map; takes the dtype of the case's own, or uint8 where it had none.
        out: folder, made where it is missing.

    Returns:
        The files, images first, the label last.

    Raises:
        CaseError: a file of the case that cannot be read.
        ValueError: `out` is the case's own folder, which would overwrite it; or a label that its dtype cannot hold.
    """
    out = Path(out)
    sources = set(case.images.values()) | ({case.label} if case.label else set())
    if any(path.parent.resolve() == out.resolve() for path in sources):
        raise ValueError(f"{case.name}: {out} holds the case itself; expected another folder to write to")
    stored = load_stored(case, tuple(case.images), require_label=False)
    made = {}
    for path, file in stored.files.items():
        volumes = np.stack([image[name] for name, other in case.images.items() if other == path])
        made[out / path.name] = nifti_bytes(file.header, _changed(file, volumes), _level(path))
    name = case.label.name if case.label else f"{case.name}_seg.nii.gz"
    made[out / name] = _label_bytes(case, stored, label, _level(Path(name)))
    return replace_files(made)


def _level(path: Path) -> int | None:
    """Choose the level of compression by a file's name."""
    return 1 if path.name.endswith(".gz") else None


def _changed(file: Stored, volumes: np.ndarray) -> np.ndarray:
    """Put new intensities (V, X, Y, Z) into the stored values of a file where they differ from its own."""
    raw = np.array(file.raw)
    changed = volumes != volumes_first(file.scaled).astype(np.float32)
    volumes_first(raw)[changed] = file.stored_values(volumes[changed])
    return raw


def _label_bytes(case: Case, stored: StoredCase, label: np.ndarray, level: int | None) -> bytes:
    like = next(iter(stored.files.values())) if stored.label is None else stored.label
    dtype = np.dtype(np.uint8) if stored.label is None else like.raw.dtype
    values = label.astype(dtype)
    if (values != label).any():
        raise ValueError(f"{case.name}: the label has values up to {label.max()}, which {dtype} cannot hold")
    return nifti_bytes(like.header, values, level, UNSCALED)
