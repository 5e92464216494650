"""A case back to NIfTI: affine, dtype, scaling and every untouched voxel as they were."""

import os
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from synthaug.data.cases import Case


def write_case(case: Case, image: Mapping[str, np.ndarray], label: np.ndarray, out: str | Path) -> list[Path]:
    """Write a changed case into a folder, under the names of its files.

    A voxel whose intensity did not change keeps its stored value, bit for bit. Changed ones are rounded and clipped
    to the range of the file's dtype, through its scale factors. All files are written beside first and then renamed.

    Args:
        case: where the original files are.
        image: channel name to (X, Y, Z) intensities, scaled as the files' headers say.
        label: (X, Y, Z) integer label map; takes the dtype of the case's own, or uint8 where it had none.
        out: folder, made where it is missing.

    Returns:
        The files, images first, the label last.

    Raises:
        ValueError: `out` is the case's own folder, which would overwrite it; or a label that its dtype cannot hold.
    """
    out = Path(out)
    sources = set(case.images.values()) | ({case.label} if case.label else set())
    if any(path.parent.resolve() == out.resolve() for path in sources):
        raise ValueError(f"{case.name}: {out} holds the case itself; expected another folder to write to")
    by_file: dict[Path, list[np.ndarray]] = {}
    for channel, path in case.images.items():
        by_file.setdefault(path, []).append(image[channel])
    made = {path.name: _changed_image(path, volumes) for path, volumes in by_file.items()}
    first = next(iter(by_file))
    label_name = case.label.name if case.label else f"{case.name}_seg.nii.gz"
    made[label_name] = _label_image(case, nib.load(first), label)
    return _written(made, out)


def _changed_image(path: Path, volumes: list[np.ndarray]) -> nib.Nifti1Image:
    source = nib.load(path)
    raw = np.array(source.dataobj.get_unscaled())
    slope, inter = source.dataobj.slope, source.dataobj.inter
    new = np.stack(volumes, -1) if raw.ndim == 4 else volumes[0]
    before = np.asarray(source.dataobj, dtype=np.float32)
    changed = new != before
    values = (new[changed].astype(np.float64) - inter) / slope
    if raw.dtype.kind in "iu":
        limits = np.iinfo(raw.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    raw[changed] = values.astype(raw.dtype)
    image = type(source)(raw, source.affine, source.header)
    image.header.set_slope_inter(slope, inter)
    return image


def _label_image(case: Case, like: nib.Nifti1Image, label: np.ndarray) -> nib.Nifti1Image:
    source = nib.load(case.label) if case.label else None
    dtype = source.get_data_dtype() if source is not None else np.dtype(np.uint8)
    values = label.astype(dtype)
    if (values != label).any():
        raise ValueError(f"{case.name}: the label has values up to {label.max()}, which {dtype} cannot hold")
    header = (like if source is None else source).header.copy()
    header.set_data_dtype(dtype)
    header.set_data_shape(values.shape)
    image = type(like)(values, like.affine, header)
    image.header.set_slope_inter(1, 0)
    return image


def _written(images: Mapping[str, nib.Nifti1Image], out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    beside = {name: out / f".{os.getpid()}-{name}" for name in images}
    try:
        for name, image in images.items():
            nib.save(image, beside[name])
        return [path.replace(out / name) for name, path in beside.items()]
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
