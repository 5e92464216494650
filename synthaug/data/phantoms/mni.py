"""Phantoms on real anatomy: the MNI152 tissue maps that come inside nilearn's package, so nothing is downloaded.

The maps are averages of 152 brains: V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric
studies", NeuroImage 54 (2011), ICBM 2009a nonlinear symmetric. Each seed deforms and sharpens them differently,
so that two seeds are two patients.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from synthaug.classes import BRATS18, Classes
from synthaug.data.nifti import LabelledVolume
from synthaug.data.phantoms.glioma import check_glioma_classes, grow_glioma, label_of, replace_tissue
from synthaug.data.phantoms.mr import SEQUENCES, TISSUES, acquire, band_noise, check_sequences, sigmoid
from synthaug.random import stream

_MARGIN_VOX = 12
"""Room around the brain for the deformation."""


def mni_phantom(
    seed: int, classes: Classes = BRATS18, channels: Sequence[str] = SEQUENCES, tumour: bool = True
) -> LabelledVolume:
    """Make one brain of MNI152 anatomy at 1 mm, cropped to its box, with a nested glioma where wanted; about 3 s.

    Args:
        seed: the patient; the same seed gives the same voxels. The global random state is left alone.
        classes: label values of NCR, ED and ET; or a single class, which is then the whole tumour.
        channels: any of flair, t1, t1ce, t2, in the order wanted.
        tumour: whether there is a glioma, of 8 to 40 mm in diameter.

    Returns:
        A `Volume` of about 145 x 185 x 155 voxels: raw intensities, exactly 0 outside the brain; a label of zeros
        where there is no tumour; the affine leads to MNI coordinates in mm.

    Raises:
        ImportError: nilearn is not installed.
        ValueError: a channel or vocabulary that does not fit.
    """
    channels = check_sequences(channels)
    check_glioma_classes(classes)
    template, affine = _template()
    rng_anatomy, rng_tumour, rng_scan = (stream(seed, part) for part in range(3))
    fractions, brain, corner = _patient(template, rng_anatomy)
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ corner
    label = np.zeros(brain.shape, np.int16)
    if tumour:
        glioma = grow_glioma(fractions, brain, (1.0, 1.0, 1.0), rng_tumour)
        fractions, label = replace_tissue(fractions, glioma), label_of(glioma, classes)
    image = acquire(fractions, brain, channels, rng_scan)
    return LabelledVolume(image=image, label=label, affine=affine, spacing_mm=(1.0, 1.0, 1.0))


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray]:
    """Load CSF, grey and white matter (3, X, Y, Z) float32 that sum to 1 in the brain, and the affine; 1 mm."""
    try:
        from nilearn import datasets
        from scipy.ndimage import binary_fill_holes
    except ImportError as error:
        raise ImportError('the MNI152 phantom needs nilearn: pip install "synthaug[demo]"') from error
    image = datasets.load_mni152_gm_template(resolution=1)
    gm, wm = (np.asarray(i.dataobj, dtype=np.float32) for i in (image, datasets.load_mni152_wm_template(resolution=1)))
    mask = binary_fill_holes(np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0)
    maps = np.stack([mask * (1 - gm - wm).clip(0, 1), mask * gm, mask * wm])
    low, high = _box(mask, _MARGIN_VOX)
    affine = np.array(image.affine, dtype=float)
    affine[:3, 3] += affine[:3, :3] @ low
    return maps[(slice(None), *map(slice, low, high))].copy(), affine


def _patient(template: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw tissue fractions (T, X, Y, Z) and brain (X, Y, Z) of a patient in the brain's box, and the box's corner."""
    from scipy.ndimage import map_coordinates  # comes with nilearn

    size = template.shape[1:]
    scale = rng.uniform(0.96, 1.04, 3).tolist()
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    points = np.empty((3, *size), np.float32)
    for axis, n in enumerate(size):
        shift_vox = 2.5 * band_noise(rng, size, 60) + 0.7 * band_noise(rng, size, 20)
        points[axis] = (grid[axis] - (n - 1) / 2) / scale[axis] + (n - 1) / 2 + shift_vox
    warped = np.stack([map_coordinates(tissue, points, order=1) for tissue in template])
    brain = warped.sum(0) > 0.5
    low, high = _box(brain, 2)
    window = tuple(map(slice, low, high))
    warped, brain = warped[(slice(None), *window)], brain[window]
    return _sharpen(warped, brain, rng), brain, low


def _sharpen(warped: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one brain's folds from the average's: smooth noise on the log-odds of the tissues, and a power of them."""
    size = brain.shape
    noise = np.stack([0.8 * band_noise(rng, size, 9) for _ in warped])
    noise[0] += 2.5 * np.exp(-((band_noise(rng, size, 18) / 0.25) ** 2))  # sulci, which the average has lost
    certain = (warped > 0.97).any(0)  # ventricles and deep white matter keep their outline
    odds = np.exp(2.2 * (np.log(warped.clip(1e-4, 1)) + noise * ~certain))
    csf, gm, wm = odds / odds.sum(0) * brain
    vessel = csf * sigmoid((band_noise(rng, size, 12) - 2.2) / 0.2)
    fractions = np.zeros((len(TISSUES), *size), np.float32)
    for name, share in {"CSF": csf - vessel, "GM": gm, "WM": wm, "vessel": vessel}.items():
        fractions[TISSUES.index(name)] = share
    return fractions


def _box(mask: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Find first and one-past-last voxel of a mask along each axis, with a margin inside the array."""
    where = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    low = np.array([max(int(w[0]) - margin, 0) for w in where])
    high = np.array([min(int(w[-1]) + 1 + margin, n) for w, n in zip(where, mask.shape, strict=True)])
    return low, high
