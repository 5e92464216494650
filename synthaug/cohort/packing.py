"""Records of a cohort whose cases are packed into archives: a part of the records for each archive.

.synthaug/loose/000123.tar      case 123, until all cases of its archive are done; a piece of the archive as it will be

So every case is there whole or not at all by itself, any process may make it, and an archive is written in one go.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthaug.cohort.encoding import text_bytes
from synthaug.cohort.layouts.webdataset import END, WebDatasetLayout, fragment, fragment_size
from synthaug.cohort.records import Record, Records, path_of
from synthaug.cohort.store import HIDDEN, Content, Store
from synthaug.cohort.tally import Tally

LOOSE = f"{HIDDEN}/loose"


class PackedRecords(Records):
    """The records of a cohort in archives; those whose archive is not yet there are no part of what is described.

    Args:
        store: of the cohort.
        total: number of its cases.
        layout: of the cohort.
    """

    in_parts = True

    def __init__(self, store: Store, total: int, layout: WebDatasetLayout):
        super().__init__(store, total)
        self.layout, self.part_cases = layout, layout.shard_cases

    def of_parts(self, parts: range) -> Iterator[Record]:
        """Read the records of some parts' cases that are in an archive."""
        for part in sorted(self._joined() & set(parts)):
            yield from self._part(part, [], True)

    def write(self, record: Mapping[str, Any], files: Mapping[str, Content]) -> None:
        """Write a case by itself, and then its record, in which its files are members of the archive."""
        index = record["index"]
        shard = self.layout.shard_path(index // self.part_cases)
        if files:
            members = {name: content for name, content in files.items() if isinstance(content, bytes)}
            self.store.write(f"case{index}", {_loose_path(index): fragment(members)})
        packed = {**record, "files": {f"{shard}/{name}": about for name, about in record["files"].items()}}
        self.store.write(f"record{index}", {path_of(index): text_bytes(json.dumps(packed, allow_nan=False))})

    def tally(self) -> Tally:
        """Sum up the records of cases that are in an archive."""
        tally = Tally()
        for part in sorted(self._joined()):
            tally.merge(self._whole(part) or Tally.of(self._part(part, [], True)))
        return tally

    def _places(self, record: Record, joined: bool) -> list[tuple[str, int | None]]:
        if not record["files"]:
            return []
        if joined:
            return [(self.layout.shard_path(record["index"] // self.part_cases), None)]
        size = fragment_size(about["bytes"] for about in record["files"].values())
        return [(_loose_path(record["index"]), size)]

    def _join(self, part: int, records: Sequence[Record]) -> None:
        loose = [_loose_path(record["index"]) for record in records if record["files"]]
        if loose:
            pieces = (piece for path in [*loose, None] for piece in [END if path is None else self.store.read(path)])
            self.store.write(f"shard{part}", {self.layout.shard_path(part): pieces})
        super()._join(part, records)

    def _forget(self, indices: Sequence[int]) -> None:
        super()._forget(indices)
        self.store.remove(map(_loose_path, indices))


def _loose_path(index: int) -> str:
    return f"{LOOSE}/{index:06d}.tar"
