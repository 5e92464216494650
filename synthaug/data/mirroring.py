"""Pseudo-healthy hosts: a head whose tumour lies on one side, with that side replaced by the mirror image of the other.

Tumour-free hosts are what adds most to a training with few labels, and are rarely at hand. Brains are symmetric but for
details, so the healthy half makes a whole one (Tustison et al., 2014, use the contralateral side as a reference
likewise). The mid-plane is found by comparing the tissue with its reflection; the lesion is left out of the comparison
on both sides. At the plane both halves meet in their own values; they are mixed over a few millimetres.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, zoom
from scipy.optimize import minimize

from synthaug.data.cases import Case, load_case
from synthaug.data.nifti import CaseError, Volume
from synthaug.data.writing import write_case
from synthaug.host import host_tissue

GRID_MM = 4.0
SEAM_MM = 3.0
FILLED_MM = 3.0
GREATEST_TILT_DEG = 12.0


@dataclass(frozen=True)
class MidPlane:
    """The plane between left and right: the points p, in mm along the volume's axes, with p . normal = offset_mm.

    Attributes:
        normal: (3,) unit vector; points to higher indices of the axis from left to right.
        offset_mm: of the plane.
        likeness: correlation of the tissue with its reflection, up to 1.
    """

    normal: np.ndarray
    offset_mm: float
    likeness: float

    def distance_mm(self, points: np.ndarray) -> np.ndarray:
        """(...,) signed distance of points (..., 3) in mm."""
        return points @ self.normal - self.offset_mm

    def reflected(self, points: np.ndarray) -> np.ndarray:
        """The points (..., 3), in mm, behind the plane."""
        return points - 2 * self.distance_mm(points)[..., None] * self.normal


@dataclass(frozen=True)
class MirroredHost:
    """A host without its tumour.

    Attributes:
        image: (C, X, Y, Z) float32, intensities as stored.
        plane: of the reflection.
        removed_ml: volume of the lesion that is gone.
        beyond_ml: of it, what lay beyond the mid-plane and was filled from its surroundings.
    """

    image: np.ndarray
    plane: MidPlane
    removed_ml: float
    beyond_ml: float


def mirrored_host(
    name: str, volume: Volume, tissue: np.ndarray | None = None, most_beyond_ml: float = 2.0
) -> MirroredHost:
    """The volume with the side of its tumour replaced.

    Args:
        name: of the case, for messages.
        volume: with its label; all that is not 0 is tumour.
        tissue: (X, Y, Z) bool, host tissue; derived from the image where not given.
        most_beyond_ml: of the tumour on its smaller side of the mid-plane; more is a tumour on both sides.

    Raises:
        CaseError: no tumour, or one on both sides.
    """
    lesion = volume.label != 0
    if not lesion.any():
        raise CaseError(f"{name}: has no tumour; it is tumour-free as it is")
    tissue = host_tissue(torch.from_numpy(volume.image)).numpy() if tissue is None else tissue
    spacing, axis = np.array(volume.spacing_mm), left_right_axis(volume.affine)
    plane = find_mid_plane(volume.image, tissue, lesion, spacing, axis)
    points = np.stack(np.meshgrid(*map(np.arange, lesion.shape), indexing="ij"), -1) * spacing
    distance = plane.distance_mm(points)
    ml = np.prod(spacing) / 1000
    sides = [float((lesion & side).sum() * ml) for side in (distance < 0, distance >= 0)]
    if min(sides) > most_beyond_ml:
        raise CaseError(
            f"{name}: its tumour lies on both sides of the mid-plane, {sides[0]:.1f} and {sides[1]:.1f} ml; expected "
            f"at most {most_beyond_ml:g} ml on one of them"
        )
    affected = 1 if sides[1] > sides[0] else -1
    healthy = np.stack([filled(channel, tissue, lesion, spacing) for channel in volume.image])
    source = np.moveaxis(plane.reflected(points) / spacing, -1, 0)
    other = np.stack([map_coordinates(c, source, order=1, mode="constant", cval=0.0) for c in healthy])
    covered = map_coordinates(tissue.astype(np.float32), source, order=1) > 0.5
    background = np.array([channel[~tissue].min() if not tissue.all() else 0 for channel in volume.image])
    other = np.where(covered, other, background[:, None, None, None])
    share = np.clip(0.5 + affected * distance / (2 * SEAM_MM), 0, 1)
    share = np.where(covered == tissue, share, affected * distance > 0)  # no mixing of tissue with background
    image = np.where(share > 0, share * other + (1 - share) * healthy, healthy).astype(np.float32)
    return MirroredHost(image, plane, sum(sides), min(sides))


def write_mirrored_host(case: Case, out: Path, most_beyond_ml: float = 2.0) -> dict[str, Any]:
    """Write a case without its tumour, its label map all 0, under the names of its files.

    The host keeps the case's name and patient, so that it counts as that patient wherever patients are kept apart.

    Args:
        case: labelled.
        out: folder of the new case.
        most_beyond_ml: as for `mirrored_host`.

    Returns:
        The patient, the volume that is gone and what of it lay beyond the mid-plane in ml, and the likeness of the
        sides.

    Raises:
        CaseError: as for `mirrored_host`, and a case that cannot be read.
    """
    volume = load_case(case, tuple(case.images))
    made = mirrored_host(case.name, volume, most_beyond_ml=most_beyond_ml)
    image = dict(zip(case.images, made.image, strict=True))
    write_case(case, image, np.zeros_like(volume.label), out)
    plane = made.plane
    return {
        "patient": case.group,
        "removed_ml": round(made.removed_ml, 3),
        "beyond_ml": round(made.beyond_ml, 3),
        "likeness": round(plane.likeness, 3),
        "normal": plane.normal.round(5).tolist(),
        "offset_mm": round(plane.offset_mm, 2),
    }


def left_right_axis(affine: np.ndarray) -> int:
    """Which voxel axis runs most nearly from left to right."""
    return int(np.argmax(np.abs(affine[0, :3]) / np.linalg.norm(affine[:3, :3], axis=0)))


def find_mid_plane(
    image: np.ndarray, tissue: np.ndarray, lesion: np.ndarray, spacing_mm: np.ndarray, axis: int
) -> MidPlane:
    """The plane whose reflection leaves the tissue most like itself.

    Args:
        image: (C, X, Y, Z).
        tissue: (X, Y, Z) bool.
        lesion: (X, Y, Z) bool, left out on both sides.
        spacing_mm: voxel size.
        axis: that runs from left to right.
    """
    factor = np.array(spacing_mm) / GRID_MM
    coarse = [zoom(gaussian_filter(c.astype(np.float32), 0.5 / factor), factor, order=1) for c in image]
    inside = zoom(tissue.astype(np.float32), factor, order=1)
    sound = zoom(lesion.astype(np.float32), factor, order=1) < 0.1
    scored = []
    for channel in coarse:
        values = channel[(inside > 0.5) & sound]
        scored.append(np.where(inside > 0.5, (channel - values.mean()) / max(values.std(), 1e-6), 0))
    # the outline counts as a channel of its own
    stack = np.stack([*scored, 2 * inside])
    points = np.stack(np.meshgrid(*map(np.arange, inside.shape), indexing="ij"), -1).astype(np.float64) * GRID_MM
    where = np.argwhere(inside.any(axis=tuple(a for a in range(3) if a != axis)))
    start = np.array([(where.min() + where.max()) / 2 * GRID_MM, 0.0, 0.0])

    def likeness(parameters: np.ndarray) -> float:
        plane = _plane(parameters, axis, points)
        source = np.moveaxis(plane.reflected(points) / GRID_MM, -1, 0)
        other = np.stack([map_coordinates(c, source, order=1) for c in stack])
        both = sound & (map_coordinates(sound.astype(np.float32), source, order=1) > 0.5)
        both &= (inside > 0.5) | (other[-1] > 1)
        a, b = stack[:, both], other[:, both]
        return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))

    simplex = start + np.array([[0, 0, 0], [8, 0, 0], [0, 4, 0], [0, 0, 4]])
    limit = GREATEST_TILT_DEG
    found = minimize(
        lambda x: -likeness(x) + max(0.0, np.abs(x[1:]).max() - limit),
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.1, "fatol": 1e-5, "maxiter": 150},
    )
    best = _plane(found.x, axis, points)
    return MidPlane(best.normal, best.offset_mm, likeness(found.x))


def _plane(parameters: np.ndarray, axis: int, points: np.ndarray) -> MidPlane:
    """From where it crosses the middle of the volume in mm, and its two tilts in degrees."""
    normal = np.zeros(3)
    normal[axis] = 1
    normal[[a for a in range(3) if a != axis]] = np.tan(np.deg2rad(parameters[1:]))
    normal /= np.linalg.norm(normal)
    middle = points.reshape(-1, 3).mean(0)
    middle[axis] = parameters[0]
    return MidPlane(normal, float(middle @ normal), 0.0)


def filled(channel: np.ndarray, tissue: np.ndarray, lesion: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """A channel (X, Y, Z) whose lesion has the mean of healthy tissue nearby, for what the mirror cannot replace."""
    sigma = FILLED_MM / np.array(spacing_mm)
    grown = binary_dilation(lesion, iterations=1)
    known = (tissue & ~grown).astype(np.float32)
    value, weight = np.zeros_like(channel, dtype=np.float32), np.zeros_like(known)
    for times in (1, 3, 9):  # wider where nothing healthy is near
        missing = weight < 1e-3
        if not (missing & grown).any():
            break
        value = np.where(missing, gaussian_filter(channel * known, sigma * times), value)
        weight = np.where(missing, gaussian_filter(known, sigma * times), weight)
    return np.where(grown & tissue, value / np.maximum(weight, 1e-6), channel).astype(np.float32)
