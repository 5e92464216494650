"""From what a user gives as `generator` to a `TumorGenerator`."""

from typing import Any

from synthaug.generators.base import TumorGenerator
from synthaug.generators.paste import PasteGenerator
from synthaug.generators.procedural import ProceduralGenerator

BUILT_IN = {"paste": PasteGenerator, "procedural": ProceduralGenerator}
"""Generators that need no weights, by name."""


def resolve_generator(generator: Any) -> TumorGenerator:
    """The generator of that name, or the generator itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: neither a name nor a `TumorGenerator`.
    """
    if isinstance(generator, TumorGenerator):
        return generator
    if not isinstance(generator, str):
        raise TypeError(f"generator: expected a name or a TumorGenerator, got {type(generator).__name__}")
    if generator not in BUILT_IN:
        raise ValueError(f"generator: unknown name {generator!r}; known are {', '.join(BUILT_IN)}")
    return BUILT_IN[generator]()
