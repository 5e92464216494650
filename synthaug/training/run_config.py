"""Configuration that all training runs share: cases, seed, precision, intervals of logging and saving.

A trainer's configuration is a `RunConfig` whose `data` is a `CasesConfig`, each with what the trainer adds.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from synthaug.classes import VOCABULARIES
from synthaug.config import CaseLayout, Section
from synthaug.host.space import Space
from synthaug.remote import Place, as_place, local_folder

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


def _classes_of(content: Mapping) -> str | dict[str, int]:
    """Find the classes that the data of a section say."""
    from synthaug.data.dataset import find_classes, named_cases

    folder = local_folder(as_place(content["folder"]))
    try:
        cases = named_cases(folder, content.get("layout", "auto"), content.get("channels"))
        found = find_classes(folder, cases)[0]
    except ValueError as error:
        raise ValueError(f"classes: {error}") from error
    return found.name if found.name in VOCABULARIES else dict(found.values)


class CasesConfig(Section):
    """Folder, layout, channels, classes and split of the cases, and how batches of them are made.

    Attributes:
        profile: of the data set (`synthaug fit`): what is not given here is the profile's.
        folder: of the cases; or `phantom`.
        phantom: phantoms that are written into the run's folder, in place of a folder.
        layout: of the folder; auto finds out.
        group_pattern: regular expression whose first group is the patient in a case's name.
        channels: of the images, in this order.
        classes: a vocabulary, or names and values; where not given, what the data say.
        train: cases or patients; all that are not for validation where not given.
        validation: cases or patients.
        batch: patches or crops per batch and process.
        workers: processes that load beside the training.
    """

    profile: Path | None = None
    folder: Place | None = None
    phantom: PhantomConfig | None = None
    layout: CaseLayout = "auto"
    group_pattern: str | None = None
    channels: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
    classes: str | dict[str, int]
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] = ()
    batch: PositiveInt = 2
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _said_elsewhere(cls, content: Any) -> Any:
        """What is not given is the profile's; without one, classes are what the data say, and phantoms have BraTS's."""
        if not isinstance(content, Mapping):
            return content
        if content.get("profile") is not None:
            return cls._of_profile(content)
        if content.get("classes") is not None:
            return content
        return {**content, "classes": "BRATS18" if content.get("folder") is None else _classes_of(content)}

    @classmethod
    def _of_profile(cls, content: Mapping) -> Any:
        """What is not given is the profile's."""
        from synthaug.profile.profile import Profile
        from synthaug.profile.use import filled

        profile = Profile.load(content["profile"])
        own: dict[str, Any] = {
            "folder": profile.data.folder,
            "layout": profile.data.layout,
            "channels": profile.names,
            "classes": dict(profile.labels.lesions),
            "group_pattern": profile.data.group_pattern,
        }
        if "regions" in cls.model_fields and profile.labels.regions is not None:
            own["regions"] = profile.labels.regions
        return filled(content, {k: v for k, v in own.items() if k != "folder" or content.get("phantom") is None})

    @cached_property
    def space(self) -> Space:
        """Host rule and units: the profile's, or those of skull-stripped images."""
        from synthaug.profile.profile import Profile

        return Space() if self.profile is None else Profile.load(self.profile).space

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
