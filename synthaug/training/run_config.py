"""Configuration that all training runs share: cases, seed, precision, intervals of logging and saving.

A trainer's configuration is a `RunConfig` whose `data` is a `CasesConfig`, each with what the trainer adds.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from synthaug.classes import VOCABULARIES
from synthaug.config import Section

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Size = tuple[PositiveInt, PositiveInt, PositiveInt]

MAY_CHANGE = ("precision", "data.folder", "data.workers", "log_every", "checkpoint_every", "keep_checkpoints")
"""Keys that a continued run of any trainer may have otherwise than the run it continues; for precision see
`synthaug.training.run.run_precision`."""


class PhantomConfig(Section):
    """Number, size and seed of phantoms that are written into the run's folder."""

    count: PositiveInt
    size: Size = (64, 64, 64)
    seed: Seed = 0


class CasesConfig(Section):
    """Folder, layout, channels, classes and split of the cases, and how batches of them are made."""

    folder: Path | None = None
    phantom: PhantomConfig | None = None
    layout: Literal["auto", "brats", "nnunet", "msd", "bids"] = "auto"
    group_pattern: str | None = None
    channels: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
    classes: str | dict[str, int]
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] = ()
    batch: PositiveInt = 2
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _said_by_the_data(cls, values: Any) -> Any:
        """The configuration with the classes that the data set says, where it has none; phantoms have BraTS's."""
        if not isinstance(values, dict) or values.get("classes") is not None:
            return values
        if values.get("folder") is None:
            return values | {"classes": "BRATS18"}
        from synthaug.data.dataset import find_classes, named_cases

        folder = Path(values["folder"])
        try:
            cases = named_cases(folder, values.get("layout", "auto"), values.get("channels"))
            found = find_classes(folder, cases)[0]
        except ValueError as error:
            raise ValueError(f"classes: {error}") from error
        return values | {"classes": found.name if found.name in VOCABULARIES else dict(found.values)}

    @model_validator(mode="after")
    def _one_source(self):
        if (self.folder is None) == (self.phantom is None):
            raise ValueError("expected either folder (data.folder=/path/to/cases on the command line) or phantom")
        return self


class RunConfig(Section):
    """Configuration of a training; trainers add their parts."""

    data: CasesConfig
    seed: Seed = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: PositiveInt | None = None
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2
