"""Encoding of values as JSON, JSON lines and tables; the same bytes for the same values, on every system."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


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
