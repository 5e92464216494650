"""The looks at a trial: each spends a part of alpha, and is kept in ``looks.json``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from synthaug.files import replace_file
from synthaug.trial.plan import Unit
from synthaug.trial.statistics import spent

FILE = "looks.json"


@dataclass(frozen=True)
class Look:
    """One look.

    Attributes:
        units: rotation and seed of the pairs that were there.
        planned: number of pairs of the whole trial.
        spent: alpha that was spent with this look and those before.
        level: alpha of this look alone.
    """

    units: tuple[Unit, ...]
    planned: int
    spent: float
    level: float


def looks_of(out: Path) -> list[Look]:
    """Read the looks so far."""
    file = out / FILE
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return [Look(**look | {"units": tuple((r, s) for r, s in look["units"])}) for look in kept]


def take_look(out: Path, units: Sequence[Unit], planned: int, alpha: float) -> Look:
    """Record a look, and return what it may spend; a second look at the same pairs is the first one again.

    A look that has no more pairs than one before, but others, has nothing to spend.

    Args:
        out: folder of the trial.
        units: rotation and seed of the pairs that are there.
        planned: number of pairs of the whole trial.
        alpha: of the whole trial.
    """
    before = looks_of(out)
    now = tuple(sorted(units))
    if again := [look for look in before if look.units == now]:
        return again[0]
    already = max((look.spent for look in before), default=0.0)
    total = max(already, spent(len(now) / planned, alpha))
    look = Look(now, planned, total, total - already)
    replace_file(out / FILE, json.dumps([asdict(item) for item in (*before, look)], indent=1) + "\n")
    return look
