"""What the records of a cohort sum up to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from synthaug.cohort.config import CohortConfig

MOST_NAMED = 1000

Record = Mapping[str, Any]


@dataclass
class Tally:
    """What the records of a cohort sum up to.

    Attributes:
        written: number of synthetic cases with files.
        real: number of real cases.
        lesions_asked: number of lesions that were wanted.
        lesions: number of those that were put in.
        refused: attempts by the reason for which they were refused.
        refused_cases: number of cases that no lesion could be put in.
        not_written: the first `MOST_NAMED` of these, and why.
    """

    written: int = 0
    real: int = 0
    lesions_asked: int = 0
    lesions: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    refused_cases: int = 0
    not_written: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Tally":
        """Sum up records."""
        tally = cls()
        for record in records:
            tally.add(record)
        return tally

    def add(self, record: Record) -> None:
        """Add a record."""
        if record["real"]:
            self.real += 1
            return
        self.written += bool(record["files"])
        self.lesions_asked += record["asked"]
        self.lesions += len(record["lesions"])
        self.refused.update(attempt["reason"] for attempt in record["refused"])
        self.refused_cases += not record["files"]
        if not record["files"] and len(self.not_written) < MOST_NAMED:
            self.not_written[record["case"]] = record["refused"][-1]["reason"]

    def merge(self, other: "Tally") -> None:
        """Add another tally, of later records."""
        for name in ("written", "real", "lesions_asked", "lesions", "refused_cases"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.refused.update(other.refused)
        room = MOST_NAMED - len(self.not_written)
        self.not_written.update(islice(other.not_written.items(), max(room, 0)))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Tally":
        """Read a tally from its fields as JSON has them."""
        return cls(**{**values, "refused": Counter(values["refused"])})

    @property
    def all_written(self) -> int:
        """Number of cases with files, real ones among them."""
        return self.written + self.real

    def summary(self, config: CohortConfig) -> dict[str, Any]:
        """The first entries of ``cohort.json``."""
        return {
            "layout": config.layout,
            "asked": config.total,
            "written": self.written,
            "real": self.real,
            "lesions_asked": self.lesions_asked,
            "lesions": self.lesions,
            "refused": dict(sorted(self.refused.items())),
        }
