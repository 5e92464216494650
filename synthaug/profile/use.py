"""A profile in use: what an insertion is told by it, and what a user says instead."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthaug.config import ConfigError
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import is_known, known_generators
from synthaug.lesions.base import LesionSource
from synthaug.profile.profile import BANK, FILE, Profile

logger = logging.getLogger(__name__)

INSTEAD = {"scale": {"diameter_mm"}, "diameter_mm": {"scale", "scale_after_swap"}, "class_mix": {"swaps", "swap_draw"}}
INSTEAD["swaps"] = {"class_mix"}
"""Options that take the place of others, which a profile may have."""


def insertion_arguments(
    profile: "str | Path | Profile",
    lesions: LesionSource | str | os.PathLike | None = None,
    generator: str | TumorGenerator | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect the keyword arguments of `TumorInsertion` that a profile gives, with a user's changes.

    Args:
        profile: its file, the folder that holds it, or the profile.
        lesions: in place of the bank beside the profile's file.
        generator: in place of the recommended one.
        changes: further arguments; each wins over the profile.

    Raises:
        ConfigError: a profile that cannot be used, or one that was given without its file and without lesions.
    """
    known = Profile.load(profile)
    home = None if isinstance(profile, Profile) else folder_of(profile)
    if lesions is None and (home is None or not (home / BANK).is_file()):
        where = "a profile that was given as an object" if home is None else f"{home}, which has no {BANK}"
        raise ConfigError(f"lesions: expected a bank with {where}; `synthaug fit` writes one beside the profile")
    own: dict[str, Any] = {"lesions": lesions}
    if home is not None and lesions is None:
        own["lesions"] = home / BANK
    own["generator"] = generator if generator is not None else generator_of(known, home)
    return own | merged(known.options, changes or {})


def generator_of(profile: Profile, home: Path | None) -> str:
    """Return the recommended generator: its name, or its folder beside the profile.

    Raises:
        ConfigError: neither a known name nor a folder there.
    """
    name = profile.generator.name
    if home is None or not (home / name).is_dir():
        if home is not None and not is_known(name):
            raise ConfigError(
                f"profile {home / FILE}: generator.name: expected a folder beside it or one of "
                f"{', '.join(known_generators())}, got {name!r}"
            )
        return name
    return str(home / name)


def folder_of(profile: str | Path) -> Path:
    """Find the folder of a profile's file."""
    path = Path(profile)
    return path if path.is_dir() else path.parent


def file_of(profile: str | Path) -> Path:
    """Find the file of a profile that was given as its file or its folder."""
    return Path(profile) / FILE if Path(profile).is_dir() else Path(profile)


def beside(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keep those of a profile's options whose place none of the given ones takes (`INSTEAD`)."""
    replaced = {other for name in given for other in INSTEAD.get(name, ())}
    return {name: value for name, value in options.items() if name not in replaced}


def merged(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a profile's options with a user's, which win; the log says so."""
    kept = dict(options)
    for name, value in changes.items():
        if value:
            kept = {other: own for other, own in kept.items() if other not in INSTEAD.get(name, ())}
        if name in options and options[name] != value:
            logger.info("%s: %s as given, in place of the profile's %s", name, value, options[name])
    return kept | dict(changes)


def filled(content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill a configuration's section with a profile's values for the keys that it does not give.

    What differs from the profile is said in the log.
    """
    for name, value in values.items():
        if name in content and content[name] != value and not isinstance(value, Mapping):
            logger.info("%s: %s as given, in place of the profile's %s", name, content[name], value)
    return {**values, **content}
