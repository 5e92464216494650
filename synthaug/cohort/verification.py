"""Verification of a cohort's files by its manifest, which is read line by line: memory does not grow with the cases."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from zlib import crc32

from synthaug.cohort.description import listed_files
from synthaug.cohort.job import IDENTITY, REPORT, SUMMARY
from synthaug.cohort.lesion_totals import LesionTotals
from synthaug.cohort.records import Records
from synthaug.cohort.store import Store, open_store
from synthaug.data.tars import split_member
from synthaug.progress import shown

NOT_LISTED = (SUMMARY, REPORT)
COMPARED_AT_A_TIME, NAMES_AT_A_TIME = 1000, 500_000
"""Files that are asked for at a time, and names that are kept at a time to find those that should not be there."""


@dataclass(frozen=True)
class Findings:
    """The result of comparing a cohort with its manifest.

    Attributes:
        summary: the content of ``cohort.json``.
        lesions: what the lesions of the manifest come to, or of the one case that was asked for.
        checked: number of files that were compared.
        missing: files that should be there.
        extra: files that should not.
        altered: files with another checksum.
        record: of the one case that was asked for.
        rows: of the manifest, of that case.
    """

    summary: dict[str, Any]
    lesions: LesionTotals
    checked: int
    missing: list[str]
    extra: list[str]
    altered: list[str]
    record: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every file is as the manifest says."""
        return not (self.missing or self.extra or self.altered)


def is_cohort(folder: str | os.PathLike) -> bool:
    """Tell whether a folder is one of `synthaug.cohort.generate`, finished or not."""
    store = open_store(folder)
    return store.is_there(SUMMARY) or store.is_there(IDENTITY)


def verify(folder: str | os.PathLike, only: str | None = None) -> Findings:
    """Compare a cohort with its manifest, by checksums of all files.

    Args:
        folder: the cohort's folder, a path or a URL.
        only: name of a case, where only its files are to be compared.

    Raises:
        ValueError: the cohort is not finished, or its summary or manifest is damaged, or it has no such case.
    """
    store = open_store(folder)
    if not store.is_there(SUMMARY):
        done = Records(store, sys.maxsize).count()
        raise ValueError(
            f"{store.address}: a cohort that is not finished, {done} cases are done; the same command goes on"
        )
    manifest = _Manifest(store)
    comparison = _Comparison(store)
    if only is not None:
        record, rows = manifest.case(only)
        comparison.compare([(path, about["sha256"]) for path, about in record["files"].items()])
        return comparison.findings(manifest.summary, LesionTotals.of(rows), record=record, rows=rows)
    lesions = manifest.lesions()
    files = shown(manifest.files(), "checking", "file")
    while some := list(islice(files, COMPARED_AT_A_TIME)):
        comparison.compare(some)
    return comparison.findings(manifest.summary, lesions, extra=_extra(store, manifest, comparison.there))


class _Manifest:
    """What a cohort says of itself; read anew, line by line, whenever it is asked for.

    Args:
        store: of the cohort.

    Raises:
        ValueError: its summary is damaged; so do all methods of the rest.
    """

    def __init__(self, store: Store):
        self.store = store
        with self._read():
            self.summary = json.loads(store.read(SUMMARY))
            self.own: dict[str, str] = self.summary["files"]
            self._records, self._rows = (listed_files(self.own, name) for name in ("cases", "manifest"))

    def files(self) -> Iterator[tuple[str, str]]:
        """Give each file and its checksum: those of the cases, then those about all."""
        with self._read():
            for record in self._lines(self._records):
                yield from ((path, about["sha256"]) for path, about in record["files"].items())
        yield from self.own.items()

    def lesions(self) -> LesionTotals:
        """Sum up all lesions."""
        with self._read():
            return LesionTotals.of(self._lines(self._rows))

    def case(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Find a case's record, and its rows of the manifest."""
        first, count, found = "", 0, None
        with self._read():
            for record in self._lines(self._records):
                first, count = first or record["case"], count + 1
                found = record if record["case"] == name else found
            rows = [row for row in self._lines(self._rows) if row["case"] == name]
        if found is None:
            raise ValueError(f"{self.store.address}: no case is called {name!r}; there are {count}, such as {first}")
        return found, rows

    def _lines(self, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
        for path in paths:
            yield from map(json.loads, self.store.lines(path))

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(f"{self.store.address}: its manifest is damaged or missing: {error}") from error


@dataclass
class _Names:
    """How many names there are and the sum of their hashes: the same for the same names in any order."""

    count: int = 0
    hashes: int = 0

    def add(self, name: str) -> None:
        self.count += 1
        self.hashes += int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")


class _Comparison:
    """Compares files with their checksums, so many at a time.

    Args:
        store: of the cohort.
    """

    def __init__(self, store: Store):
        self.store = store
        self.missing: list[str] = []
        self.altered: list[str] = []
        self.checked, self.there, self._last = 0, _Names(), ""

    def compare(self, files: Sequence[tuple[str, str]]) -> None:
        sizes = self.store.sizes([path for path, _ in files])
        for (path, expected), size in zip(files, sizes, strict=True):
            if size is None:
                self.missing.append(path)
                continue
            self.checked += 1
            place = _place(path)
            if place != self._last:  # the members of an archive follow one another
                self.there.add(place)
            self._last = place
            if self._checksum(path, size) != expected:
                self.altered.append(path)

    def findings(self, summary: dict[str, Any], lesions: LesionTotals, **others: Any) -> Findings:
        faults = {"missing": sorted(self.missing), "altered": sorted(self.altered), "extra": [], **others}
        return Findings(summary, lesions, self.checked, **faults)

    def _checksum(self, path: str, size: int) -> str:
        found = hashlib.sha256()
        for piece in self.store.pieces(path, size):
            found.update(piece)
        return found.hexdigest()


def _place(path: str) -> str:
    """The file itself, or the archive that it is a member of."""
    parts = split_member(path)
    return path if parts is None else parts[0]


def _extra(store: Store, manifest: _Manifest, there: _Names) -> list[str]:
    """List the files that nothing says of; the names are compared one part of them after the other."""
    found = _Names()
    for path in store.walk():
        if path not in NOT_LISTED:
            found.add(path)
    if found == there:
        return []
    extra, parts = [], 1 + found.count // NAMES_AT_A_TIME
    for part in range(parts):
        known = {place for path, _ in manifest.files() if _is_of(place := _place(path), part, parts)}
        extra += [path for path in store.walk() if _is_of(path, part, parts) and path not in known]
    return sorted(set(extra) - set(NOT_LISTED))


def _is_of(name: str, part: int, parts: int) -> bool:
    return crc32(name.encode()) % parts == part
