"""Donors at their own places: whose places lie in a patch, where there, and how the donors are turned.

A donor that goes where it lay in its own host, with its label, in place of what is there, is CarveMix's idea (Zhang et
al., 2021) with the lesion's own shape; what is around a lesion then fits it. Frames (`synthaug.frames`) tell the place
in a host that has another size, orientation or cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthaug.frames import mirrored, turn_between, voxel
from synthaug.lesions.base import Candidates, center_of
from synthaug.lesions.scale import extents_vox

TRIES = 4
"""Shifts of a donor's place that are tried, one after the other."""


@dataclass(frozen=True)
class Homes:
    """Donors whose own places lie in a patch.

    Attributes:
        candidates: those donors.
        centers_vox: (D, 3) float, where they belong in the patch.
        turns: of each, which donor axis becomes axis X, Y, Z, and whether these are reversed.
    """

    candidates: Candidates
    centers_vox: np.ndarray
    turns: Sequence[tuple[tuple[int, ...], tuple[bool, ...]]]

    @classmethod
    def of(
        cls, candidates: Candidates, margin_vox: int, frame: np.ndarray, volume: Sequence[int], mirror: bool
    ) -> "Homes":
        """Those of `candidates` that belong into a patch.

        Args:
            candidates: donors; one whose place is not known belongs nowhere.
            margin_vox: of the boxes of their source.
            frame: (3, 4) of the patch.
            volume: its size.
            mirror: whether they go to the other side of the mid-plane.
        """
        known = [i for i, lesion in enumerate(candidates.lesions) if lesion.frame is not None]
        places = np.array([center_of(candidates.lesions[i], margin_vox) for i in known]).reshape(-1, 3)
        centers = voxel(frame, mirrored(places) if mirror else places)
        inside = ((centers >= 0) & (centers <= np.array(volume) - 1)).all(1)
        found = candidates.at(np.array(known, dtype=int)[inside])
        turns = [turn_between(np.array(lesion.frame), frame, mirror) for lesion in found.lesions]
        return cls(found, centers[inside], turns)

    def extents_vox(self, factors: np.ndarray, spacing_mm: Sequence[float], bend: Mapping[str, Any]) -> np.ndarray:
        """(D, 3) upper bounds of the donors' sizes in host voxels; `bend` has angles and the elastic change."""
        extents = np.zeros((len(self.candidates), 3), int)
        for axes in {axes for axes, _ in self.turns}:
            index = np.array([i for i, (own, _) in enumerate(self.turns) if own == axes])
            turn = {**bend, "axes": axes}
            extents[index] = extents_vox(self.candidates.at(index), factors[index], spacing_mm, turn)
        return extents

    def aims(
        self, pick: int, spacing_mm: Sequence[float], shift_mm: float, volume: Sequence[int], rng: np.random.Generator
    ) -> tuple[tuple[int, ...], ...]:
        """Centres in voxels to try for one donor, each moved from its place by up to `shift_mm` along each axis."""
        shifts = rng.uniform(-shift_mm, shift_mm, (TRIES, 3)) / np.asarray(spacing_mm)
        centers = np.clip(np.rint(self.centers_vox[pick] + shifts), 0, np.array(volume) - 1).astype(int)
        return tuple(tuple(center) for center in centers.tolist())
