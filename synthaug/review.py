"""Decisions of a review: which cases were accepted and which rejected, in one JSON file that is whole at any moment."""

import json
from pathlib import Path
from threading import Lock
from typing import Literal

from synthaug.files import replace_file

Decision = Literal["accept", "reject", "none"]


def decisions_file(folder: Path) -> Path:
    """Choose where decisions on the cases of a folder are kept: beside it, for a cohort has no files but its own."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.review.json")


class Decisions:
    """Decisions by the names of cases, kept in a file.

    Args:
        file: is read where it is there, and written at each decision.

    Raises:
        ValueError: a file that is not of a review.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     decisions = Decisions(Path(folder) / "review.json")
        ...     decisions.decide("synth_000003", "reject")
        ...     read_rejected(decisions.file)
        ('synth_000003',)
    """

    def __init__(self, file: Path):
        self.file, self._lock = file, Lock()
        self.made: dict[str, str] = _read(file) if file.is_file() else {}

    def decide(self, case: str, decision: Decision) -> None:
        """Keep a decision; ``"none"`` takes one back.

        Raises:
            ValueError: another decision.
        """
        if decision not in ("accept", "reject", "none"):
            raise ValueError(f"decision: expected accept, reject or none, got {decision!r}")
        with self._lock:
            self.made = {k: v for k, v in self.made.items() if k != case}
            if decision != "none":
                self.made[case] = decision
            content = {"review_of": "synthaug view", "decisions": dict(sorted(self.made.items()))}
            replace_file(self.file, json.dumps(content, indent=1) + "\n")


def read_rejected(file: str | Path) -> tuple[str, ...]:
    """Read the names of the cases that a review rejected.

    Raises:
        ValueError: no such file, or one that is not of a review.
    """
    return tuple(sorted(name for name, decision in _read(Path(file)).items() if decision == "reject"))


def _read(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        made = content["decisions"]
        sound = all(decision in ("accept", "reject") for decision in made.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: expected the decisions that `synthaug view` writes: {error}") from error
    if not sound:
        raise ValueError(f"{file}: expected accept or reject for each case, got {sorted(set(made.values()))}")
    return made
