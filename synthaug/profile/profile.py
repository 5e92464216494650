"""The profile of a data set, `synthaug.json`: what was found, what follows, and why; for people to read and edit.

Data only, checked when it is read: an unknown key or a value that does not fit is an error with the path of the key.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from synthaug.channels import canonical_channels
from synthaug.classes import Classes
from synthaug.config import ConfigError, Section, problem
from synthaug.files import replace_file
from synthaug.host.rule import HostRule
from synthaug.host.space import Space
from synthaug.host.units import Units
from synthaug.lesions.places import PlaceFrequency
from synthaug.options import InsertionOptions
from synthaug.remote import is_url

FORMAT, VERSION = "synthaug-profile", 1
FILE = "synthaug.json"
BANK = "bank.safetensors"

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


class Profile(Section):
    """What is known of a data set.

    Attributes:
        format: says that it is one.
        version: of the format.
        data: where the cases are.
        channels: in order.
        labels: which values are what.
        host: which voxels may hold a lesion.
        units: of model intensities.
        where: how often lesions lie where.
        sizes: how large lesions are, and how many a case has.
        insertion: options of `synthaug.InsertionOptions`; those that are not there keep their defaults.
        plan: of a segmentation network.
        generator: that is recommended.
        why: dotted key to the reason for its value.
    """

    format: Literal["synthaug-profile"] = "synthaug-profile"
    version: Literal[1] = 1
    data: Data
    channels: tuple[Channel, ...]
    labels: Labels
    host: HostRule
    units: Units
    where: Where
    sizes: Sizes
    insertion: dict[str, Any]
    plan: Plan
    generator: Generator = Generator()
    why: dict[str, str] = Field(default_factory=dict)

    @field_validator("insertion")
    @classmethod
    def _options(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            InsertionOptions(**value)
        except ValidationError as error:
            # those of several options together have no key of their own
            keys = ["" if item["loc"] else ": " for item in error.errors()]
            said = [problem(item, InsertionOptions) for item in error.errors()]
            lines = [f"insertion{key or '.'}{line}" for key, line in zip(keys, said, strict=True)]
            raise ValueError("; ".join(lines)) from error
        return value

    @field_validator("channels")
    @classmethod
    def _some(cls, value: tuple[Channel, ...]) -> tuple[Channel, ...]:
        if not value:
            raise ValueError("channels: expected one or more, got none")
        return value

    @model_validator(mode="after")
    def _fits(self):
        canonical_channels(self.names)
        self._check_channels()
        self._check_classes()
        self.space.check(self.names, self.classes)
        if self.host.labels or self.host.avoided:
            raise ValueError(
                "host: labels and avoided are said in labels.organs and labels.avoided; expected none here"
            )
        return self

    def _check_channels(self) -> None:
        body = [] if self.host.body is None else [("host.body.channel", self.host.body.channel)]
        ranges = [(f"host.range.{name}", name) for name in self.host.range]
        units = [(f"units.fixed.{name}", name) for name in self.units.fixed]
        for key, name in (*body, *ranges, *units):
            if name not in self.names:
                raise ValueError(f"{key}: expected one of the channels {', '.join(self.names)}, got {name}")

    def _check_classes(self) -> None:
        named = {key: list(self.insertion.get(key) or ()) for key in ("class_mix", "scale_after_swap")}
        named["swaps"] = [name for swap in self.insertion.get("swaps") or () for name in swap[:2]]
        for key, name in ((key, name) for key, names in named.items() for name in names):
            try:
                self.classes.canonical(name)
            except ValueError as error:
                raise ValueError(f"insertion.{key}: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical channel names."""
        return tuple(channel.name for channel in self.channels)

    @cached_property
    def classes(self) -> Classes:
        """The lesion classes, with the BraTS classes' other names."""
        from synthaug.profile.labels import vocabulary

        return vocabulary(self.labels.lesions)

    @property
    def space(self) -> Space:
        """Host rule and units."""
        roles = {"labels": self.labels.organs, "avoided": self.labels.avoided}
        return Space(rule=self.host.model_copy(update=roles), units=self.units)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `TumorInsertion` besides lesions and generator."""
        own = {"classes": self.classes, "channels": self.names, "space": self.space, "places": self.where.places}
        return own | self.insertion

    def json(self) -> str:  # type: ignore[override]
        """Write the profile as the file has it: a key on each line, lists on one."""
        return _lines(self.model_dump(mode="json", exclude={"host": {"labels", "avoided"}}), "") + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the file."""
        return replace_file(path, self.json())

    @classmethod
    def load(cls, path: "str | Path | Profile") -> "Profile":
        """Read a profile, from its file or the folder that holds it; one that is given is returned.

        Raises:
            ConfigError: no such file, no JSON, another format or version, a key or a value that does not fit.
        """
        if isinstance(path, Profile):
            return path
        path = Path(path) / FILE if Path(path).is_dir() else Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"profile {path}: cannot be read: {error}; `synthaug fit FOLDER` makes one") from error
        except ValueError as error:
            raise ConfigError(f"profile {path}: not JSON: {error}") from error
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise ConfigError(f"profile {path}: expected a file that `synthaug fit FOLDER` wrote, got another one")
        if content.get("version") != VERSION:
            data = content.get("data")
            raise ConfigError(
                f"profile {path}: version: expected {VERSION}, got {content.get('version')!r}; make it anew: "
                f"synthaug fit {data.get('folder', 'FOLDER') if isinstance(data, Mapping) else 'FOLDER'}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problems = "\n".join(f"  {problem(item, cls)}" for item in error.errors())
            raise ConfigError(f"profile {path}:\n{problems}") from error


def find_profile(folder: str | Path | None) -> Path | None:
    """Find the profile that lies beside the cases of a folder; None where there is none."""
    if folder is None or is_url(folder):
        return None
    folder = Path(folder)
    places = (folder, folder.parent) if folder.name in ("imagesTr", "imagesTs") else (folder,)
    return next((place / FILE for place in places if (place / FILE).is_file()), None)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; a key that is given twice is an error, where JSON would silently keep the last."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the key {', '.join(twice)} is given twice")
    return dict(pairs)


def _lines(value: Any, indent: str) -> str:
    """Write JSON with a key on each line, and lists of plain values on one."""
    deeper = indent + "  "
    if isinstance(value, Mapping) and value:
        rows = (f"{deeper}{json.dumps(str(key))}: {_lines(item, deeper)}" for key, item in value.items())
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return "[\n" + ",\n".join(deeper + _lines(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
