"""Files that describe a cohort: manifest, the layout's own description, folds, labels, summary with checksums.

They are written piece by piece from the records, which are read anew for each: no file is ever in memory as a whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.encoding import Hashed, Items, json_bytes, json_lines, json_pieces, table_pieces
from synthaug.cohort.job import SUMMARY
from synthaug.cohort.layouts import Layout
from synthaug.cohort.records import Records
from synthaug.cohort.splits import LeakProof
from synthaug.cohort.store import Content
from synthaug.cohort.tally import Tally

LABEL_COLUMNS = ("case", "label", "diameter_mm", "volume_ml", "dominant_class", "host", "host_group", "donor")
MOST_IN_A_FILE = 100_000
"""Cases that a file of manifest or cases lists at most."""

Record = Mapping[str, Any]


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
    records: Records,
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
    files: dict[str, Content] = {}
    for path, some in _listed("manifest", records):
        files[path] = json_lines(row for r in some if r["files"] and not r["real"] for row in r["lesions"])
    for path, some in _listed("cases", records):
        files[path] = json_lines({k: v for k, v in r.items() if k != "lesions"} for r in some)
    files |= layout.description(provenance, Written(records, tally.all_written))
    if splits is not None:
        real_name = layout.real_name if config.include_real else str
        files["splits_final.json"] = json_pieces(splits.with_cases(synthetic, real_name))
    if config.balance is not None:
        files["labels.csv"] = table_pieces(LABEL_COLUMNS, map(_label_row, synthetic))
    hashed = {path: Hashed(content) for path, content in files.items()}
    return {**hashed, SUMMARY: _summary(config, provenance, tally, hashed)}


def _listed(name: str, records: Records) -> Iterator[tuple[str, Iterable[Record]]]:
    """Name the files that list all cases: one, or, of many cases, one for every `MOST_IN_A_FILE`, in a folder."""
    if records.total <= MOST_IN_A_FILE:
        yield f"{name}.jsonl", records
        return
    step = max(MOST_IN_A_FILE // records.part_cases, 1)
    for number, first in enumerate(range(0, len(records.parts), step)):
        yield f"{name}/{number:06d}.jsonl", records.of_parts(records.parts[first : first + step])


def listed_files(files: Mapping[str, Any], name: str) -> list[str]:
    """Find the files that list all cases among those of a summary, in order."""
    return sorted(path for path in files if path == f"{name}.jsonl" or path.startswith(f"{name}/"))


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
