"""The looks that were taken at a trial, kept beside its runs: one at the same pairs is taken once."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from synthaug.files import replace_file
from synthaug.trial.statistics import spent

FILE = "looks.json"


@dataclass(frozen=True)
class Look:
    """A look at the results.

    Attributes:
        time: when it was taken, UTC.
        pairs: complete pairs at that time.
        planned: pairs in all.
        spent: alpha that was spent with this look.
        alpha: what this look may find falsely: what it spends beyond the looks before.
    """

    time: str
    pairs: int
    planned: int
    spent: float
    alpha: float

    @property
    def final(self) -> bool:
        """Whether all pairs were complete."""
        return self.pairs == self.planned


def read_looks(out: Path) -> list[Look]:
    """Read the looks that were taken, the first one first."""
    file = out / FILE
    return [Look(**row) for row in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []


def take_look(out: Path, pairs: int, planned: int, looks: int, alpha: float) -> Look | None:
    """Take a look, and write that down; None where those before the end are used up.

    Args:
        out: folder of the trial.
        pairs: complete pairs.
        planned: pairs in all.
        looks: how many may be taken, the one at the end included.
        alpha: of all looks.
    """
    taken = read_looks(out)
    if same := [look for look in taken if look.pairs == pairs]:
        return same[-1]
    early = [look for look in taken if not look.final]
    if pairs == 0 or (pairs < planned and len(early) >= looks - 1):
        return None
    before = taken[-1].spent if taken else 0.0
    total = max(before, spent(pairs / planned, alpha))
    look = Look(datetime.now(UTC).isoformat(timespec="seconds"), pairs, planned, total, total - before)
    replace_file(out / FILE, json.dumps([asdict(each) for each in (*taken, look)], indent=1) + "\n")
    return look
