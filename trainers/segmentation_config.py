"""What trainers/segmentation.py may be told, checked before anything is read, and the cases that it names.

What each key means is written beside it in configs/segmentation_tiny.yaml.
"""

import math
import shutil
import zlib
from pathlib import Path
from typing import Annotated, Literal

from accelerate import Accelerator
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from synthaug import get_classes
from synthaug.config import ConfigError, Section
from synthaug.data import Case, find_cases, write_phantom_dataset

Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
Size = tuple[PositiveInt, PositiveInt, PositiveInt]


class PhantomConfig(Section):
    """Phantoms that are written into the run's folder."""

    count: PositiveInt
    size: Size = (64, 64, 64)
    seed: Seed = 0


class DataConfig(Section):
    """Which cases, and how patches are cut from them."""

    folder: Path | None = None
    phantom: PhantomConfig | None = None
    layout: Literal["auto", "brats", "nnunet", "msd"] = "auto"
    group_pattern: str | None = None
    channels: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
    classes: str | dict[str, int] = "BRATS18"
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] = Field(min_length=1)
    dtype: Literal["float16", "float32"] = "float32"
    patch_size: Size
    batch: PositiveInt = 2
    lesion_share: Share = 0.5
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_source(self):
        if (self.folder is None) == (self.phantom is None):
            raise ValueError("expected either folder (data.folder=/path/to/cases on the command line) or phantom")
        return self


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


class Config(Section):
    """A whole configuration."""

    data: DataConfig
    network: NetworkConfig
    optimizer: OptimizerConfig
    insertion: InsertionConfig | None
    validation: ValidationConfig
    seed: Seed = 0
    precision: Literal["fp32", "bf16"] = "bf16"
    threads: PositiveInt | None = None
    log_every: PositiveInt = 10
    checkpoint_every: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2

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


def open_cases(config: DataConfig, out: Path, accelerator: Accelerator) -> tuple[list[Case], list[Case]]:
    """Training and validation cases; phantoms are written into the run's folder first."""
    folder = config.folder
    if config.phantom is not None:
        recipe = config.phantom.model_dump_json() + repr(get_classes(config.classes))
        folder = out / f"phantoms_{zlib.crc32(recipe.encode()):08x}"  # other phantoms, other folder
        with accelerator.main_process_first():
            if not folder.exists():
                write_phantoms(config, folder)
    split = {"validation": config.validation} | ({"train": config.train} if config.train is not None else {})
    try:
        cases = find_cases(folder, config.layout, config.channels, config.group_pattern, split)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    train = [c for c in cases if c.split == "train" or (config.train is None and c.split is None and c.label)]
    if not train:
        raise ConfigError(f"data: no training case is left in {folder}: all {len(cases)} are for validation")
    return train, [case for case in cases if case.split == "validation"]


def write_phantoms(config: DataConfig, folder: Path) -> None:
    """Written beside and renamed, so that a run that is killed here leaves no half a data set."""
    unfinished = folder.with_name(f"unfinished_{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    phantom = config.phantom
    write_phantom_dataset(unfinished, phantom.count, phantom.seed, phantom.size, classes=get_classes(config.classes))
    unfinished.rename(folder)
