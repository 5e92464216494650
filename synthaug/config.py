"""Configuration files: data-only YAML, checked by pydantic models that forbid unknown keys, with overrides."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

CaseLayout = Literal["auto", "brats", "nnunet", "msd", "bids", "webdataset", "zarr"]
"""Layouts that `synthaug.data.find_cases` reads."""


class ConfigError(ValueError):
    """A configuration that cannot be read; the message names the file, the key, and what was expected."""


class Section(BaseModel):
    """Base of a configuration's parts: unknown keys are errors, values do not change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain data only; a key that is given twice is an error, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if repeated := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {repeated[0]!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 40:1 as a number in base 60; here it is text, of which the check can say what is missing
_UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in ("tag:yaml.org,2002:int",)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)


def read_config(path: str | Path | None, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file into a pydantic model.

    Args:
        path: the file, or None for the overrides alone.
        model: what it must hold; make it of `Section`, so that unknown keys are errors.
        overrides: changes of single values, ``"train.steps=50"``; the value is YAML.

    Returns:
        The checked model.

    Raises:
        ConfigError: no file, no YAML, a repeated or unknown key, a value that does not fit, an override without ``=``.

    Example:
        >>> read_config("configs/segmentation_tiny.yaml", Config, ["optimizer.steps=50"])  # doctest: +SKIP
    """
    file = None if path is None else Path(path)
    name = "configuration" if file is None else str(file)
    try:
        content = None if file is None else yaml.load(file.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: expected keys and values, got {type(content).__name__}")
    content = overridden(content, overrides)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {problem(item, model)}" for item in error.errors())
        raise ConfigError(f"{name}:\n{problems}") from error


def overridden(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set some values of nested dictionaries, in place.

    Args:
        content: nested dictionaries, as read from a file.
        overrides: ``"a.b=value"`` each; the value is YAML.

    Raises:
        ConfigError: an override without ``=``, or of a key within a value.
    """
    for override in overrides:
        _override(content, override)
    return content


def _override(content: dict[str, Any], override: str) -> None:
    """Set one value of nested dictionaries from ``"a.b=value"``."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        raise ConfigError(f"override: expected key=value such as optimizer.steps=50, got {override!r}")
    *parents, last = name.split(".")
    for parent in parents:
        if not isinstance(content.get(parent, {}), dict):
            raise ConfigError(f"override {override!r}: {parent} holds a value, not a section")
        content = content.setdefault(parent, {})
    try:
        content[last] = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from error


def problem(item: ErrorDetails, model: type[BaseModel]) -> str:
    """Say a pydantic error in words: the dotted key, what is wrong, what came.

    Args:
        item: one of `ValidationError.errors`.
        model: the model that was validated.
    """
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        return f"{name}: unknown key" + (f", did you mean {close[0]}?" if close else f"; known are {', '.join(known)}")
    if item["type"] == "missing":
        count = item["loc"][-1] if item["loc"] else None
        if isinstance(count, int):
            return f"{name.rpartition('.')[0]}: expected more than {count} values, got {count}"
        return f"{name}: missing"
    if item["type"] in ("tuple_type", "list_type") and isinstance(item["input"], str):
        return f"{name}: expected a list in brackets such as [{item['input'].strip('[]')}], got {item['input']!r}"
    if any(re.fullmatch(r"\w+:\w+", str(part)) for part in item["loc"]):
        return f"{name}: expected a space after the colon, such as {{40: 1}}"
    message = item["msg"].removeprefix("Value error, ")
    if item["loc"] and message.startswith(tuple(f"{item['loc'][-1]}{mark}" for mark in ":[.")):
        # our own checks name the key and what came
        return ".".join([*(str(part) for part in item["loc"][:-1]), message])
    if item["type"] == "value_error" and re.split(r"[.:[]", message)[0] in _section_keys(model, item["loc"]):
        return f"{name}.{message}"
    if not name:
        return message
    return f"{name}: {message}" + ("" if isinstance(item["input"], dict) else f", got {item['input']!r}")


def _section_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """List the field names of the section at a location; none where it is the whole model or no section."""
    keys = _known_keys(model, location)
    return [] if not location or str(location[-1]) in keys else keys


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """List the field names of the section at a location; the whole model's where the location leads elsewhere."""
    members: list[type[BaseModel]] = []
    for part in location:
        field = model.model_fields.get(str(part))
        # a part that is no field says which member of a union it is, by its class
        found = next((m for m in members if m.__name__ == part), None) if field is None else None
        if field is not None:
            members = _sections(field.annotation)
            found = members[0] if members else None
        if found is None:
            break
        model = found
    return list(model.model_fields)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """List the models in an annotation such as ``Model | None`` or ``Annotated[One, ...] | Annotated[Other, ...]``."""
    options = [annotation, *get_args(annotation)]
    options += [get_args(option)[0] for option in options if get_origin(option) is Annotated]
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
