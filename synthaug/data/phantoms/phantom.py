"""Procedural brains with gliomas: data for examples, tests and tutorials that may go anywhere, made in a moment.

The brain is drawn in units of its half-size: an envelope, sulci where smooth noise crosses zero, grey matter around
them, ventricles, deep nuclei, cerebellum and brain stem. It has the contrasts of an MR brain, not its anatomy.
"""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from synthaug.classes import BRATS18, Classes
from synthaug.data.cases import Case, find_cases
from synthaug.data.nifti import LabelledVolume
from synthaug.data.phantoms.glioma import check_glioma_classes, grow_glioma, label_of, replace_tissue
from synthaug.data.phantoms.mr import SEQUENCES, TISSUES, acquire, band_noise, check_sequences, sigmoid
from synthaug.random import stream

SMALLEST_SIDE = 24
"""Fewest voxels along an axis; below this nothing of a brain is left."""

_NUCLEI = (  # centre (left and right alike) and radii of thalamus, caudate and putamen
    ((0.12, -0.10, 0.00), (0.09, 0.15, 0.10)),
    ((0.19, 0.24, 0.10), (0.06, 0.13, 0.11)),
    ((0.32, 0.10, -0.02), (0.06, 0.18, 0.12)),
)


def phantom_case(
    seed: int,
    size: Sequence[int] = (96, 96, 96),
    classes: Classes = BRATS18,
    channels: Sequence[str] = SEQUENCES,
    tumour: bool = True,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> LabelledVolume:
    """Make one procedural brain, with a nested glioma where wanted; about 0.3 s at 96^3.

    Args:
        seed: the patient; the same seed and size give the same voxels. The global random state is left alone.
        size: voxels along X, Y, Z; at least 24 each. The brain fills the field of view.
        classes: label values of NCR, ED and ET; or a single class, which is then the whole tumour.
        channels: any of flair, t1, t1ce, t2, in the order wanted.
        tumour: whether there is a glioma, of 8 to 40 mm in diameter (at least 5 voxels, at most 0.45 of the
            shortest side). The healthy brain of the same seed has the same anatomy.
        spacing_mm: voxel size; it decides how many voxels a tumour has.

    Returns:
        A `Volume`: raw intensities, whole numbers above 0 in the brain and exactly 0 outside; a label of zeros
        where there is no tumour; a diagonal affine.

    Raises:
        ValueError: a size, spacing, channel or vocabulary that does not fit.
    """
    channels = check_sequences(channels)
    check_glioma_classes(classes)
    size, spacing = tuple(int(n) for n in size), tuple(float(s) for s in spacing_mm)
    if len(size) != 3 or min(size) < SMALLEST_SIDE:
        raise ValueError(f"size: expected three sides of at least {SMALLEST_SIDE} voxels, got {size}")
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing_mm: expected three lengths above 0, got {spacing}")
    rng_anatomy, rng_tumour, rng_scan = (stream(seed, part) for part in range(3))
    fractions, brain = _anatomy(size, rng_anatomy)
    label = np.zeros(size, np.int16)
    if tumour:
        glioma = grow_glioma(fractions, brain, spacing, rng_tumour)
        fractions, label = replace_tissue(fractions, glioma), label_of(glioma, classes)
    image = acquire(fractions, brain, channels, rng_scan)
    return LabelledVolume(image=image, label=label, affine=np.diag([*spacing, 1.0]), spacing_mm=spacing)


def write_phantom_dataset(
    folder: str | Path,
    count: int,
    seed: int = 0,
    size: Sequence[int] = (96, 96, 96),
    tumour_free: int = 0,
    classes: Classes = BRATS18,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> list[Case]:
    """Write phantoms as case folders with the file names of BraTS 2018.

    Args:
        folder: made if it is not there; must hold no NIfTI files yet.
        count: number of cases: ``Phantom_000_1``, ``Phantom_001_1``, ...; each is a patient of its own.
        seed: case number i is the phantom of ``seed + i``.
        size: voxels along X, Y, Z.
        tumour_free: number of cases, the last ones, that have no tumour.
        classes: label values.
        spacing_mm: voxel size.

    Returns:
        The cases, as `find_cases` finds them.

    Raises:
        ValueError: counts that do not fit, or a folder that holds NIfTI files already.
    """
    folder = Path(folder)
    if count < 1 or not 0 <= tumour_free <= count:
        raise ValueError(f"expected count >= 1 and 0 <= tumour_free <= count, got {count} and {tumour_free}")
    if folder.is_dir() and any(folder.rglob("*.nii*")):
        raise ValueError(f"{folder} holds NIfTI files already; give an empty folder")
    for index in range(count):
        tumour = index < count - tumour_free
        volume = phantom_case(seed + index, size, classes, tumour=tumour, spacing_mm=spacing_mm)
        _write_case(folder, f"Phantom_{index:03d}_1", volume)
    return find_cases(folder)


def _write_case(folder: Path, name: str, volume: LabelledVolume) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    arrays = {**dict(zip(SEQUENCES, volume.image, strict=True)), "seg": volume.label}
    for tag, voxels in arrays.items():
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), volume.affine), folder / name / f"{name}_{tag}.nii.gz")


def _anatomy(size: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw tissue fractions (T, X, Y, Z) and the brain (X, Y, Z) bool, in a field of view of any shape."""
    half = float(np.mean(size)) / 2
    soft = 0.45 / half  # half a voxel: partial volume
    grid = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij")
    x, y, z = (g + 0.03 * band_noise(rng, size, 0.8 * max(size)) for g in grid)
    depth = 1 - _envelope(x, y, z, rng)
    cerebellum, brain_stem = _radius(x, y, z, (0, -0.52, -0.64), (0.52, 0.36, 0.28)), np.hypot(x, y + 0.08)
    stem = (brain_stem < 0.13) & (z < -0.35)

    gap = _distance_to_csf(x, depth, cerebellum, half, rng)
    gap = np.where(stem, (0.13 - brain_stem).clip(min=0) + 0.03, gap)
    width = rng.uniform(0.006, 0.02)  # of sulci; wide in atrophy
    thickness = np.where(cerebellum < 1, 0.02, 0.05)
    csf = np.maximum(sigmoid((width - gap) / soft), _ventricles(x, y, z, soft, rng))
    nuclei = sigmoid((1 - _nuclei_radius(x, y, z)) * 0.1 / soft)
    gm = np.maximum(sigmoid((width + thickness - gap) / soft) * ~stem, 0.85 * nuclei) * (1 - csf)
    vessel = csf * sigmoid((band_noise(rng, size, 0.3 * half) - 1.8) / 0.2) * (depth < 0.35)
    fractions = np.zeros((len(TISSUES), *size), np.float32)
    for name, share in {"CSF": csf - vessel, "GM": gm, "WM": 1 - csf - gm, "vessel": vessel}.items():
        fractions[TISSUES.index(name)] = share
    return fractions, depth > 0


def _envelope(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compute the envelope, 1 on the brain's surface, less inside: a rounded box, narrow in front, flat below."""
    a, b, c = rng.uniform(0.88, 0.95, 3).tolist()
    parts = (x / (a * (1 - 0.13 * y)), y / b, z / np.where(z < 0, c, 0.97 * c))
    return sum(np.abs(p) ** 2.3 for p in parts) ** (1 / 2.3)


def _radius(x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    return np.sqrt(sum(((p - m) / r) ** 2 for p, m, r in zip((x, y, z), centre, radii, strict=True)))


def _distance_to_csf(
    x: np.ndarray, depth: np.ndarray, cerebellum: np.ndarray, half: float, rng: np.random.Generator
) -> np.ndarray:
    """Measure the distance from the surface, the sulci, the midline fissure and the tentorium, whichever is nearest.

    A sulcus is a sheet where noise of wavelength w crosses zero: at a value n it is about n w / (2 pi) away.
    """
    size = x.shape
    wavelength, fine = rng.uniform(0.25, 0.32), 0.15
    folds = np.abs(band_noise(rng, size, wavelength * half)) * wavelength / (2 * np.pi)
    folia = np.abs(band_noise(rng, size, fine * half)) * fine / (2 * np.pi)
    deepest = 0.33 + 0.10 * band_noise(rng, size, 0.6 * half)
    sulci = np.where(cerebellum < 1, folia + 0.02, np.hypot(folds, (depth - deepest).clip(min=0)))
    fissure = np.hypot(x, (depth - 0.42).clip(min=0))
    tentorium = np.where(depth < 0.6, np.abs(cerebellum - 1) * 0.42, 1.0)
    return np.stack([depth, sulci, fissure, tentorium]).min(axis=0)


def _ventricles(x: np.ndarray, y: np.ndarray, z: np.ndarray, soft: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the lateral ventricles, two arches from front to back that part behind, and the slit of the third."""
    side, along = np.abs(x), (y + 0.05) / 0.42
    width = rng.uniform(0.055, 0.11)
    across = side - 0.075 - 0.14 * (-along).clip(min=0) ** 2
    arch = np.hypot(across, (z - 0.16 + 0.14 * along**2) / 1.6) + 0.4 * (np.abs(along) - 1).clip(min=0)
    third = (_radius(x, y, z, (0, -0.02, -0.06), (0.025, 0.16, 0.13)) - 1) * 0.025 + width
    return sigmoid((width - np.minimum(arch, third)) / soft)


def _nuclei_radius(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.stack([_radius(np.abs(x), y, z, centre, radii) for centre, radii in _NUCLEI]).min(axis=0)
