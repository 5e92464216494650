"""Records of the cases that are done: a file for each, and one for every part of a large cohort that is whole.

A cohort of more than `PART_CASES` cases is divided into parts of so many. When all cases of a part are done, their
records go into one file of JSON lines, with a digest beside, so that a resume need not read them. Whoever reads records
reads part by part: neither memory nor the number of files in a folder grows with the cohort. JSON lines and not
parquet: records are nested and of several forms, the same records give the same bytes whatever the version of a
library, and what is read is always a whole part, never a column.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from synthaug.cohort.encoding import json_line_bytes, text_bytes
from synthaug.cohort.store import HIDDEN, Content, Store
from synthaug.cohort.tally import Tally

RECORDS, PARTS = f"{HIDDEN}/records", f"{HIDDEN}/parts"
PART_CASES = 1000

Record = dict[str, Any]


class Records:
    """The records of a cohort, in the order of their numbers; iterating reads them anew, part by part.

    Args:
        store: of the cohort.
        total: number of its cases.
    """

    part_cases = PART_CASES

    def __init__(self, store: Store, total: int):
        self.store, self.total = store, total

    @property
    def parts(self) -> range:
        """Numbers of the parts."""
        return range(-(-self.total // self.part_cases))

    @property
    def in_parts(self) -> bool:
        """Whether the records of a whole part are joined."""
        return self.total > self.part_cases

    def cases_of(self, part: int) -> range:
        """Numbers of a part's cases."""
        return range(part * self.part_cases, min((part + 1) * self.part_cases, self.total))

    def __iter__(self) -> Iterator[Record]:
        """Read the records of cases whose files are all there."""
        return self.of_parts(self.parts)

    def of_parts(self, parts: range) -> Iterator[Record]:
        """Read the records of some parts' cases whose files are all there."""
        loose, joined = self._loose(), self._joined()
        for part in parts:
            yield from self._part(part, loose, part in joined)

    def missing(self) -> Iterator[int]:
        """List the cases that are not done, or of which a file is gone."""
        loose, joined = self._loose(), self._joined()
        for part in self.parts:
            if part in joined and (not self.store.is_near or self._whole(part) is not None):
                continue
            there = {record["index"] for record in self._part(part, loose, part in joined)}
            yield from (index for index in self.cases_of(part) if index not in there)

    def tally(self) -> Tally:
        """Sum up all records; of a part that is whole, what was summed up when it was joined."""
        loose, joined, tally = self._loose(), self._joined(), Tally()
        for part in self.parts:
            known = self._whole(part) if part in joined else None
            tally.merge(known or Tally.of(self._part(part, loose, part in joined)))
        return tally

    def done(self, indices: Sequence[int]) -> set[int]:
        """Tell which of a few cases are done, by what is there now."""
        joined = {part for part in {i // self.part_cases for i in indices} if self.store.is_there(_part_path(part))}
        rest = [i for i in indices if i // self.part_cases not in joined]
        sizes = self.store.sizes([path_of(index) for index in rest])
        there = {index for index, size in zip(rest, sizes, strict=True) if size is not None}
        return there | {i for i in indices if i // self.part_cases in joined}

    def count(self) -> int:
        """Count the cases that are done, quickly, for a progress bar."""
        return min(len(self._joined()) * self.part_cases + len(self.store.names(RECORDS)), self.total)

    def write(self, record: Mapping[str, Any], files: Mapping[str, Content]) -> None:
        """Write the files of a case, and then its record, which marks it as done."""
        index = record["index"]
        if files:
            self.store.write(f"case{index}", files)
        self.store.write(f"record{index}", {path_of(index): text_bytes(json.dumps(record, allow_nan=False))})

    def join(self) -> None:
        """Join the records of parts that are whole; several processes may do so at once, and do the same."""
        if not self.in_parts:
            return
        loose = self._loose()
        for part in sorted({index // self.part_cases for index in loose}):
            try:
                self._join_if_whole(part, _within(loose, self.cases_of(part)))
            except FileNotFoundError:  # another process has joined it in this moment
                if not self.store.is_there(_part_path(part)):
                    raise

    def _join_if_whole(self, part: int, loose: Sequence[int]) -> None:
        count = len(self.cases_of(part))
        joined = len(loose) < count and self.store.is_there(_part_path(part))
        if joined and len(self._part(part, [], True)) == count:  # its process was killed before it had tidied up
            self._forget(loose)
        elif joined or len(loose) == count:
            records = self._part(part, loose, joined)
            if len(records) == count:
                self._join(part, records)

    def _join(self, part: int, records: Sequence[Record]) -> None:
        files = dict(place for record in records for place in self._places(record, joined=True))
        digest = {"tally": vars(Tally.of(records)), "files": files}
        known = {_digest_path(part): text_bytes(json.dumps(digest)), _part_path(part): json_line_bytes(records)}
        self.store.write(f"part{part}", known)
        self._forget([record["index"] for record in records])

    def _forget(self, indices: Sequence[int]) -> None:
        self.store.remove(map(path_of, indices))

    def _places(self, record: Record, joined: bool) -> list[tuple[str, int | None]]:
        """List the files that must be there for a record to hold, with their sizes where these are known."""
        return [(path, about["bytes"]) for path, about in record["files"].items()]

    def _part(self, part: int, loose: Sequence[int], joined: bool) -> list[Record]:
        """Read the records of a part: those that are by themselves, and those that are joined."""
        found: dict[int, Record] = {}
        if joined:
            lines = self.store.read(_part_path(part)).splitlines()
            found = {r["index"]: r for r in self._with_files(map(json.loads, lines), joined=True)}
        single = (self._read(index) for index in _within(loose, self.cases_of(part)))
        found |= {r["index"]: r for r in self._with_files((r for r in single if r is not None), joined=False)}
        if not joined and len(found) < len(self.cases_of(part)) and self._was_joined(part):
            return self._part(part, loose, True)
        return [found[index] for index in sorted(found)]

    def _read(self, index: int) -> Record | None:
        try:
            return json.loads(self.store.read(path_of(index)))
        except FileNotFoundError:  # joined by another process in this moment
            return None

    def _with_files(self, records: Iterable[Record], joined: bool) -> list[Record]:
        """Leave out records of which a file is not there whole."""
        listed = list(records)
        if joined and not self.store.is_near:
            return listed
        wanted = {record["index"]: self._places(record, joined) for record in listed}
        paths = list(dict.fromkeys(path for places in wanted.values() for path, _ in places))
        sizes = dict(zip(paths, self.store.sizes(paths), strict=True))

        return [r for r in listed if all(_fits(size, sizes[path]) for path, size in wanted[r["index"]])]

    def _whole(self, part: int) -> Tally | None:
        """The tally of a joined part; None where one of its files is gone."""
        digest = json.loads(self.store.read(_digest_path(part)))
        if self.store.is_near:  # elsewhere a request for each would cost more than all the rest
            sizes = self.store.sizes(list(digest["files"]))
            if not all(map(_fits, digest["files"].values(), sizes)):
                return None
        return Tally.read(digest["tally"])

    def _was_joined(self, part: int) -> bool:
        return self.in_parts and self.store.is_there(_part_path(part))

    def _loose(self) -> list[int]:
        """Numbers of the cases that have a record of their own, in order."""
        numbers = (int(name.removesuffix(".json")) for name in self.store.names(RECORDS))
        return sorted(number for number in numbers if number < self.total)

    def _joined(self) -> set[int]:
        return {int(name.removesuffix(".jsonl")) for name in self.store.names(PARTS) if name.endswith(".jsonl")}


def _within(numbers: Sequence[int], cases: range) -> Sequence[int]:
    return numbers[bisect_left(numbers, cases.start) : bisect_left(numbers, cases.stop)]


def _fits(wanted: int | None, there: int | None) -> bool:
    """Whether a file is there in the size that is wanted; None where any will do."""
    return there is not None and wanted in (None, there)


def path_of(index: int) -> str:
    """Path of the record of a case that is by itself."""
    return f"{RECORDS}/{index:06d}.json"


def _part_path(part: int) -> str:
    return f"{PARTS}/{part:06d}.jsonl"


def _digest_path(part: int) -> str:
    return f"{PARTS}/{part:06d}.digest.json"
