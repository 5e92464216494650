"""Encoding of values as JSON, JSON lines and tables; the same bytes for the same values, on every system."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PIECE = 1 << 20
"""Bytes, about, of a piece of a file that is written piece by piece."""


def text_bytes(text: str) -> bytes:
    """Encode a text file, with a newline at its end."""
    return (text.rstrip("\n") + "\n").encode("utf-8")


def json_bytes(value: Any) -> bytes:
    """Encode an indented JSON file; NaN and infinity, which JSON has not, raise a ValueError."""
    return text_bytes(json.dumps(value, indent=2, allow_nan=False))


def json_line_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Encode a file of one JSON object in each line."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode("utf-8")


def table_bytes(head: Sequence[str], rows: Sequence[Sequence[Any]], separator: str = ",") -> bytes:
    """Encode a CSV file, or one of another separator."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def in_pieces(texts: Iterable[str]) -> Iterator[bytes]:
    """Join texts to pieces of about `PIECE` bytes."""
    waiting: list[str] = []
    length = 0
    for text in texts:
        waiting.append(text)
        length += len(text)
        if length >= PIECE:
            yield "".join(waiting).encode("utf-8")
            waiting, length = [], 0
    yield "".join(waiting).encode("utf-8")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Encode rows as `json_line_bytes` does, piece by piece."""
    return in_pieces(json.dumps(row, allow_nan=False) + "\n" for row in rows)


@dataclass(frozen=True)
class Items:
    """A list in a JSON file that is too long to be held.

    Attributes:
        of: gives its values anew whenever it is called.
    """

    of: Callable[[], Iterable[Any]]


def json_pieces(value: Any) -> Iterator[bytes]:
    """Encode a value as `json_bytes` does, piece by piece; lists in it may be `Items`."""
    lists: list[Items] = []

    def mark(items: Items) -> list[str]:
        lists.append(items)
        return [f"\x00{len(lists) - 1}"]

    text = json.dumps(value, indent=2, allow_nan=False, default=mark) + "\n"
    parts = re.split(r'\[\n( *)"\\u0000(\d+)"\n *\]', text)

    def texts() -> Iterator[str]:
        yield parts[0]
        for space, number, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            empty = True
            for item in lists[int(number)].of():
                yield ("[\n" if empty else ",\n") + space + json.dumps(item, indent=2).replace("\n", f"\n{space}")
                empty = False
            yield "[]" if empty else f"\n{space[2:]}]"
            yield after

    return in_pieces(texts())


def table_pieces(head: Sequence[str], rows: Iterable[Sequence[Any]], separator: str = ",") -> Iterator[bytes]:
    """Encode a table as `table_bytes` does, piece by piece."""
    yield table_bytes(head, [], separator)
    for row in rows:
        yield table_bytes(row, [], separator)


class Hashed:
    """The pieces of a file, and their checksum when they have been taken.

    Args:
        content: of the file.
    """

    def __init__(self, content: bytes | Iterable[bytes]):
        self._pieces = [content] if isinstance(content, bytes) else content
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._hash.update(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """Checksum of the pieces that were taken, in hexadecimal."""
        return self._hash.hexdigest()
