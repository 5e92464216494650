"""Engines: which processes make the cases of a cohort; the cases are the same from each of them.

A new one is a file beside this one and a line in `ENGINES`. An engine of another package is imported where it is used.
"""

import os

from synthaug.cohort.engines.accelerate import AccelerateEngine
from synthaug.cohort.engines.base import Engine, Order, Share
from synthaug.cohort.engines.local import LocalEngine
from synthaug.cohort.engines.ray import RayEngine
from synthaug.config import ConfigError

__all__ = ["ENGINES", "Engine", "Order", "Share", "make_engine"]

ENGINES: dict[str, type[Engine]] = {"local": LocalEngine, "accelerate": AccelerateEngine, "ray": RayEngine}
"""Name to class."""


def make_engine(name: str | None, order: Order) -> Engine:
    """Make the engine of this name; by default accelerate in a launch of several processes, and local elsewhere.

    Raises:
        ConfigError: no such engine.
        ModuleNotFoundError: its package is not installed; the extra is named.
    """
    if name is None:
        name = "accelerate" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "local"
    if name not in ENGINES:
        raise ConfigError(f"engine: expected {', '.join(ENGINES)}, got {name!r}")
    return ENGINES[name](order)
