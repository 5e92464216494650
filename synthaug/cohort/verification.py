"""Verification of a cohort's files by its manifest."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from synthaug.cohort.description import listed_files
from synthaug.cohort.job import IDENTITY, REPORT, SUMMARY
from synthaug.cohort.records import Records
from synthaug.cohort.store import Store, open_store
from synthaug.data.tars import split_member
from synthaug.progress import shown

NOT_LISTED = (SUMMARY, REPORT)


@dataclass(frozen=True)
class Findings:
    """The result of comparing a cohort with its manifest.

    Attributes:
        summary: the content of ``cohort.json``.
        cases: case name to its record.
        lesions: case name to its rows of the manifest.
        checked: number of files that were compared.
        missing: files that should be there.
        extra: files that should not.
        altered: files with another checksum.
    """

    summary: dict[str, Any]
    cases: dict[str, dict[str, Any]]
    lesions: dict[str, list[dict[str, Any]]]
    checked: int
    missing: list[str]
    extra: list[str]
    altered: list[str]

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
    folder = store.address
    if not store.is_there(SUMMARY):
        done = Records(store, sys.maxsize).count()
        raise ValueError(f"{folder}: a cohort that is not finished, {done} cases are done; the same command goes on")
    try:
        summary = json.loads(store.read(SUMMARY))
        own = summary["files"]
        cases = {record["case"]: record for record in _rows(store, listed_files(own, "cases"))}
        lesions: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
        for row in _rows(store, listed_files(own, "manifest")):
            lesions.setdefault(row["case"], []).append(row)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{folder}: its manifest is damaged or missing: {error}") from error
    if only is not None and only not in cases:
        raise ValueError(
            f"{folder}: no case is called {only!r}; there are {len(cases)}, such as {next(iter(cases), '')}"
        )
    expected = {
        path: f["sha256"] for r in cases.values() for path, f in r["files"].items() if only in (None, r["case"])
    }
    if only is None:
        expected |= own
    sizes = store.sizes(list(expected))
    there = [path for path, size in zip(expected, sizes, strict=True) if size is not None]
    checked = shown(there, "checking", "file")
    altered = sorted(path for path in checked if hashlib.sha256(store.read(path)).hexdigest() != expected[path])
    archives = {parts[0] for path in expected if (parts := split_member(path)) is not None}
    extra = [] if only is not None else sorted(set(store.walk()) - set(expected) - archives - set(NOT_LISTED))
    missing = sorted(set(expected) - set(there))
    return Findings(summary, cases, lesions, len(there), missing, extra, altered)


def _rows(store: Store, paths: list[str]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from map(json.loads, store.read(path).splitlines())
