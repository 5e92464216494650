"""Every configuration key with type, default and meaning, from the pydantic models and the comments of configs/."""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from synthaug.adapters.nnunet.settings import Settings
from synthaug.cohort.config import CohortConfig
from synthaug.options import InsertionOptions
from synthaug.profile.profile import Profile
from synthaug.shipped import shipped_configs
from synthaug.training.diffusion_config import DiffusionConfig
from synthaug.training.gan_config import GANConfig
from synthaug.training.segmentation_config import SegmentationConfig
from synthaug.training.thin_config import ThinningConfig
from synthaug.trial.config import TrialConfig

ROOTS: dict[str, tuple[type[BaseModel], str]] = {
    "Segmentation": (SegmentationConfig, "segmentation_tiny"),
    "GAN": (GANConfig, "gan_tiny"),
    "Diffusion": (DiffusionConfig, "diffusion_tiny"),
    "Thinning": (ThinningConfig, "thin_tiny"),
    "Trials": (TrialConfig, "trial_tiny"),
    "Cohorts": (CohortConfig, "cohort_brats"),
    "nnU-Net": (Settings, "nnunet"),
    "Profile": (Profile, ""),
}
"""Heading, model and the configuration whose comments explain it, of each kind of file."""

Row = tuple[str, str, str, str]
"""Key, type, default, meaning."""


def options_page() -> str:
    """Describe the options of insertion in Markdown."""
    head = (
        "# Options of insertion\n\nThe same in Python (`TumorInsertion(...)`), YAML (`insertion:`), cohorts "
        "(`lesions:`), nnU-Net and on the command line (`key=value`)."
    )
    return f"{head}\n\n{table(rows_of(InsertionOptions, {}))}\n"


def configuration_page() -> str:
    """Describe every key of every configuration in Markdown."""
    parts = [
        "# Configuration",
        "",
        "`synthaug configs list` names the files that ship, `show` prints one, `copy` copies one to change.",
        "",
    ]
    for heading, (model, config) in ROOTS.items():
        shown = f"`synthaug configs show {config}`" if config else "`synthaug.json`, which `synthaug fit` writes"
        parts += [f"## {heading}", "", f"{shown}.", "", table(rows_of(model, comments_of(config))), ""]
    return "\n".join(parts)


def table(rows: list[Row]) -> str:
    """Write rows as a Markdown table."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| `{key}` | {cell(kind)} | {default} | {cell(words)} |" for key, kind, default, words in rows)]
    )


def cell(text: str) -> str:
    """Make text fit one cell of a table."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def rows_of(model: type[BaseModel], comments: dict[str, str], prefix: str = "") -> list[Row]:
    """List the keys of a model and of its sections, depth first."""
    rows, meanings = [], attributes_of(model)
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        words = comments.get(key) or meanings.get(name) or field.description or ""
        sections = [
            part for part in parts_of(field.annotation) if inspect.isclass(part) and issubclass(part, BaseModel)
        ]
        if not words and sections:
            words = (inspect.getdoc(sections[0]) or "").split("\n\n")[0]
        rows.append((key, type_words(field.annotation), default_words(field), words))
        for section in sections:
            rows += [row for row in rows_of(section, comments, f"{key}.") if row[0] not in {r[0] for r in rows}]
    return rows


def attributes_of(model: type[BaseModel]) -> dict[str, str]:
    """Collect what the docstrings of a model and its parents say under ``Attributes:``."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        _, _, listed = inspect.cleandoc(parent.__doc__ or "").partition("Attributes:\n")
        listed = re.split(r"\n(?=\S)", listed)[0]
        for name, words in re.findall(r"^    (\w+): ((?:.|\n(?!    \w+: |\S))*)", listed, re.M):
            found[name] = " ".join(words.split())
    return found


def comments_of(config: str) -> dict[str, str]:
    """Collect the comments behind the keys of a shipped configuration, by dotted key; commented keys too."""
    found: dict[str, str] = {}
    if not config:
        return found
    path: list[tuple[int, str]] = []
    last = None
    for line in shipped_configs()[config].read_text(encoding="utf-8").splitlines():
        if last and (more := re.match(r"\s+#   +(\S.*)$", line)):
            found[last] += " " + more[1]
        elif matched := re.match(r"(\s*)(?:# )?(\w+):(?: ([^#]*))?(?:#\s*(.*))?$", line):
            indent, name, comment = len(matched[1]), matched[2], matched[4]
            path = [(i, n) for i, n in path if i < indent] + [(indent, name)]
            last = ".".join(n for _, n in path) if comment else None
            if last:
                found[last] = comment
    return found


def parts_of(annotation: Any) -> Iterator[Any]:
    """Go through the types that an annotation is made of, outermost first; not into those of a mapping's values."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from parts_of(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from parts_of(part)
    elif typing.get_origin(annotation) in (tuple, list):
        for part in typing.get_args(annotation)[:1]:
            yield from parts_of(part)
    else:
        yield annotation


def type_words(annotation: Any) -> str:
    """Say a type in words that users of YAML know."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(part) for part in arguments))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list):
        many = (len(arguments) == 2 and arguments[1] is Ellipsis) or origin is list
        return f"list of {type_words(arguments[0])}" if many else f"[{', '.join(map(type_words, arguments))}]"
    if origin is dict or (origin is not None and "Mapping" in str(origin)):
        return f"mapping of {' to '.join(map(type_words, arguments))}"
    if origin is not None:
        return "function"
    if annotation is type(None):
        return "null"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "section"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", Any: "any"}
    return names.get(annotation) or getattr(annotation, "__name__", str(annotation))


def default_words(field: Any) -> str:
    """Say the default of a field."""
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory is not None else field.default
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    shown = (
        {None: "null", True: "true", False: "false"}.get(value, value)
        if isinstance(value, (bool, type(None)))
        else value
    )
    return f"`{list(shown) if isinstance(shown, tuple) else shown}`".replace("|", "\\|")


def all_commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Go through all commands of the command line with their whole names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command
