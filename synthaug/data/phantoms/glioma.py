"""A glioma for the phantoms: where it sits, which voxels are necrosis, enhancing rim and oedema, and how soft it is.

It is grown by rank: each part takes the voxels with the lowest value of a field (distance from a centre, made
irregular by smooth noise) until it has the volume that was drawn for it, so that no class is ever empty.
"""

from dataclasses import dataclass

import cc3d
import numpy as np

from synthaug.classes import Classes
from synthaug.data.phantoms.mr import TISSUES, band_noise, sigmoid

DIAMETERS_MM = (8.0, 40.0)
"""Range of the whole tumour's diameter, that of the ball of its volume."""

_LARGEST_SHARE = 0.45
"""Largest tumour diameter, as a share of the field of view's shortest side."""

_FEWEST_VOX = 5
"""Smallest tumour diameter in voxels; in fewer there is no room for three classes."""


@dataclass(frozen=True)
class Glioma:
    """A glioma in a field of view; every array is (X, Y, Z).

    Attributes:
        parts: class name to bool voxels, disjoint: ``NCR``, ``ED``, ``ET``.
        whole: float32 in 0 to 1, how much of the tissue the tumour replaced; soft at its border.
        core: the same for necrosis and enhancing tumour together.
        necrosis: the same for necrosis.
    """

    parts: dict[str, np.ndarray]
    whole: np.ndarray
    core: np.ndarray
    necrosis: np.ndarray


def check_glioma_classes(classes: Classes) -> None:
    """Raise ValueError unless the vocabulary has NCR, ED and ET or is of one class (the whole tumour)."""
    if len(classes) > 1 and not {"NCR", "ED", "ET"} <= set(classes.names):
        raise ValueError(f"a phantom needs classes with NCR, ED and ET, or a single one; got {classes!r}")


def grow_glioma(fractions: np.ndarray, brain: np.ndarray, spacing_mm: tuple, rng: np.random.Generator) -> Glioma:
    """Grow one glioma in white matter and its surroundings.

    Args:
        fractions: (T, X, Y, Z) tissue fractions of the healthy brain.
        brain: (X, Y, Z) bool.
        spacing_mm: voxel size.
        rng: source of size, place and shape.

    Raises:
        ValueError: the brain is too small for a tumour of the smallest diameter.
    """
    extent = min(n * s for n, s in zip(brain.shape, spacing_mm, strict=True))
    smallest = max(DIAMETERS_MM[0], _FEWEST_VOX * float(np.mean(spacing_mm)))
    largest = min(DIAMETERS_MM[1], _LARGEST_SHARE * extent)
    if largest < smallest:
        needed = smallest / _LARGEST_SHARE
        raise ValueError(
            f"the field of view is {extent:g} mm at its shortest; a tumour of {smallest:g} mm needs {needed:.1f} mm"
        )
    diameter = rng.uniform(smallest, largest)
    csf, gm, wm = (fractions[TISSUES.index(t)] for t in ("CSF", "GM", "WM"))
    centre = _draw_centre(wm * brain, diameter, spacing_mm, rng)
    volume = int(np.pi / 6 * diameter**3 / np.prod(spacing_mm))
    vox = diameter / float(np.mean(spacing_mm))

    reach = _distance(brain.shape, centre, spacing_mm, rng) / (diameter / 2)
    shape = 0.16 * band_noise(rng, brain.shape, 0.9 * vox) + 0.07 * band_noise(rng, brain.shape, max(0.35 * vox, 4))
    barrier = _blur(0.2 * gm + 0.8 * csf) + np.float32(1e6) * ~brain  # oedema follows white matter
    whole, soft_whole = _grow(reach + shape + barrier, volume, 0.05 + 0.6 / vox, centre)

    core_share, necrosis_share = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.55)
    shape_core = 0.16 * band_noise(rng, brain.shape, max(0.5 * vox, 4))
    inside = reach + shape_core + 0.5 * shape + np.float32(1e6) * ~whole
    core, soft_core = _grow(inside, int(core_share * int(whole.sum())), 0.03 + 0.35 / vox, centre)
    # a rim of uneven thickness, closed as long as the core has an inside
    rim = 0.12 * band_noise(rng, brain.shape, max(0.4 * vox, 4)) + 5 * (_blur(core.astype(np.float32)) < 0.999)
    necrosis, soft_necrosis = _grow(
        inside + rim + np.float32(1e6) * ~core, int(necrosis_share * int(core.sum())), 0.03 + 0.35 / vox, None
    )
    parts = {"NCR": necrosis, "ED": whole & ~core, "ET": core & ~necrosis}
    return Glioma(parts, soft_whole, soft_core * soft_whole, soft_necrosis * soft_core * soft_whole)


def label_of(glioma: Glioma, classes: Classes) -> np.ndarray:
    """Make the label map (X, Y, Z) int16 in the values of a vocabulary."""
    label = np.zeros(glioma.whole.shape, np.int16)
    for name, part in glioma.parts.items():
        value = next(iter(classes.values.values())) if len(classes) == 1 else classes.values[name]
        label[part] = value
    return label


def replace_tissue(fractions: np.ndarray, glioma: Glioma) -> np.ndarray:
    """Put the glioma into tissue fractions (T, X, Y, Z); oedema lets some of the tissue shine through."""
    seep = 0.85
    kept = 1 - glioma.core - seep * (glioma.whole - glioma.core)
    mixed = fractions * kept
    for name, share in (
        ("NCR", glioma.necrosis),
        ("ET", glioma.core - glioma.necrosis),
        ("ED", seep * (glioma.whole - glioma.core)),
    ):
        mixed[TISSUES.index(name)] += share
    return mixed


def _draw_centre(wm: np.ndarray, diameter: float, spacing_mm: tuple, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a voxel of white matter, by weight, at least 0.35 diameters from the border of the field of view."""
    weight = np.zeros(wm.shape)
    margins = [min(int(0.35 * diameter / step), (n - 1) // 2) for n, step in zip(wm.shape, spacing_mm, strict=True)]
    inner = tuple(slice(m, n - m) for m, n in zip(margins, wm.shape, strict=True))
    weight[inner] = wm[inner]
    cumulative = np.cumsum(weight)
    flat = int(np.searchsorted(cumulative, rng.uniform(0, cumulative[-1]), side="right"))
    return tuple(int(i) for i in np.unravel_index(min(flat, cumulative.size - 1), wm.shape))


def _distance(size: tuple, centre: tuple, spacing_mm: tuple, rng: np.random.Generator) -> np.ndarray:
    """Measure the distance in mm from the centre, stretched along random axes so that tumours are rarely balls."""
    axes = [(np.arange(n) - c) * step for n, c, step in zip(size, centre, spacing_mm, strict=True)]
    grid = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    stretch = np.exp(rng.uniform(-0.25, 0.25, 3))
    matrix = (rotation * (stretch / stretch.prod() ** (1 / 3))[:, None]).astype(np.float32)
    return np.sqrt(sum(sum(m * g for m, g in zip(row, grid, strict=True)) ** 2 for row in matrix))


def _blur(values: np.ndarray) -> np.ndarray:
    """Average 3 x 3 x 3 voxels; the border's neighbours wrap around, and no tumour is there."""
    for axis in range(3):
        values = (np.roll(values, 1, axis) + values + np.roll(values, -1, axis)) / 3
    return values


def _grow(field: np.ndarray, volume: int, width: float, centre: tuple | None) -> tuple[np.ndarray, np.ndarray]:
    """Take the `volume` voxels of the lowest field (their largest component if a centre is given), hard and soft."""
    rank = min(max(volume, 1), field.size) - 1
    threshold = np.partition(field, rank, axis=None)[rank]
    hard = field <= threshold
    if centre is not None:
        hard = cc3d.largest_k(hard.astype(np.uint8), k=1) > 0
    soft = sigmoid((threshold - field) / np.float32(width))
    return hard, np.where(hard, soft, soft.clip(max=0.5))
