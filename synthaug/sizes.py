"""Lesion diameters, of the sphere of equal volume, and size classes by them, for scores, steering and reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class SizeClasses:
    """Lesion sizes with names, for example small below 10 mm, medium below 25 mm, large from there on.

    10 mm is what RANO calls measurable; spheres of 10 and 25 mm hold 0.52 and 8.2 ml.

    Args:
        edges_mm: diameters at which the next class begins, ascending.
        names: one more than edges.

    Raises:
        ValueError: edges that do not ascend or are not above 0, or another number of names.

    Example:
        >>> SizeClasses().of(12.0)
        'medium'
    """

    edges_mm: tuple[float, ...] = (10.0, 25.0)
    names: tuple[str, ...] = ("small", "medium", "large")

    def __post_init__(self):
        edges, names = tuple(float(e) for e in self.edges_mm), tuple(self.names)
        if any(not 0 < e < math.inf for e in edges) or list(edges) != sorted(set(edges)):
            raise ValueError(f"size classes: expected ascending diameters above 0 mm, got {self.edges_mm}")
        if len(names) != len(edges) + 1 or len(set(names)) != len(names):
            raise ValueError(f"size classes: expected {len(edges) + 1} names, got {names}")
        object.__setattr__(self, "edges_mm", edges)
        object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, diameter_mm: Any) -> np.ndarray:
        """Find the position of the class of a diameter in mm, or of each of an array of them."""
        return np.searchsorted(self.edges_mm, diameter_mm, side="right")

    def of(self, diameter_mm: float) -> str:
        """Name the class of a diameter in mm."""
        return self.names[int(self.index(diameter_mm))]

    def words(self, name: str) -> str:
        """Say the range of a class in words, such as ``"10 to 25 mm"``.

        Raises:
            ValueError: there is no class of that name.
        """
        if name not in self.names:
            raise ValueError(f"unknown size {name!r}: known are {', '.join(self.names)}")
        i = self.names.index(name)
        low, high = (0.0, *self.edges_mm)[i], (*self.edges_mm, math.inf)[i]
        if high == math.inf:
            return f"{low:g} mm or more" if low else "any size"
        return f"{low:g} to {high:g} mm" if low else f"below {high:g} mm"

    def counts(self, diameters_mm: ArrayLike) -> dict[str, int]:
        """Count the diameters in each class."""
        found = np.bincount(self.index(np.asarray(diameters_mm, dtype=float)), minlength=len(self))
        return {name: int(n) for name, n in zip(self.names, found, strict=True)}


def equivalent_diameter_mm(voxels: Any, spacing_mm: Sequence[float]) -> Any:
    """Compute the diameter in mm of the sphere that has the volume of `voxels` voxels; a number or an array of them.

    Example:
        >>> round(equivalent_diameter_mm(4189, (1.0, 1.0, 1.0)), 1)
        20.0
    """
    volume = voxels * spacing_mm[0] * spacing_mm[1] * spacing_mm[2]
    return (6.0 * volume / math.pi) ** (1.0 / 3.0)
