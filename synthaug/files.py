"""Writing of files and folders whole or not at all, and their checksums."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def replace_files(contents: Mapping[Path, bytes | str]) -> list[Path]:
    """Write files beside their places and rename them when all are whole: a failure or a kill leaves what was there.

    Args:
        contents: content by path; folders are made where they are missing, text is written as UTF-8.

    Returns:
        The paths.

    Raises:
        OSError: a path that is a folder or cannot be written; it is named.
    """
    for path in contents:
        if path.is_dir():
            raise IsADirectoryError(f"{path}: expected a file to write, it is a folder")
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            beside[path].write_bytes(content.encode() if isinstance(content, str) else content)
        return [unfinished.replace(path) for path, unfinished in beside.items()]
    except OSError as error:
        raise OSError(f"{', '.join(map(str, contents))}: cannot be written: {error.strerror or error}") from error
    finally:
        for unfinished in beside.values():
            with suppress(OSError):  # whose folder is none has no file, and what was wrong has been said
                unfinished.unlink(missing_ok=True)


def replace_file(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write one file as `replace_files` does; returns its path."""
    return replace_files({Path(path): content})[0]


@contextmanager
def new_folder(place: str | os.PathLike) -> Iterator[Path]:
    """Make a folder to fill, renamed to `place` at the end of the block: a failure or a kill leaves no half of it.

    Where another process was faster, its folder stays and this one goes.

    Raises:
        OSError: the folder cannot be renamed to `place`, and there is none.
    """
    place = Path(place)
    unfinished = place.with_name(f".unfinished_{place.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        try:
            unfinished.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def file_sha256(path: str | os.PathLike) -> str:
    """Compute the sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
