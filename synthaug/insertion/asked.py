"""`Insertion`, the part of a plan's row that the host decides, and `Outcome`, what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

Rows = tuple[tuple[float, ...], ...]


class Outcome(IntEnum):
    """Outcomes of asked insertions; the value is the code on the device, `reason` the words."""

    DONE = 0
    NO_TISSUE = 1
    NO_ROOM = 2
    TOO_SMALL = 3
    TOO_LARGE = 4
    NO_DONOR = 5
    BAD_INPUT = 6
    OTHER_BATCH = 7
    NO_HOME = 8
    NO_LESION = 9

    @property
    def reason(self) -> str:
        """The outcome in words, as reports and rows give it."""
        return _REASONS[self]


_REASONS = {
    Outcome.DONE: "done",
    Outcome.NO_TISSUE: "no host tissue in the patch",
    Outcome.NO_ROOM: "no place in host tissue clear of existing labels",
    Outcome.TOO_SMALL: "below the volume floor",
    Outcome.TOO_LARGE: "larger than the patch or the generator's crops",
    Outcome.NO_DONOR: "no donor of another patient group",
    Outcome.BAD_INPUT: "invalid voxels in the batch",
    Outcome.OTHER_BATCH: "the plan was made for another batch",
    Outcome.NO_HOME: "no donor whose own place lies in the patch",
    Outcome.NO_LESION: "no lesion of the host's own in the patch",
}


@dataclass(frozen=True)
class Insertion:
    """Says what is inserted, how large and how turned: the part of a row that is known without asking the device.

    Attributes:
        sample: index in the batch.
        number: running number of the sample over all calls; with `order` it makes the seed.
        order: 0 for a sample's first lesion, 1 for its second.
        seed: the insertion's own seed; everything random about it follows from this number.
        lesion: name of the donor in the bank, or of the procedural shape.
        donor_group: the donor's patient group, if known.
        host_group: the host's patient group, if given.
        swaps: classes renamed in the lesion, old name to new name.
        scale: linear factor in mm (1 keeps the donor's size).
        spacing_mm: the host's voxel size.
        axes: which donor axis becomes axis X, Y, Z.
        flips: whether X, Y, Z are mirrored after the axes were exchanged.
        angles_deg: free rotation about X, Y, Z.
        elastic_mm: greatest displacement of the elastic change, 0 for none.
        crop_vox: size of the crop that holds the lesion and its surroundings.
        refused: an outcome that was certain before the device was asked, or None.
        place: rule by which its place was chosen; see `synthaug.LesionOptions`.
        gain: (K, C) factors of the painted classes' intensities about the mean of host tissue, or None.
        shift: (K, C) shifts likewise, in standard deviations of host tissue.
        smooth_mm: smoothing of the outline.
        mass_effect_mm: push of the surroundings at the outline.
        look: lesion of the bank of looks whose style the generator is asked for, or None.
        other_side: (3, 4), voxel indices to those of their mirror images, where it is known and heals the host.
    """

    sample: int
    number: int
    order: int
    seed: int
    lesion: str | None
    donor_group: str | None
    host_group: str | None
    swaps: Mapping[str, str]
    scale: float
    spacing_mm: tuple[float, float, float]
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elastic_mm: float = 0.0
    crop_vox: tuple[int, int, int] | None = None
    refused: Outcome | None = None
    place: str = "anywhere"
    gain: Rows | None = None
    shift: Rows | None = None
    other_side: Rows | None = None
    smooth_mm: float = 0.0
    mass_effect_mm: float = 0.0
    look: str | None = None

    @property
    def live_crop_vox(self) -> tuple[int, int, int]:
        """`crop_vox` of an insertion that is to be looked at on the device.

        Raises:
            ValueError: it was refused before, and has no crop.
        """
        if self.crop_vox is None:
            raise ValueError(f"insertion {self.number}.{self.order}: expected a crop, got none: it was refused")
        return self.crop_vox

    @property
    def live_lesion(self) -> str:
        """`lesion` of an insertion that is to be looked at on the device.

        Raises:
            ValueError: it was refused before, for there was no donor.
        """
        if self.lesion is None:
            raise ValueError(f"insertion {self.number}.{self.order}: expected a lesion, got none: it was refused")
        return self.lesion
