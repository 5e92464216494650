"""Models of the YAML file that ``SYNTHAUG_CONFIG`` names; each key is explained in configs/nnunet.yaml."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from synthaug.config import ConfigError, Section, read_config
from synthaug.insertion.schedule import ScheduledOptions
from synthaug.lesions.sampler import shipped
from synthaug.options import refuse_files

VARIABLE = "SYNTHAUG_CONFIG"
"""Environment variable that names the settings."""

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class InsertionSettings(ScheduledOptions):
    """Options of `TumorInsertion` that may be set for nnU-Net, and their schedule over the epochs."""

    @field_validator("ignore_label")
    @classmethod
    def _of_the_dataset(cls, value: int | None) -> None:
        if value is not None:
            raise ValueError(f"ignore_label: expected that of dataset.json alone, got {value}")

    @field_validator("host")
    @classmethod
    def _of_its_section(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("host: expected the section host of the settings, which says where lesions may lie")

    @model_validator(mode="after")
    def _no_files(self):
        refuse_files(self)
        return self


class HostSettings(Section):
    """Limits of the host tissue, besides nnU-Net's own mask of the non-zero region."""

    labels: tuple[str, ...] = ()
    range: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    clip: Literal["refuse", "inside"] = "refuse"
    statistics: Literal["patch", "volume"] = "patch"


class TumourFreeSettings(Section):
    """Tumour-free hosts beside the training cases.

    Attributes:
        dataset: number or name of their dataset, preprocessed with the plans of the one that is trained on.
        share: of the patches that are of them.
    """

    dataset: int | str
    share: Share = 0.3


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
    tumour_free: TumourFreeSettings | None = None
    intensities: Literal["device", "workers"] = "device"
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
        if self.generator in ("fitted", "procedural:fitted") and self.bank is None:
            raise ValueError("generator: fitted learns its statistics from a bank: give bank")
        if self.lesions == "bank" and self.bank is None:
            raise ValueError(
                "lesions: bank needs the key bank, the file that `synthaug nnunet-bank` writes; or lesions: shapes"
            )
        if self.proportions is not None and self.lesions != "shapes":
            raise ValueError("proportions: they are of procedural lesions, give lesions: shapes")
        return self

    def bank_path(self, fold: int | str) -> Path:
        """Return the bank's file for a fold.

        Raises:
            ConfigError: the settings name none.
        """
        if self.bank is None:
            raise ConfigError("bank: expected a file such as bank_fold{fold}.safetensors, got none")
        return Path(str(self.bank).replace("{fold}", str(fold)))


def read_settings(path: str | os.PathLike | None = None) -> Settings:
    """Read the settings from their YAML file.

    Args:
        path: the YAML file; by default the one that the environment variable ``SYNTHAUG_CONFIG`` names.

    Returns:
        The settings; a relative `bank` that is not the name of a sampler that ships, and a relative `generator`
        folder, are meant from the file's own folder.

    Raises:
        ConfigError: no path and no variable, no file, and what `read_config` raises.
    """
    path = path or os.environ.get(VARIABLE)
    if not path:
        raise ConfigError(
            f"{VARIABLE} is not set: it names the YAML file that says what is to be inserted, for example "
            f"export {VARIABLE}=/path/to/nnunet.yaml (synthaug configs show nnunet explains each key)"
        )
    file = Path(path)
    settings = read_config(file, Settings)
    home, changes = file.resolve().parent, dict[str, Any]()
    if settings.bank is not None:
        own = home / settings.bank.expanduser()
        changes["bank"] = own if own.exists() or shipped(settings.bank) is None else settings.bank
    if (home / settings.generator).is_dir():
        changes["generator"] = str(home / settings.generator)
    return settings.model_copy(update=changes)
