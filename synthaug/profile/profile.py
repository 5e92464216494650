"""The profile of a data set, `synthaug.json`: what was found, what follows, and why; for people to read and edit.

Data only, checked when it is read: an unknown key or a value that does not fit is an error with the path of the key.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from synthaug.channels import canonical_channels
from synthaug.classes import Classes
from synthaug.config import ConfigError, Section, problem
from synthaug.files import replace_file
from synthaug.host.rule import HostRule
from synthaug.host.space import Space
from synthaug.host.units import Units
from synthaug.options import InsertionOptions
from synthaug.profile.sections import Channel, Data, Generator, Labels, Plan, Sizes, Where
from synthaug.remote import is_url

FORMAT, VERSION = "synthaug-profile", 1
FILE = "synthaug.json"
BANK = "bank.safetensors"


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
