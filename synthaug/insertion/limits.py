"""Limits of patch, generator and volume that a lesion must keep, checked without its voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthaug.geometry import triple
from synthaug.insertion.asked import Outcome
from synthaug.insertion.blending import margin_vox
from synthaug.lesions.base import Candidates
from synthaug.lesions.scale import LARGEST_UPSCALE

BOX_STEP = 8


@dataclass(frozen=True)
class Limits:
    """Tells which lesions fit a patch and a generator, and the crop that each needs.

    Attributes:
        min_voxels: least volume; smaller lesions are refused.
        clearance_mm: distance that is kept from existing labels.
        halo_mm: width of the support around the lesion, its halo or fringe.
        generator_margin: voxels of surroundings that the generator wants.
        crop_sizes: sides of the crops that the generator takes, ascending, or None for any box.
        cubic: whether these crops are cubes.
        prefer_mild: leave out lesions that would be enlarged much, where there are others.
    """

    min_voxels: int
    clearance_mm: float
    halo_mm: float
    generator_margin: int
    crop_sizes: tuple[int, ...] | None
    cubic: bool
    prefer_mild: bool

    def usable(
        self,
        candidates: Candidates,
        factors: np.ndarray,
        extents: np.ndarray,
        spacing: Sequence[float],
        volume: Sequence[int],
    ) -> tuple[np.ndarray, Outcome | None]:
        """Find the donors that fit the patch and reach the volume floor.

        Args:
            candidates: D lesions.
            factors: (D,) linear factor of each.
            extents: (D, 3) size of each in host voxels.
            spacing: voxel size of the host in mm.
            volume: (X, Y, Z) of the patch.

        Returns:
            Their positions and None; where there are none, those that come nearest and why they are refused.
        """
        fits = (extents <= np.asarray(volume)).all(1)
        if self.crop_sizes is not None:
            fits &= extents.max(1) + 2 * self._margin(spacing) <= self.crop_sizes[-1]
        if not fits.any():
            return np.arange(len(candidates)), Outcome.TOO_LARGE
        voxels = candidates.volume_mm3 * factors**3 / np.prod(spacing)
        # thin lesions lose volume in resampling: those well above the floor first, the others where there are none
        ample, enough = (np.flatnonzero(fits & (voxels >= m * self.min_voxels)) for m in (2, 1))
        usable = ample if len(ample) else enough
        if not len(usable):
            return np.flatnonzero(fits), Outcome.TOO_SMALL
        mild = usable[factors[usable] <= LARGEST_UPSCALE]
        return (mild if len(mild) and self.prefer_mild else usable), None

    def crop(self, extent: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
        """Choose the crop that the generator takes for a lesion of this extent in voxels, (3,)."""
        need = extent + 2 * self._margin(spacing)
        if self.crop_sizes is None:
            return triple(int(-(-n // BOX_STEP) * BOX_STEP) for n in need)
        wanted = [need.max()] * 3 if self.cubic else need
        return triple(next(s for s in self.crop_sizes if s >= n) for n in wanted)

    def whole(self, volume: Sequence[int]) -> tuple[int, int, int]:
        """Choose the crop for a lesion of the host's own, whose box the device alone knows: the patch, if it fits."""
        if self.crop_sizes is None:
            return triple(volume)
        wanted = [max(volume)] * 3 if self.cubic else volume
        return triple(next((s for s in self.crop_sizes if s >= n), self.crop_sizes[-1]) for n in wanted)

    def _margin(self, spacing: Sequence[float]) -> int:
        return margin_vox(self.clearance_mm, self.halo_mm, spacing, self.generator_margin)
