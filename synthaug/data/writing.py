"""A case back to NIfTI: affine, dtype, scaling and every untouched voxel as they were."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synthaug.data.bids import DERIVATIVES
from synthaug.data.cases import Case, StoredCase, load_stored
from synthaug.data.nifti import Stored, nifti_bytes, volumes_first
from synthaug.data.stored import is_packed
from synthaug.files import replace_files

UNSCALED = (1.0, 0.0)
"""Slope and intercept of a label map."""


def write_case(
    case: Case, image: Mapping[str, np.ndarray], label: np.ndarray, out: str | Path, root: str | Path | None = None
) -> list[Path]:
    """Write a changed case into a folder, under the names of its files.

    A voxel whose intensity did not change keeps its stored value, bit for bit; so does a channel that is not given.
    Changed ones are rounded and clipped to the range of the file's dtype, through its scale factors. All files are
    written beside first and then renamed.

    Args:
        case: case whose files are changed.
        image: channel name to (X, Y, Z) intensities, scaled as the files' headers say.
        label: (X, Y, Z) integer label map; takes the dtype of the case's own, or uint8 where it had none.
        out: folder, made where it is missing.
        root: of the case's data set, where files keep their places below it, as nnU-Net and BIDS need; in `out` itself
            otherwise.

    Returns:
        The files, images first, the label last.

    Raises:
        CaseError: a file of the case that cannot be read.
        ValueError: `out` is the case's own folder, which would overwrite it; or a label that its dtype cannot hold.
    """
    places = case_places(case, out, root)
    if {path.resolve() for path in places.values()} & {path.resolve() for path in places}:
        raise ValueError(f"{case.name}: {out} holds the case itself; expected another folder to write to")
    stored = load_stored(case, tuple(case.images), require_label=False)
    made = {
        places[path]: nifti_bytes(f.header, _changed(case, path, f, image), _level(places[path]))
        for path, f in stored.files.items()
    }
    target = places[label_file(case)]
    made[target] = _label_bytes(case, stored, label, _level(target))
    return replace_files(made)


def case_places(case: Case, out: str | Path, root: str | Path | None = None) -> dict[Path, Path]:
    """Where `write_case` puts each of a case's files: images, then the label, also where the case has none yet.

    What lies in an archive or in OME-Zarr gets the names of BraTS's layout, ``<case>_<channel>.nii.gz``.
    """
    names = {path: f"{case.name}_{channel}.nii.gz" for channel, path in case.images.items() if is_packed(path)}
    label = label_file(case)
    if is_packed(label):
        names[label] = f"{case.name}_seg.nii.gz"
    files = [*dict.fromkeys(case.images.values()), label]
    at = {path: names.get(path, path.name if root is None else path.relative_to(root)) for path in files}
    return {path: Path(out) / place for path, place in at.items()}


def label_file(case: Case) -> Path:
    """The label map of a case, or where its layout would have it."""
    if case.label is not None:
        return case.label
    image = next(iter(case.images.values()))
    if image.parent.name in ("imagesTr", "imagesTs"):
        return image.parent.with_name(image.parent.name.replace("images", "labels")) / f"{case.name}.nii.gz"
    if image.parent.name == "anat" and case.group.startswith("sub-"):
        root = next(p for p in image.parents if p.name == case.group).parent
        return root / DERIVATIVES / "tumours" / image.parent.relative_to(root) / f"{case.name}_dseg.nii.gz"
    return image.parent / f"{case.name}_seg.nii.gz"


def _level(path: Path) -> int | None:
    """Choose the level of compression by a file's name."""
    return 1 if path.name.endswith(".gz") else None


def _changed(case: Case, path: Path, file: Stored, image: Mapping[str, np.ndarray]) -> np.ndarray:
    """The stored values of a file with the new intensities of its channels where they differ from its own."""
    raw, own = np.array(file.raw), volumes_first(file.scaled).astype(np.float32)
    names = [name for name, other in case.images.items() if other == path]
    volumes = np.stack([image.get(name, volume) for name, volume in zip(names, own, strict=True)])
    changed = volumes != own
    volumes_first(raw)[changed] = file.stored_values(volumes[changed])
    return raw


def _label_bytes(case: Case, stored: StoredCase, label: np.ndarray, level: int | None) -> bytes:
    like = next(iter(stored.files.values())) if stored.label is None else stored.label
    dtype = np.dtype(np.uint8) if stored.label is None else like.raw.dtype
    values = label.astype(dtype)
    if (values != label).any():
        raise ValueError(f"{case.name}: the label has values up to {label.max()}, which {dtype} cannot hold")
    return nifti_bytes(like.header, values, level, UNSCALED)
