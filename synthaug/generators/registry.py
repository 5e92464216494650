"""Resolution of a user's `generator` to a `TumorGenerator`."""

import os
from pathlib import Path
from typing import Any

from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.hub import PUBLISHED, load_generator, shipped_generators
from synthaug.generators.paste import PasteGenerator
from synthaug.generators.procedural import ProceduralGenerator

BUILT_IN = {"paste": PasteGenerator, "procedural": ProceduralGenerator}
"""Generators that need no weights, by name."""


def resolve_generator(generator: Any, **options: Any) -> TumorGenerator:
    """Make the generator of that name, or load its weights by name, folder or hub id; a generator is itself.

    Args:
        generator: name, path, or generator.
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
    if name in BUILT_IN:
        return BUILT_IN[name]()
    known = (*BUILT_IN, *shipped_generators())
    if name not in (*known, *PUBLISHED) and "/" not in name and not Path(name).is_dir():
        raise ValueError(f"generator: unknown name {name!r}; known are {', '.join(known)}, a folder or a hub id")
    return load_generator(name, **options)
