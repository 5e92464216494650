"""Draws of a lesion's size and turn, on the host, from the lesion's own seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from synthaug.checks import checked_range
from synthaug.classes import Classes
from synthaug.geometry import triple
from synthaug.lesions.base import Candidates
from synthaug.sizes import SizeClasses, equivalent_diameter_mm

LARGEST_UPSCALE = 1.5
LARGEST_SCALE = 25.0
"""A factor above it is a percentage."""
SMALLEST_MM = 0.5
TILT_CELLS = 64


@dataclass(frozen=True)
class SizeWeights:
    """Weights of lesion sizes: how much more often each is to be inserted; 1 for all changes nothing.

    Weights tilt what would be drawn anyway: a size that no donor reaches at any scale in the range stays absent.

    Args:
        sizes: the size classes, by equivalent diameter.
        weights: one per size class, above 0; only their ratios matter.

    Raises:
        ValueError: another number of weights than of classes, or one that is not a finite number above 0.
    """

    sizes: SizeClasses
    weights: tuple[float, ...]

    def __post_init__(self):
        values = tuple(checked_range("size weight", w)[0] for w in self.weights)
        if len(values) != len(self.sizes):
            raise ValueError(f"size_weights: expected {len(self.sizes)} weights, got {self.weights}")
        object.__setattr__(self, "weights", values)

    def of(self, diameters_mm: np.ndarray) -> np.ndarray:
        """Look up the weights of diameters in mm, an array of the same shape."""
        return np.asarray(self.weights)[self.sizes.index(diameters_mm)]

    def to_dict(self) -> dict[str, Any]:
        """Return the weights as plain JSON-able values."""
        return {"edges_mm": list(self.sizes.edges_mm), "names": list(self.sizes.names), "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SizeWeights":
        """Read the weights that `to_dict` gave."""
        return cls(SizeClasses(tuple(values["edges_mm"]), tuple(values["names"])), tuple(values["weights"]))


@dataclass(frozen=True)
class ScaleRange:
    """Draws lesion sizes: linear factors, or target diameters.

    Attributes:
        scale: range of the linear factor, uniform; ignored where `diameter_mm` is given.
        diameter_mm: range of the diameter of the sphere of equal volume, uniform.
        after_swap: other linear factors where a class was swapped away; the paper takes (0.1, 0.3) where oedema was.
    """

    scale: tuple[float, float]
    diameter_mm: tuple[float, float] | None = None
    after_swap: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def checked(cls, scale: Any, diameter_mm: Any, after_swap: Any, classes: Classes) -> "ScaleRange":
        """Check what a user gives and make the ranges of it; a scalar is a fixed value.

        Raises:
            ValueError: a range that is inverted or not above 0, an unknown class, or both ways of control at once.
        """
        check_size_control(scale, diameter_mm, after_swap)
        special = {
            classes.canonical(k): checked_range(f"scale_after_swap[{k}]", v) for k, v in (after_swap or {}).items()
        }
        target = None if diameter_mm is None else checked_range("diameter_mm", diameter_mm)
        return cls(checked_range("scale", (1.0, 1.0) if scale is None else scale), target, special)

    def draw(self, rng: np.random.Generator, swaps: Mapping[str, str]) -> float:
        """Draw a linear factor or, where `diameter_mm` is set, a diameter in mm; takes one random number."""
        low, high = self._range(swaps)
        return float(low + (high - low) * rng.random())

    def _range(self, swaps: Mapping[str, str]) -> tuple[float, float]:
        found = self.diameter_mm or self.scale
        for name in swaps:
            found = self.after_swap.get(name, found)
        return found

    def tilted(
        self, drawn: float, swaps: Mapping[str, str], candidates: Candidates, weights: SizeWeights | None
    ) -> float:
        """Move what `draw` gave within its range, so that sizes come as often as their weights say.

        The uniform draw u becomes the value below which the share u of the weighted range lies. The weight of a
        linear factor is the mean weight of the diameters that the candidates would have; takes no random number.
        """
        low, high = self._range(swaps)
        if weights is None or low == high:
            return drawn
        edges = np.linspace(low, high, TILT_CELLS + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        if self.diameter_mm is None:
            own = equivalent_diameter_mm(candidates.volume_mm3, (1, 1, 1))
            density = weights.of(middles[:, None] * own).mean(1)
        else:
            density = weights.of(middles)
        reached = np.concatenate(([0.0], np.cumsum(density)))
        return float(np.interp((drawn - low) / (high - low) * reached[-1], reached, edges))

    def factors(self, drawn: float, candidates: Candidates) -> np.ndarray:
        """Compute the linear factor of each lesion, (D,), from what `draw` gave."""
        if self.diameter_mm is None:
            return np.full(len(candidates), drawn)
        return drawn / equivalent_diameter_mm(candidates.volume_mm3, (1, 1, 1))


def check_size_control(scale: Any, diameter_mm: Any, after_swap: Any) -> None:
    """Check that sizes are controlled in one way.

    Raises:
        ValueError: by scale and by diameter.
    """
    if diameter_mm is not None and scale is not None:
        raise ValueError(f"give scale or diameter_mm, not both; got scale={scale}, diameter_mm={diameter_mm}")
    if diameter_mm is not None and after_swap:
        raise ValueError("scale_after_swap goes with scale; with diameter_mm the diameter is what was asked for")
    if scale is not None and np.max(scale) > LARGEST_SCALE:
        raise ValueError(f"scale: expected linear factors, such as 0.8 for 80 %, up to {LARGEST_SCALE:g}, got {scale}")
    if diameter_mm is not None and np.max(diameter_mm) < SMALLEST_MM:
        raise ValueError(
            f"diameter_mm: expected mm, of which {SMALLEST_MM:g} is the least, got {diameter_mm}: is it cm?"
        )


class Turn(TypedDict):
    """One draw of `Turns`, named as the fields of `synthaug.insertion.plan.Insertion` are."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    angles_deg: tuple[float, float, float]
    elastic_mm: float


@dataclass(frozen=True)
class Turns:
    """Draws how lesions are mirrored, turned and bent.

    Attributes:
        flip: probability of a mirror image, per axis.
        rotate90: whether right-angle rotations are drawn (all exchanges of axes, with the flips).
        rotate_deg: greatest free rotation about each axis, in degrees; 0 for none.
        elastic_mm: greatest displacement of a smooth random change of shape; 0 for none.
    """

    flip: float = 0.5
    rotate90: bool = True
    rotate_deg: float = 0.0
    elastic_mm: float = 0.0

    def draw(self, rng: np.random.Generator) -> Turn:
        """Draw the turn of one insertion; always takes as many random numbers."""
        axes, flips, angles = rng.permutation(3), rng.random(3), rng.uniform(-1, 1, 3)
        return Turn(
            axes=triple(int(a) for a in axes) if self.rotate90 else (0, 1, 2),
            flips=triple(bool(u < self.flip) for u in flips),
            angles_deg=triple(float(a) for a in angles * self.rotate_deg + 0.0),
            elastic_mm=float(self.elastic_mm),
        )


def zoom_factors(
    scale: float, lesion_spacing: Sequence[float], host_spacing: Sequence[float], axes: Sequence[int]
) -> tuple[float, float, float]:
    """Compute host voxels per lesion voxel along X, Y, Z: the scale in mm times the ratio of the voxel sizes."""
    return triple(scale * lesion_spacing[axes[i]] / host_spacing[i] for i in range(3))


def extents_vox(candidates: Candidates, factors: np.ndarray, spacing_mm: Sequence[float], turn: Turn) -> np.ndarray:
    """Bound the lesions' sizes after scaling and turning, (D, 3) host voxels, without reading their voxels."""
    axes, spacing = list(turn["axes"]), np.asarray(spacing_mm)
    zoom = factors[:, None] * candidates.spacing_mm[:, axes] / spacing
    size = candidates.sizes[:, axes] * zoom
    if any(turn["angles_deg"]):
        size = (size * spacing) @ np.abs(rotation_matrix(turn["angles_deg"])).T / spacing
    size = size + 2 * turn["elastic_mm"] / spacing
    # a zoom of exactly 1 keeps the box; otherwise the outermost voxels may gain one on each side
    exact = np.isclose(zoom, 1) & (size == np.round(size))
    return np.where(exact, size, np.ceil(size) + 1).astype(int)


def rotation_matrix(angles_deg: Sequence[float]) -> np.ndarray:
    """Make the (3, 3) matrix of the rotation about X, then Y, then Z, in mm space."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        c, s = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
        matrix = turn @ matrix
    return matrix
