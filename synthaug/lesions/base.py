"""The interface of lesion sources, whether their masks come from patients or from a formula."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.frames import place
from synthaug.host.space import Space
from synthaug.lesions.places import PlaceFrequency


@dataclass(frozen=True)
class Lesion:
    """A lesion's name, group, sizes and voxel counts: all that is known of it without reading its voxels.

    Attributes:
        name: unique in its source; `LesionSource.lesion` finds it again.
        group: patient group, or None for shapes that come from no patient.
        size_vox: tight bounding box of the lesion.
        spacing_mm: voxel size.
        voxels: voxel count per class, in the source's class order.
        frame: (3, 4) of its box with the source's margin, as nested tuples, where its place in its host is known
            (`synthaug.frames`).
    """

    name: str
    group: str | None
    size_vox: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    voxels: tuple[int, ...]
    frame: tuple[tuple[float, ...], ...] | None = field(default=None, compare=False)


def known_frame(frame: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...] | None:
    """A lesion's frame as tuples, or None where it is not known, which files write as NaN."""
    return None if np.isnan(frame).any() else tuple(tuple(row) for row in frame)


def center_of(lesion: Lesion, margin_vox: int) -> np.ndarray:
    """Host coordinates (3,) of the voxel that is a lesion's centre when it is inserted.

    Args:
        lesion: whose place is known.
        margin_vox: of its source's boxes.
    """
    return place(np.array(lesion.frame), [(n + 2 * margin_vox) // 2 for n in lesion.size_vox])


class Candidates:
    """Lesions to choose from, with what the choice needs as arrays.

    Attributes:
        lesions: D lesions.
        sizes: (D, 3) tight boxes in voxels.
        spacing_mm: (D, 3) voxel sizes.
        voxels: (D, K) voxels per class.
    """

    def __init__(self, lesions: Sequence[Lesion], arrays: Sequence[np.ndarray] | None = None):
        self.lesions = lesions
        if arrays is None:
            arrays = [np.array([getattr(x, name) for x in lesions]) for name in ("size_vox", "spacing_mm", "voxels")]
        self.sizes, self.spacing_mm, self.voxels = arrays

    def __len__(self) -> int:
        return len(self.lesions)

    def at(self, index: np.ndarray) -> "Candidates":
        """Select the candidates at these positions."""
        arrays = [a[index] for a in (self.sizes, self.spacing_mm, self.voxels)]
        return Candidates([self.lesions[i] for i in index], arrays)

    @property
    def volume_mm3(self) -> np.ndarray:
        """(D,) volumes of all classes together."""
        return self.voxels.sum(1) * self.spacing_mm.prod(1)


class LesionSource(ABC):
    """Gives lesion masks by name, and candidates for an insertion.

    Attributes:
        classes: class names; value k + 1 in a mask is class k.
        channels: channel names of the intensities, or None where the source has masks only.
        margin_vox: voxels of surroundings that masks and intensities carry on every side of the tight box.
        space: in which its intensities are told, or None where it has masks only.
        changes: whether what it offers changes as training goes on; it is then told how that goes.
    """

    classes: tuple[str, ...]
    channels: tuple[str, ...] | None = None
    margin_vox: int = 0
    space: Space | None = None
    changes: bool = False

    @property
    def places(self) -> PlaceFrequency | None:
        """How often its lesions lie where; None where that is not known."""
        return None

    @property
    def groups(self) -> Collection[str]:
        """Patient groups that lesions come from; empty for shapes that come from no patient."""
        return frozenset()

    @property
    def vocabulary(self) -> Classes | None:
        """The classes with the label values of the cases that the lesions are from; None where that is not known."""
        return None

    def group_of(self, given: str) -> str:
        """The source's patient group that is meant by a group or a case name; `given` itself where it has none such."""
        return given

    def follow(self, number: int) -> None:  # noqa: B027 (most sources stay as they are)
        """Note that sample `number` is drawn next; called before `candidates`, where the source `changes`."""

    def spent(self, seconds: float) -> None:  # noqa: B027
        """Note the seconds that planning or applying took; called after each, where the source `changes`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a source that `changes`, JSON-able."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore the state that `state_dict` gave."""

    @abstractmethod
    def candidates(self, rng: np.random.Generator, exclude_group: str | None) -> Candidates:
        """List lesions to choose from for one insertion, none of them of `exclude_group`; may be empty."""

    @abstractmethod
    def lesion(self, name: str) -> Lesion:
        """Find the lesion of that name.

        Raises:
            ValueError: the source has no such lesion.
        """

    @abstractmethod
    def mask(self, name: str, device: torch.device) -> Tensor:
        """Return a lesion's mask, (X, Y, Z) uint8 on `device`, k + 1 in class k; the box is tight plus the margin."""

    def intensities(self, name: str, channels: Sequence[int], device: torch.device) -> Tensor:
        """Return model intensities of the mask's box, (C, X, Y, Z) float32, for the channels at these positions.

        Raises:
            ValueError: the source has masks only.
        """
        raise ValueError(f"{type(self).__name__} has masks only, no intensities: take another generator than paste")

    def class_bounds(self, channels: Sequence[int]) -> Tensor | None:
        """Return the least and greatest mean of the classes over all lesions, (2, K, C); None where there are none.

        NaN of a class that no lesion has.
        """
        return None

    def class_statistics(self, name: str, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, (K, C) float32 on the CPU, of a lesion's classes; see `intensities`."""
        raise ValueError(f"{type(self).__name__} has masks only, no intensities: take another generator than paste")
