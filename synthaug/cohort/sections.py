"""Sections of a cohort's configuration: hosts, lesions, gate, folds, balance, packing and texts."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from synthaug.config import CaseLayout, Section
from synthaug.options import LesionOptions
from synthaug.remote import Place

Share = Annotated[float, Field(ge=0, le=1)]
Range = PositiveFloat | tuple[PositiveFloat, PositiveFloat]

SIZES_MM = {"small": (8.0, 15.0), "medium": (20.0, 30.0), "large": (35.0, 50.0)}
"""Diameters of the spheres of equal volume, for sets that are balanced by size."""


class HostsConfig(Section):
    """Selects the cases that get lesions."""

    layout: CaseLayout = "auto"
    group_pattern: str | None = None
    only: tuple[str, ...] | None = None
    tumour: Literal["any", "with", "free"] = "any"
    unlabelled: Literal["leave-out", "tumour-free"] = "leave-out"
    tissue_range: tuple[float, float] | None = None

    @field_validator("tissue_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"tissue_range: expected (low, high) with low below high, got {value}")
        return value


class ShapesConfig(Section):
    """Options of procedural lesion masks, in place of a bank.

    Attributes:
        diameter_mm: range of the diameter of the sphere of equal volume.
        proportions: each class's share of the volume, innermost first.
        irregularity: of the shapes; 0 for balls.
    """

    diameter_mm: Range = (10.0, 50.0)
    proportions: dict[str, float] | None = None
    irregularity: Annotated[float, Field(ge=0)] = 0.35


class LesionsConfig(LesionOptions):
    """Options of the lesions: their source, number per case, sizes, classes and places.

    Attributes:
        bank: of the donors' masks, or the file of a `LesionSampler`, which samples them; its lesions are of no patient.
        shapes: procedural masks in place of a bank.
        per_case: lesions in a case, a number or least and most.
        retries: further attempts for a lesion that is refused.
        unknown_groups: whether donors of unknown patients are refused.
    """

    bank: Place | None = None
    shapes: ShapesConfig | None = None
    per_case: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    retries: Annotated[int, Field(ge=0, le=200)] = 10
    unknown_groups: Literal["refuse", "allow"] = "refuse"

    @property
    def range_per_case(self) -> tuple[int, int]:
        """Least and greatest number of lesions in a case."""
        return self.per_case if isinstance(self.per_case, tuple) else (self.per_case, self.per_case)

    @field_validator("host", "prior")
    @classmethod
    def _recorded(cls, value: Any, info: ValidationInfo) -> Any:
        if callable(value):
            raise ValueError(f"{info.field_name}: a cohort keeps its configuration; expected a file, got a function")
        return value

    @model_validator(mode="after")
    def _sensible(self):
        low, high = self.range_per_case
        if low > high or high > 32:
            raise ValueError(f"per_case: expected a number or a range up to 32, got {self.per_case}")
        if self.bank is not None and self.shapes is not None:
            raise ValueError("expected a bank or shapes, got both")
        return self


class GateConfig(Section):
    """Limits of the quality gate; one that is null is not looked at.

    Attributes:
        deviation: of a lesion's class means from the bank's, in standard deviations between its lesions.
        border_jump: step across the border, as a multiple of the bank's median.
        segmenter: run or model that has to find the lesion.
        agreement: least Dice of what it finds.
    """

    deviation: PositiveFloat | None = 4.0
    border_jump: PositiveFloat | None = 3.0
    segmenter: Path | None = None
    agreement: Share | None = None


class SplitsConfig(Section):
    """Folds of the real data set that the cohort will be trained with."""

    folds: Path | Annotated[int, Field(ge=2)] | None = None
    outside: Literal["refuse", "train"] = "refuse"


class BalanceConfig(Section):
    """A balanced set for classifiers: so many cases of each kind.

    Attributes:
        per_class: cases of each kind.
        by: what is balanced.
        sizes_mm: names of sizes and their diameters.
    """

    per_class: PositiveInt
    by: Literal["class", "size"] = "class"
    sizes_mm: dict[str, tuple[PositiveFloat, PositiveFloat]] = SIZES_MM


class PackingConfig(Section):
    """How the layouts ``webdataset`` and ``zarr`` pack cases; of no meaning in others.

    Attributes:
        shard_cases: cases of a tar archive.
        dtype: of the voxels: the files' own, or float16.
        chunk_vox: side of a chunk.
    """

    shard_cases: PositiveInt = 32
    dtype: Literal["source", "float16"] = "source"
    chunk_vox: PositiveInt = 64


class AboutConfig(Section):
    """Texts of the description files.

    Attributes:
        name: of the data set.
        description: of what it is.
        licence: of the data.
        reference: papers of the data.
        authors: of the data set.
    """

    name: str = "Synthetic"
    description: str = "Synthetic tumours inserted into real cases by synthaug"
    licence: str = "that of the host and donor cases; not stated"
    reference: str = "not stated"
    authors: tuple[str, ...] = ("synthaug",)
