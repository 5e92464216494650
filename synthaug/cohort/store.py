"""Where a cohort is kept: files that are there whole or not at all, whatever the place guarantees by itself."""

import os
import shutil
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from synthaug.data.tars import local_extents, split_member
from synthaug.remote import as_place

HIDDEN = ".synthaug"
UNFINISHED = f"{HIDDEN}/unfinished"

PIECE_BYTES = 8 * 2**20
"""What is read at a time of a file that may be large."""

Content = bytes | Iterable[bytes]
"""Of a file, in one piece or in many."""


class Store(ABC):
    """A folder of files by path, with slashes, such as ``"imagesTr/synth_000001_0000.nii.gz"``.

    Every method raises OSError where the place cannot be reached, and FileNotFoundError for a file that is not there.

    Attributes:
        address: the place in words for people, without credentials.
        is_near: whether it costs next to nothing to ask for the sizes of many files.
    """

    address: str
    is_near = False

    @abstractmethod
    def write(self, name: str, files: Mapping[str, Content]) -> None:
        """Write files in their order; each is there whole or not at all.

        Args:
            name: what is written, such as ``"case3"``.
            files: content by path; one in pieces is never in memory as a whole.
        """

    def read(self, path: str) -> bytes:
        """Read a file, or a member of an archive: ``"shards/synth-000000.tar/synth_000003.seg.nii.gz"``."""
        parts = split_member(path)
        if parts is None:
            return self._read(path)
        archive, member = parts
        extents = self._extents([archive])[archive]
        if member not in extents:
            raise FileNotFoundError(f"{self.address}: no {path}")
        return self._read_range(archive, *extents[member])

    def pieces(self, path: str, size: int) -> Iterator[bytes]:
        """Read a file of this size, or a member of an archive, piece by piece where it is large."""
        if size <= PIECE_BYTES or split_member(path) is not None:
            yield self.read(path)
            return
        for start in range(0, size, PIECE_BYTES):
            yield self._read_range(path, start, min(PIECE_BYTES, size - start))

    def lines(self, path: str) -> Iterator[bytes]:
        """Read the lines of a file, which is never in memory as a whole."""
        (size,), rest = self.sizes([path]), b""
        if size is None:
            raise FileNotFoundError(f"{self.address}: no {path}")
        for piece in self.pieces(path, size):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """Sizes of files, and of members of archives, in bytes; None for those that are not there."""
        members = {path: parts for path in paths if (parts := split_member(path)) is not None}
        files = [path for path in paths if path not in members]
        found = dict(zip(files, self._sizes(files), strict=True))
        extents = self._extents(list(dict.fromkeys(archive for archive, _ in members.values())))
        found |= {path: extents[archive].get(member, (0, None))[1] for path, (archive, member) in members.items()}
        return [found[path] for path in paths]

    def _extents(self, archives: Sequence[str]) -> dict[str, Mapping[str, tuple[int, int]]]:
        """Find where the members of archives lie; of one that is not there, none."""
        sizes = dict(zip(archives, self._sizes(archives), strict=True))
        return {archive: {} if size is None else self._extents_of(archive, size) for archive, size in sizes.items()}

    @abstractmethod
    def _read(self, path: str) -> bytes:
        """Read a file."""

    @abstractmethod
    def _read_range(self, path: str, start: int, size: int) -> bytes:
        """Read a part of a file."""

    @abstractmethod
    def _sizes(self, paths: Sequence[str]) -> list[int | None]:
        """Sizes of files in bytes; None for those that are not there."""

    @abstractmethod
    def _extents_of(self, archive: str, size: int) -> Mapping[str, tuple[int, int]]:
        """Find where the members of an archive of this size lie; remembered, for they are asked for one by one."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Names of files and folders in a folder, sorted; none where it is not there. Hidden ones are listed too."""

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, where they are there."""

    @abstractmethod
    def walk(self) -> Iterable[str]:
        """List the paths of all files, but those in the hidden folder."""

    def clear(self) -> None:  # noqa: B027 (where nothing is left unfinished there is nothing to delete)
        """Delete what killed processes left unfinished; nobody else may write at this moment."""

    def is_there(self, path: str) -> bool:
        """Whether a file is there."""
        return self.sizes([path])[0] is not None


class LocalStore(Store):
    """A folder on a disk, which may be shared by machines: files are written beside, synced and renamed.

    Args:
        folder: made at the first writing.
    """

    is_near = True

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.address = Path(folder), str(folder)

    def write(self, name: str, files: Mapping[str, Content]) -> None:
        """Write files; all of them beside first, so that a full disk leaves none of a case."""
        beside = self._beside(name)
        try:
            for number, content in enumerate(files.values()):
                _write_synced(beside / str(number), [content] if isinstance(content, bytes) else content)
            for number, path in enumerate(files):
                self._rename(beside / str(number), path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def _read_range(self, path: str, start: int, size: int) -> bytes:
        with (self.folder / path).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def _sizes(self, paths: Sequence[str]) -> list[int | None]:
        return [_size(f"{self.folder}/{path}") for path in paths]

    def _extents_of(self, archive: str, size: int) -> Mapping[str, tuple[int, int]]:
        return local_extents(f"{self.folder}/{archive}")

    def names(self, folder: str = "") -> list[str]:
        """Names of files and folders in a folder, sorted."""
        try:
            return sorted(os.listdir(self.folder / folder))  # noqa: PTH208 (ten times faster)
        except FileNotFoundError:
            return []

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, where they are there."""
        for path in paths:
            (self.folder / path).unlink(missing_ok=True)

    def walk(self) -> Iterable[str]:
        """List the paths of all files, but those in the hidden folder."""
        waiting = [""]
        while waiting:
            above = waiting.pop()
            with os.scandir(self.folder / above) as entries:  # one by one, however many there are
                for entry in entries:
                    path = f"{above}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting += [] if path == HIDDEN else [f"{path}/"]
                    elif entry.is_file():
                        yield path

    def clear(self) -> None:
        """Delete what killed processes left unfinished."""
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
        (self.folder / UNFINISHED).mkdir(parents=True, exist_ok=True)

    def _beside(self, name: str) -> Path:
        # process ids alone are not unique among machines
        beside = self.folder / UNFINISHED / f"{name}-{os.getpid()}-{threading.get_native_id()}-{uuid.uuid4().hex[:8]}"
        beside.mkdir(parents=True)
        return beside

    def _rename(self, source: Path, path: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _write_synced(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a Path for every file of a cohort takes longer than the question)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_store(out: str | os.PathLike) -> Store:
    """Open the place that a path or a URL names; nothing is made or asked yet.

    Raises:
        ModuleNotFoundError: the package that a URL's protocol needs is not installed.
    """
    place = as_place(os.fspath(out))
    if isinstance(place, Path):
        return LocalStore(place)
    from synthaug.cohort.url_store import URLStore

    return URLStore(place)
