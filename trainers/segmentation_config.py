"""What trainers/segmentation.py may be told, checked before anything is read, and the cases that it names.

What each key means is written beside it in configs/segmentation_tiny.yaml.
"""

import math
from pathlib import Path
from typing import Annotated, Literal

from common import CasesConfig, RunConfig, Seed, Share, Size
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from synthaug import get_classes
from synthaug.config import Section


class DataConfig(CasesConfig):
    """Which cases, and how patches are cut from them."""

    validation: tuple[str, ...] = Field(min_length=1)
    dtype: Literal["float16", "float32"] = "float32"
    patch_size: Size
    lesion_share: Share = 0.5


class NetworkConfig(Section):
    """MONAI's DynUNet."""

    filters: tuple[PositiveInt, ...] = Field(min_length=3)
    strides: tuple[PositiveInt, ...] = Field(min_length=3)
    res_block: bool = False
    deep_supervision: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _levels(self):
        if len(self.filters) != len(self.strides) or self.deep_supervision > len(self.strides) - 2:
            raise ValueError("expected as many filters as strides, and deep_supervision at most two fewer")
        return self


class OptimizerConfig(Section):
    """How long and how fast."""

    steps: PositiveInt
    name: Literal["sgd", "adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["cosine", "poly"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip: PositiveFloat = 12.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99


class InsertionConfig(Section):
    """What `TumorInsertion` is told."""

    lesions: Literal["bank", "shapes"] = "bank"
    bank: Path | None = None
    generator: str = "paste"
    prob: Share = 0.6
    second: Share = 0.4
    scale: tuple[PositiveFloat, PositiveFloat] | None = None
    diameter_mm: tuple[PositiveFloat, PositiveFloat] | None = None
    swaps: tuple[tuple[str, str, Share], ...] = ()
    swap_draw: Literal["joint", "each"] = "joint"
    class_mix: dict[str, float] | None = None
    clearance_mm: Annotated[float, Field(ge=0)] = 3.0
    seed: Seed = 0


class ValidationConfig(Section):
    """How often and how whole volumes are scored."""

    every: PositiveInt
    regions: dict[str, tuple[str, ...]] = Field(min_length=1)
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    windows: PositiveInt = 4


class Config(RunConfig):
    """A whole configuration."""

    data: DataConfig
    network: NetworkConfig
    optimizer: OptimizerConfig
    insertion: InsertionConfig | None
    validation: ValidationConfig

    @model_validator(mode="after")
    def _fits(self):
        classes, total = get_classes(self.data.classes), math.prod(self.network.strides)
        if any(side % total or side < 2 * total for side in self.data.patch_size):
            raise ValueError(
                f"data.patch_size: expected multiples of the product of network.strides, {total}, twice it or more"
            )
        for names in self.validation.regions.values():
            for name in names:
                classes.canonical(name)
        return self
