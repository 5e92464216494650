"""Resolution of a user's `generator` to a `TumorGenerator`."""

import os
from pathlib import Path
from typing import Any

from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.hub import PUBLISHED, load_generator, shipped_generators
from synthaug.generators.paste import PasteGenerator
from synthaug.generators.procedural import ProceduralGenerator
from synthaug.lesions.bank import LesionBank

FITTED = "procedural:fitted"
BUILT_IN = {"paste": PasteGenerator, "procedural": ProceduralGenerator, FITTED: ProceduralGenerator}
"""Generators that need no weights, by name; the last one's statistics are those of the bank's lesions."""


def known_generators() -> tuple[str, ...]:
    """List the names of generators that are built in or shipped."""
    return (*BUILT_IN, *shipped_generators())


def is_known(name: str) -> bool:
    """Tell whether a name is that of a generator that needs no folder: built in, shipped, published, or a hub id."""
    return name in (*known_generators(), *PUBLISHED) or "/" in name


def resolve_generator(generator: Any, lesions: Any = None, **options: Any) -> TumorGenerator:
    """Make the generator of that name, or load its weights by name, folder or hub id; a generator is itself.

    Args:
        generator: name, path, or generator.
        lesions: bank that ``"procedural:fitted"`` learns its statistics from.
        **options: options of `load_generator`, such as ``steps=4``, for weights given by name, folder or hub id.

    Raises:
        ValueError: an unknown name; the message lists the known ones. And what `load_generator` raises.
        TypeError: neither a name, a path, nor a `TumorGenerator`; options for a generator that takes none.
    """
    name = os.fspath(generator) if isinstance(generator, (str, os.PathLike)) else type(generator).__name__
    if options and (isinstance(generator, TumorGenerator) or name in BUILT_IN):
        raise TypeError(
            f"unexpected {', '.join(options)}: options are for generators loaded by name, such as brats-diffusion; "
            f"{name} takes none here"
        )
    if isinstance(generator, TumorGenerator):
        return generator
    if not isinstance(generator, (str, os.PathLike)):
        raise TypeError(f"generator: expected a name or a TumorGenerator, got {name}")
    if name == FITTED:
        if not isinstance(lesions, LesionBank):
            what = "none" if lesions is None else type(lesions).__name__
            raise ValueError(f"generator: {FITTED} learns its statistics from a lesion bank, got {what}")
        return ProceduralGenerator.fit(lesions)
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if not is_known(name) and not Path(name).is_dir():
        known = ", ".join(known_generators())
        raise ValueError(f"generator: unknown name {name!r}; known are {known}, a folder or a hub id")
    return load_generator(name, **options)
