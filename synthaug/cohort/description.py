"""Files that describe a cohort: manifest, the layout's own description, folds, labels, summary with checksums.

They are written piece by piece from the records, which are read anew for each: no file is ever in memory as a whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.encoding import Hashed, Items, json_bytes, json_lines, json_pieces, table_pieces
from synthaug.cohort.job import SUMMARY
from synthaug.cohort.layouts import Layout
from synthaug.cohort.splits import LeakProof
from synthaug.cohort.store import Content

LABEL_COLUMNS = ("case", "label", "diameter_mm", "volume_ml", "dominant_class", "host", "host_group", "donor")
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


@dataclass(frozen=True)
class Written:
    """The records of the cases that have files; read anew whenever they are iterated over.

    Attributes:
        records: of all cases that are done.
        count: number of those with files.
        synthetic: whether real cases are left out.
    """

    records: Iterable[Record]
    count: int
    synthetic: bool = False

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        return (r for r in self.records if r["files"] and not (self.synthetic and r["real"]))

    def items(self, of: Callable[[Record], Any]) -> Items:
        """One value for each, as a list in a JSON file."""
        return Items(lambda: map(of, self))


def description(
    config: CohortConfig,
    layout: Layout,
    provenance: Mapping[str, Any],
    records: Iterable[Record],
    tally: Tally,
    splits: LeakProof | None,
) -> dict[str, Content]:
    """Write all files of a cohort that are not of one case, by path; the summary comes last, after all others.

    Args:
        config: the cohort's configuration.
        layout: the layout that it is written in.
        provenance: versions, generator, hash of the configuration.
        records: one per case that is done, by index; read several times.
        tally: of these.
        splits: folds that the cases join, or None.
    """
    synthetic = Written(records, tally.written, synthetic=True)
    files: dict[str, Content] = {
        "manifest.jsonl": json_lines(row for record in synthetic for row in record["lesions"]),
        "cases.jsonl": json_lines({k: v for k, v in r.items() if k != "lesions"} for r in records),
    }
    files |= layout.description(provenance, Written(records, tally.all_written))
    if splits is not None:
        real_name = layout.real_name if config.include_real else str
        files["splits_final.json"] = json_pieces(splits.with_cases(synthetic, real_name))
    if config.balance is not None:
        files["labels.csv"] = table_pieces(LABEL_COLUMNS, map(_label_row, synthetic))
    hashed = {path: Hashed(content) for path, content in files.items()}
    return {**hashed, SUMMARY: _summary(config, provenance, tally, hashed)}


def _summary(
    config: CohortConfig, provenance: Mapping[str, Any], tally: Tally, files: Mapping[str, Hashed]
) -> Iterator[bytes]:
    """Encode the summary, when the other files have been written and their checksums are known."""
    sums = {path: content.sha256 for path, content in files.items()}
    yield json_bytes({**tally.summary(config), **provenance, "files": sums})


def _label_row(record: Record) -> tuple:
    (lesion,) = record["lesions"]
    dominant = max(lesion["voxels"], key=lesion["voxels"].get)
    sizes = (lesion["diameter_mm"], lesion["volume_ml"])
    return record["case"], record["kind"], *sizes, dominant, record["host"], record["host_group"], lesion["donor"]
