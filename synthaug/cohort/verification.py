"""Verification of a cohort's files by its manifest."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthaug.cohort.job import HIDDEN, SUMMARY
from synthaug.files import file_sha256

NOT_LISTED = (HIDDEN, SUMMARY, "report.html")


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


def is_cohort(folder: Path) -> bool:
    """Tell whether a folder is one of `synthaug.cohort.generate`, finished or not."""
    return (folder / SUMMARY).is_file() or (folder / HIDDEN).is_dir()


def verify(folder: Path, only: str | None = None) -> Findings:
    """Compare a cohort with its manifest, by checksums of all files.

    Args:
        folder: the cohort's folder.
        only: name of a case, where only its files are to be compared.

    Raises:
        ValueError: the cohort is not finished, or its summary or manifest is damaged, or it has no such case.
    """
    if not (folder / SUMMARY).is_file():
        done = len(list((folder / HIDDEN / "records").glob("*.json")))
        raise ValueError(f"{folder}: a cohort that is not finished, {done} cases are done; the same command goes on")
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        cases = {record["case"]: record for record in _rows(folder / "cases.jsonl")}
        lesions: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
        for row in _rows(folder / "manifest.jsonl"):
            lesions.setdefault(row["case"], []).append(row)
        own = summary["files"]
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
    there = {path: folder / path for path in expected if (folder / path).is_file()}
    altered = sorted(path for path, file in there.items() if file_sha256(file) != expected[path])
    extra = [] if only is not None else sorted(set(_files(folder)) - set(expected))
    missing = sorted(set(expected) - set(there))
    return Findings(summary, cases, lesions, len(there), missing, extra, altered)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] not in NOT_LISTED:
            yield relative.as_posix()
