"""The state of a cohort: what it was started with.

.synthaug/job.json              what the cohort was started with
.synthaug/records/000123.json   case 123 is done; written after its files (see `Records`)
.synthaug/parts/000004.jsonl    so are all cases of part 4, whose records are here
.synthaug/locks/                launches that work on it now (see `Locks`)
.synthaug/unfinished/           files on their way; what a kill leaves here is deleted by the next run
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthaug.cohort.encoding import text_bytes
from synthaug.cohort.store import HIDDEN, Store
from synthaug.config import ConfigError

SUMMARY, REPORT = "cohort.json", "report.html"
IDENTITY = f"{HIDDEN}/job.json"
OWN_FILES = ("manifest.jsonl", "cases.jsonl", SUMMARY, "labels.csv", "splits_final.json", REPORT)
"""Files about the whole cohort that are in every layout."""


class Job:
    """Begins a cohort, and knows it again.

    Args:
        store: of the cohort; nothing is made until `start`.
    """

    def __init__(self, store: Store):
        self.store = store

    def check(self, identity: Mapping[str, Any]) -> bool:
        """Whether a cohort of this identity was begun here.

        Args:
            identity: everything that decides what the cases look like, JSON-able.

        Raises:
            ConfigError: there is a cohort of another identity, or something else; or it cannot be read.
        """
        try:
            if self.store.is_there(IDENTITY):
                self._compare(json.loads(self.store.read(IDENTITY)), identity)
                return True
            if any(name != HIDDEN for name in self.store.names()):
                raise ConfigError(
                    f"{self.store.address} holds something else than a cohort; expected an empty or a new folder"
                )
            return False
        except OSError as error:
            raise ConfigError(f"{self.store.address}: cannot be written to: {error}") from error

    def start(self, identity: Mapping[str, Any], alone: bool = True) -> None:
        """Begin a cohort, or go on with one, after `check`.

        Args:
            identity: as for `check`.
            alone: whether nobody else writes, so that what is unfinished can be deleted.

        Raises:
            ConfigError: it cannot be written.
        """
        begun = self.check(identity)
        try:
            if alone:
                self.store.clear()
            if not begun:
                self.store.write("job", {IDENTITY: text_bytes(json.dumps(identity, indent=1))})
        except OSError as error:
            raise ConfigError(f"{self.store.address}: cannot be written to: {error}") from error

    def _compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        a, b = dict(_leaves(old)), dict(_leaves(json.loads(json.dumps(new))))
        changed = [f"{k} was {a.get(k)!r} and is {b.get(k)!r}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise ConfigError(
                f"{self.store.address} holds a cohort of another configuration ({'; '.join(changed[:5])}{more}): "
                "give another --out"
            )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of nested dictionaries with dotted keys; lists are values."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, list(tree) if isinstance(tree, Sequence) and not isinstance(tree, str) else tree
