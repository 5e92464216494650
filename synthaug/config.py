"""Configuration files: data-only YAML, checked by pydantic models that forbid unknown keys, with overrides."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


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


def differences(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = ()) -> list[str]:
    """Say in words where two nested dictionaries differ.

    Args:
        old: as it was.
        new: as it is.
        free: dotted keys, or parents of keys, that may differ.

    Example:
        >>> differences({"seed": 0, "data": {"batch": 2}}, {"seed": 0, "data": {"batch": 4}})
        ['data.batch was 2 and is 4']
    """
    before, now = dict(leaves(old)), dict(leaves(new))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    kept = [key for key in changed if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [f"{key} was {before.get(key)} and is {now.get(key)}" for key in kept]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested dictionaries to values with dotted keys."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


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
        return f"{name}: missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["loc"] and message.startswith((f"{item['loc'][-1]}:", f"{item['loc'][-1]}[")):
        # our own checks name the key and what came
        return ".".join([*(str(part) for part in item["loc"][:-1]), message])
    if not name:
        return message
    return f"{name}: {message}" + ("" if isinstance(item["input"], dict) else f", got {item['input']!r}")


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
