"""Offline cohorts: synthetic tumours inserted into whole cases, of any number, written for the usual tools."""

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
    """Import a public name at its first use, which needs the extra ``cohort``; listing the verbs does not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
