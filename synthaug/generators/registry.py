"""From what a user gives as `generator` to a `TumorGenerator`."""

import os
from pathlib import Path
from typing import Any

from synthaug.generators.base import TumorGenerator
from synthaug.generators.hub import load_generator, shipped_generators
from synthaug.generators.paste import PasteGenerator
from synthaug.generators.procedural import ProceduralGenerator

BUILT_IN = {"paste": PasteGenerator, "procedural": ProceduralGenerator}
"""Generators that need no weights, by name."""


def resolve_generator(generator: Any) -> TumorGenerator:
    """The generator of that name, the weights of that name, folder or hub id, or the generator itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones. And what `load_generator` raises.
        TypeError: neither a name, a path, nor a `TumorGenerator`.
    """
    if isinstance(generator, TumorGenerator):
        return generator
    if not isinstance(generator, (str, os.PathLike)):
        raise TypeError(f"generator: expected a name or a TumorGenerator, got {type(generator).__name__}")
    name = os.fspath(generator)
    if name in BUILT_IN:
        return BUILT_IN[name]()
    known = (*BUILT_IN, *shipped_generators())
    if name not in known and "/" not in name and not Path(name).is_dir():
        raise ValueError(f"generator: unknown name {name!r}; known are {', '.join(known)}, a folder or a hub id")
    return load_generator(name)
