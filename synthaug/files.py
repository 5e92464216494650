"""Files that are there whole or not at all."""

import hashlib
import os
from pathlib import Path


def replace_file(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write a file beside its place and rename it: a failure or a kill leaves what was there.

    Args:
        path: of the file; its folder is made where it is missing.
        content: text is written as UTF-8.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        return beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
