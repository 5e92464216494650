"""Files in tar archives, by paths that go on within them: ``shards/synth-000000.tar/synth_000003.t1.nii.gz``."""

import os
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import IO

Extents = dict[str, tuple[int, int]]
"""Name of a member to where its content begins and how many bytes it has."""


def split_member(path: str) -> tuple[str, str] | None:
    """Split a path into the archive and the member in it; None where it names no member."""
    archive, found, member = path.partition(".tar/")
    return (f"{archive}.tar", member) if found else None


def extents_of(file: IO[bytes]) -> Extents:
    """Find where the members of an archive lie.

    Raises:
        OSError: it is no tar archive, or a damaged one.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            return {member.name: (member.offset_data, member.size) for member in archive}
    except tarfile.TarError as error:
        raise OSError(f"no tar archive, or a damaged one: {error}") from error


@lru_cache(maxsize=256)
def _known_extents(path: str, size: int, changed_ns: int) -> Extents:
    with open(path, "rb") as file:  # noqa: PTH123 (a text that is a key of the cache)
        return extents_of(file)


def local_extents(archive: str | os.PathLike) -> Extents:
    """Find where the members of an archive on a disk lie; it is looked through once, until it changes.

    Raises:
        OSError: it is not there, or no tar archive.
    """
    about = os.stat(archive)  # noqa: PTH116 (an archive may be a text)
    return _known_extents(os.fspath(archive), about.st_size, about.st_mtime_ns)


def read_file(path: Path) -> bytes:
    """Read a file, or a member of an archive.

    Raises:
        OSError: it is not there or cannot be read.
    """
    parts = split_member(path.as_posix())
    if parts is None:
        return path.read_bytes()
    archive, member = parts
    try:
        start, size = local_extents(archive)[member]
    except KeyError:
        raise FileNotFoundError(f"{archive} has no member {member}") from None
    with Path(archive).open("rb") as file:
        file.seek(start)
        return file.read(size)


def size_and_time(path: Path) -> tuple[int, int] | None:
    """Size and time in ns of a file's last change, of the archive where it is a member of one; None without a file."""
    parts = split_member(path.as_posix())
    place = path if parts is None else Path(parts[0])
    return (place.stat().st_size, place.stat().st_mtime_ns) if place.exists() else None
