"""Sections of a profile: where the cases are, channels, labels, places, sizes, the plan and the generator."""

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from synthaug.config import Section
from synthaug.lesions.places import PlaceFrequency

Share = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Sides = tuple[PositiveInt, PositiveInt, PositiveInt]


class Data(Section):
    """Where the cases are and what came of reading them.

    Attributes:
        folder: of the data set.
        layout: brats, nnunet, msd or bids.
        cases: that were measured.
        patients: they are of.
        group_pattern: regular expression that finds the patient in a case's name; null: known, or the case itself.
        left_out: cases that were not measured, and why.
        unlabelled: cases without a label map, which are no tumour-free cases unless somebody says so.
    """

    folder: str
    layout: Literal["brats", "nnunet", "msd", "bids"]
    cases: PositiveInt
    patients: PositiveInt
    group_pattern: str | None = None
    left_out: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @field_validator("group_pattern")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"group_pattern: expected a regular expression, got {value!r}: {error}") from error
        return value


class Channel(Section):
    """One image channel.

    Attributes:
        name: canonical, as commands know it.
        called: in the data.
        modality: ct, mr, pet or other.
        lesion: percentiles 0.5, 50 and 99.5 of lesions, as stored.
        host: the same of host tissue.
    """

    name: str
    called: str
    modality: Literal["ct", "mr", "pet", "other"]
    lesion: tuple[float, float, float] | None = None
    host: tuple[float, float, float] | None = None


class Labels(Section):
    """Which label values are what; nothing else may occur.

    Attributes:
        lesions: class name to value.
        organs: labels that may hold a lesion, name to value.
        avoided: labels that are neither, name to value.
        regions: name to names of lesion classes, as dataset.json has them.
    """

    lesions: dict[str, PositiveInt] = Field(min_length=1)
    organs: dict[str, PositiveInt] = Field(default_factory=dict)
    avoided: dict[str, int] = Field(default_factory=dict)
    regions: dict[str, tuple[str, ...]] | None = None

    @model_validator(mode="after")
    def _once(self):
        values = [*self.lesions.values(), *self.organs.values(), *self.avoided.values()]
        if twice := sorted({v for v in values if values.count(v) > 1}):
            raise ValueError(f"expected each value once among lesions, organs and avoided, got {twice} more often")
        return self

    @model_validator(mode="after")
    def _regions_of_lesions(self):
        for name, members in (self.regions or {}).items():
            if unknown := [member for member in members if member not in self.lesions]:
                known = ", ".join(self.lesions)
                raise ValueError(f"regions.{name}: expected lesions ({known}), got {', '.join(unknown)}")
        return self


class Where(Section):
    """How often lesions lie where, in the box around a case's host tissue.

    Attributes:
        grid: cells along right-left, back-front and foot-head.
        frequency: of lesions in each cell, relative; the last axis runs fastest.
        mirrored: whether left and right were put together, as the data are alike on both sides.
        floor: least frequency, as a share of the greatest, so that no place is impossible.
    """

    grid: Sides
    frequency: tuple[Annotated[float, Field(ge=0)], ...]
    mirrored: bool
    floor: Share = 0.02

    @model_validator(mode="after")
    def _of_the_grid(self):
        expected = self.grid[0] * self.grid[1] * self.grid[2]
        if len(self.frequency) != expected:
            raise ValueError(f"frequency: expected {expected} numbers for the grid, got {len(self.frequency)}")
        if not any(self.frequency):
            raise ValueError("frequency: expected a number above 0, got none")
        return self

    @classmethod
    def of(cls, places: PlaceFrequency, mirrored: bool) -> "Where":
        """Write a frequency as a profile says it."""
        return cls(grid=places.grid.shape, frequency=tuple(places.grid.round(4).ravel().tolist()), mirrored=mirrored)

    @property
    def places(self) -> PlaceFrequency:
        """Read the frequency as an insertion takes it."""
        grid = np.array(self.frequency, np.float32).reshape(self.grid)
        return PlaceFrequency(np.maximum(grid / grid.max(), self.floor).astype(np.float32))


class Sizes(Section):
    """How large lesions are.

    Attributes:
        lesions: number of connected lesions.
        diameter_mm: percentiles 5, 25, 50, 75 and 95 of the diameter of the sphere of equal volume.
        ml: volume of each class in a case that has it, the median.
        per_case: how many cases have no lesion, one, two, ...
    """

    lesions: PositiveInt
    diameter_mm: tuple[float, float, float, float, float]
    ml: dict[str, float]
    per_case: tuple[NonNegativeInt, ...]


class Plan(Section):
    """A segmentation network by nnU-Net's rules, and crops of generators.

    Attributes:
        spacing_mm: voxel size of training.
        shape: median size of a case at that voxel size.
        patch_size: of training.
        batch: patches in a step.
        filters: features of each level.
        strides: of each level along each axis.
        kernels: of each level along each axis.
        crops: sides of a generator's crops, and how often each is used.
        memory_gb: for which it was made.
    """

    spacing_mm: Triple
    shape: Sides
    patch_size: Sides
    batch: PositiveInt
    filters: tuple[PositiveInt, ...]
    strides: tuple[Sides, ...]
    kernels: tuple[Sides, ...]
    crops: dict[PositiveInt, PositiveFloat] = Field(min_length=1)
    memory_gb: PositiveFloat

    @model_validator(mode="after")
    def _of_the_same_levels(self):
        for name in ("strides", "kernels"):
            if len(getattr(self, name)) != len(self.filters):
                raise ValueError(
                    f"{name}: expected {len(self.filters)}, one for each of the filters, got {len(getattr(self, name))}"
                )
        return self


class Generator(Section):
    """Which generator is recommended, and the comparison that says so.

    Attributes:
        name: paste, procedural:fitted, or a folder beside the profile.
        compared: generator to its figures.
    """

    name: str = "paste"
    compared: dict[str, dict[str, float]] = Field(default_factory=dict)
