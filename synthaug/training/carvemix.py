"""CarveMix (Zhang et al., 2021): a region around another patient's lesion at its own place, in place of what is there.

The established augmentation that insertion is to be compared with. A region of interest is carved out of the donor by
the distance from its lesion's border, negative inside: the voxels where

    D(v) <= lambda,   lambda ~ U(min D / 2, |min D|),

with image and label go into the host at the same place of the head: equation 2 of the paper, whose volumes lie in one
space; here places agree by host coordinates (`synthaug.frames`).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from synthaug.frames import cropped, place, turn_between, voxel
from synthaug.geometry import overlap

if TYPE_CHECKING:
    from synthaug.training.patches import CachedVolume


class CarvedLesions:
    """The lesions of training volumes, to be carved out.

    Args:
        volumes: as in training, not padded.
        prob: of a region in a patch.

    Raises:
        ValueError: no two patients with lesions.
    """

    def __init__(self, volumes: Sequence["CachedVolume"], prob: float):
        self.volumes = [v for v in volumes if np.any(v.label > 0)]
        self.prob = prob
        if len({v.group for v in self.volumes}) < 2:
            raise ValueError("carvemix: expected lesions of two patients or more in the training volumes")

    @cached_property
    def depths(self) -> list[np.ndarray]:
        """Of each volume (X, Y, Z) the distance to the lesion's border in mm, negative inside."""
        return [signed_distance(v.label > 0, v.spacing_mm).astype(np.float16) for v in self.volumes]

    def mixed(
        self, host: "CachedVolume", start: Sequence[int], image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A region of a host, mixed or as it is.

        Args:
            host: the volume.
            start: (3,) first voxel of the region in it.
            image: (C, x, y, z) of the region.
            label: (x, y, z) likewise.
            rng: of the sample.
        """
        donors = [i for i, v in enumerate(self.volumes) if v.group != host.group]
        if rng.random() >= self.prob:
            return image, label
        number = donors[rng.integers(len(donors))]
        donor, depth, spread = self.volumes[number], self.depths[number], rng.random()
        frame = cropped(host.frame, start)
        if turn_between(donor.frame, frame, False) != ((0, 1, 2), (False, False, False)):
            raise ValueError(f"carvemix: {donor.name} and {host.name} are stored in other orientations")
        size = label.shape
        middle = [n // 2 for n in size]
        first = np.rint(voxel(donor.frame, place(frame, middle)) - middle).astype(int)
        source, target = overlap(first, size, donor.label.shape)
        least = float(depth.min())
        carved = depth[source] <= least / 2 + spread * (abs(least) - least / 2)
        mixed, mixed_label = image.copy(), label.copy()
        mixed[:, *target] = np.where(carved, donor.image[:, *source], mixed[:, *target])
        mixed_label[target] = np.where(carved, donor.label[source], mixed_label[target])
        return mixed, mixed_label


def signed_distance(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """(X, Y, Z) distance in mm to the border of a mask, negative inside."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask, spacing_mm) - distance_transform_edt(mask, spacing_mm)
