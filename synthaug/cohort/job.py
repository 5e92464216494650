"""The state of a cohort on disk: its configuration, records of cases that are done, and files written whole.

.synthaug/job.json              what the cohort was started with
.synthaug/records/000123.json   case 123 is done; written after its files
.synthaug/unfinished/           files on their way; what a kill leaves here is deleted by the next run
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthaug.cohort.encoding import text_bytes
from synthaug.config import ConfigError

HIDDEN = ".synthaug"
SUMMARY = "cohort.json"
OWN_FILES = ("manifest.jsonl", "cases.jsonl", SUMMARY, "labels.csv", "splits_final.json", "report.html")
"""Files about the whole cohort that are in every layout."""


class Job:
    """Reads and writes the folder of a cohort.

    Args:
        out: the folder; nothing is made until `start`.
    """

    def __init__(self, out: str | os.PathLike):
        self.out = Path(out)
        self.hidden = self.out / HIDDEN
        self.records, self.unfinished = self.hidden / "records", self.hidden / "unfinished"

    @property
    def exists(self) -> bool:
        """Whether a cohort was begun here."""
        return (self.hidden / "job.json").is_file()

    def start(self, identity: Mapping[str, Any]) -> None:
        """Begin a cohort, or go on with one; called by one process, before any other works here.

        Args:
            identity: everything that decides what the cases look like, JSON-able.

        Raises:
            ConfigError: the folder holds a cohort of another identity, or something else; or it cannot be written.
        """
        file = self.hidden / "job.json"
        try:
            if self.exists:
                self._compare(json.loads(file.read_text(encoding="utf-8")), identity)
            elif self.out.exists() and any(p.name != HIDDEN for p in self.out.iterdir()):
                raise ConfigError(f"{self.out} holds something else than a cohort; expected an empty or a new folder")
            shutil.rmtree(self.unfinished, ignore_errors=True)
            for folder in (self.records, self.unfinished):
                folder.mkdir(parents=True, exist_ok=True)
            if not self.exists:
                self.write("job", {f"{HIDDEN}/job.json": text_bytes(json.dumps(identity, indent=1))})
        except OSError as error:
            raise ConfigError(f"{self.out}: cannot be written to: {error}") from error

    def _compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        a, b = dict(_leaves(old)), dict(_leaves(json.loads(json.dumps(new))))
        changed = [f"{k} was {a.get(k)!r} and is {b.get(k)!r}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise ConfigError(
                f"{self.out} holds a cohort of another configuration ({'; '.join(changed[:5])}{more}): "
                "give another --out"
            )

    def write(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write files into the cohort, in their order; each is there whole or not at all.

        All of them are written beside first, so that a full disk leaves none of a case.

        Args:
            name: what is written, such as ``"case3"``; unique among those that write at this moment.
            files: content by path in the cohort's folder.
        """
        beside = self.unfinished / f"{name}-{os.getpid()}"
        beside.mkdir(parents=True, exist_ok=True)
        try:
            for number, content in enumerate(files.values()):
                with (beside / str(number)).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for number, path in enumerate(files):
                target = self.out / path
                target.parent.mkdir(parents=True, exist_ok=True)
                (beside / str(number)).replace(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write the record of a case, which marks it as done."""
        index = record["index"]
        content = text_bytes(json.dumps(record, allow_nan=False))
        self.write(f"record{index}", {f"{HIDDEN}/records/{index:06d}.json": content})

    def read_records(self, total: int) -> dict[int, dict[str, Any]]:
        """Read the records of cases 0 to `total` - 1 whose files are all there, by index."""
        found = {}
        for path in sorted(self.records.glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["index"] < total and self._is_there(record["files"]):
                found[record["index"]] = record
        return found

    def count_records(self) -> int:
        """Count the cases that are done, quickly, for a progress bar."""
        return sum(name.endswith(".json") for name in os.listdir(self.records))  # noqa: PTH208 (ten times faster)

    def _is_there(self, files: Mapping[str, Mapping[str, Any]]) -> bool:
        paths = ((self.out / path, about["bytes"]) for path, about in files.items())
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of nested dictionaries with dotted keys; lists are values."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, list(tree) if isinstance(tree, Sequence) and not isinstance(tree, str) else tree
