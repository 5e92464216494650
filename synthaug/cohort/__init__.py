"""Offline cohorts: whole cases in, whole cases with synthetic tumours out, of any number, for the usual tools."""

from importlib import import_module
from typing import Any

_HOMES = {
    "CohortConfig": "config",
    "Summary": "production",
    "generate": "production",
    "Findings": "verification",
    "verify": "verification",
}

__all__ = ["CohortConfig", "Findings", "Summary", "generate", "verify"]


def __getattr__(name: str) -> Any:
    """The public names; only their use needs the extra ``cohort``, the command line can list its verbs without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
