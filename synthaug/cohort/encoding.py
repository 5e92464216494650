"""Values as the bytes of text files: JSON, JSON lines, tables; the same bytes for the same values, on every system."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


def text_bytes(text: str) -> bytes:
    """A text file's content, with a newline at its end."""
    return (text.rstrip("\n") + "\n").encode("utf-8")


def json_bytes(value: Any) -> bytes:
    """An indented JSON file; NaN and infinity, which JSON has not, raise a ValueError."""
    return text_bytes(json.dumps(value, indent=2, allow_nan=False))


def json_line_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A file of one JSON object in each line."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode("utf-8")


def table_bytes(head: Sequence[str], rows: Sequence[Sequence[Any]], separator: str = ",") -> bytes:
    """A CSV file, or one of another separator."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")
