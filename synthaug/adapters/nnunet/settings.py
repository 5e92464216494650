"""What the YAML file named by ``SYNTHAUG_CONFIG`` may say; each key is explained in configs/nnunet.yaml."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from synthaug.config import ConfigError, Section, read_config

VARIABLE = "SYNTHAUG_CONFIG"
"""Environment variable that names the settings."""

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Range = tuple[PositiveFloat, PositiveFloat]


class InsertionSettings(Section):
    """What `TumorInsertion` is told."""

    prob: Share = 0.6
    second: Share = 0.4
    scale: Range | None = None
    diameter_mm: Range | None = None
    scale_after_swap: dict[str, Range] | None = None
    swaps: tuple[tuple[str, str, Share], ...] = ()
    swap_draw: Literal["joint", "each"] = "joint"
    class_mix: dict[str, float] | None = None
    clearance_mm: NotNegative = 3.0
    tissue_share: Share = 0.9
    min_voxels: PositiveInt = 27
    flip: Share = 0.5
    rotate90: bool = True
    rotate_deg: NotNegative = 0.0
    elastic_mm: NotNegative = 0.0
    halo_mm: NotNegative = 0.0
    edge_vox: NotNegative = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class HostSettings(Section):
    """Where lesions may lie, besides nnU-Net's own mask of the non-zero region."""

    labels: tuple[str, ...] = ()
    range: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    statistics: Literal["patch", "volume"] = "patch"


class Settings(Section):
    """All settings of `nnUNetTrainerSynthAug` and of ``synthaug nnunet-bank``."""

    lesions: Literal["bank", "shapes"] = "bank"
    bank: Path | None = None
    proportions: dict[str, NotNegative] | None = None
    generator: str = "paste"
    generator_options: dict[str, Any] = Field(default_factory=dict)
    classes: str | dict[str, int] | tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    group_pattern: str | None = None
    host: HostSettings = HostSettings()
    insertion: InsertionSettings = InsertionSettings()
    record: bool = False

    @field_validator("group_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression ({error})") from error
        return value

    @model_validator(mode="after")
    def _fits(self):
        if self.generator == "fitted" and self.bank is None:
            raise ValueError("generator: fitted learns its statistics from a bank: give bank")
        if self.lesions == "bank" and self.bank is None:
            raise ValueError(
                "lesions: bank needs the key bank, the file that `synthaug nnunet-bank` writes; or lesions: shapes"
            )
        if self.proportions is not None and self.lesions != "shapes":
            raise ValueError("proportions: they are of procedural lesions, give lesions: shapes")
        return self

    def bank_path(self, fold: int | str) -> Path:
        """The bank's file for a fold.

        Raises:
            ConfigError: the settings name none.
        """
        if self.bank is None:
            raise ConfigError("bank: expected a file such as bank_fold{fold}.safetensors, got none")
        return Path(str(self.bank).replace("{fold}", str(fold)))


def read_settings(path: str | os.PathLike | None = None) -> Settings:
    """Read the settings.

    Args:
        path: of the YAML file; by default the one that the environment variable ``SYNTHAUG_CONFIG`` names.

    Returns:
        The settings; a relative `bank`, and a relative `generator` folder, are meant from the file's own folder.

    Raises:
        ConfigError: no path and no variable, no file, and what `read_config` raises.
    """
    path = path or os.environ.get(VARIABLE)
    if not path:
        raise ConfigError(
            f"{VARIABLE} is not set: it names the YAML file that says what is to be inserted, for example "
            f"export {VARIABLE}=/path/to/nnunet.yaml (synthaug configs show nnunet explains each key)"
        )
    path = Path(path)
    settings = read_config(path, Settings)
    home, changes = path.resolve().parent, {}
    if settings.bank is not None:
        changes["bank"] = home / settings.bank.expanduser()
    if (home / settings.generator).is_dir():
        changes["generator"] = str(home / settings.generator)
    return settings.model_copy(update=changes)
