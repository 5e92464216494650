"""A cohort in an object store or on another machine, by URL.

Object stores show an object when it was sent whole, and never a half of it: there a file is one request, or several of
which the last one makes it visible. Elsewhere (SFTP, HDFS, WebDAV, ...) it is sent beside and renamed. No store gives
more than that for several files: as everywhere, the record of a case comes after its files.
"""

import contextlib
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from synthaug.cohort.store import HIDDEN, UNFINISHED, Content, Store
from synthaug.data.tars import Extents, extents_of
from synthaug.remote import AT_A_TIME, open_filesystem, patiently, scrubbed

WHOLE = {"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos", "obs"}
"""Protocols of stores that show an object whole or not at all."""


class URLStore(Store):
    """The files below a URL; every request is tried several times before it counts as failed.

    Args:
        url: of the folder, such as ``"s3://bucket/cohort"``.

    Raises:
        ModuleNotFoundError: the package that its protocol needs is not installed.
    """

    def __init__(self, url: str):
        self.address = scrubbed(url).rstrip("/")
        self.system, root = open_filesystem(url)
        self.root = root.rstrip("/")
        self._known: dict[tuple[str, int], Extents] = {}
        protocol = self.system.protocol
        self.is_whole = not WHOLE.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)

    def write(self, name: str, files: Mapping[str, Content]) -> None:
        """Write files one after the other."""
        for path, content in files.items():
            if isinstance(content, bytes):
                self._send(path, lambda place, content=content: self.system.pipe_file(place, content))
            else:
                self._send_pieces(path, content)

    def _read(self, path: str) -> bytes:
        return self._do(self.system.cat_file, self._full(path))

    def _read_range(self, path: str, start: int, size: int) -> bytes:
        return self._do(lambda place: self.system.cat_file(place, start, start + size), self._full(path))

    def _sizes(self, paths: Sequence[str]) -> list[int | None]:
        return self._all(self._size, paths)  # at the same time

    def _extents_of(self, archive: str, size: int) -> Mapping[str, tuple[int, int]]:
        if (archive, size) not in self._known:
            self._known.clear()  # archives are looked at one after the other
            self._known[archive, size] = self._do(self._looked_through, self._full(archive))
        return self._known[archive, size]

    def _looked_through(self, place: str) -> Extents:
        with self.system.open(place, "rb") as file:
            return extents_of(file)

    def names(self, folder: str = "") -> list[str]:
        """Names of files and folders in a folder, sorted."""
        try:
            found = self._do(lambda place: self.system.ls(place, detail=False), self._full(folder).rstrip("/"))
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/") for path in found)
        return sorted({path.rsplit("/", 1)[-1] for path in names if path != self._full(folder).rstrip("/")})

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, where they are there."""
        self._all(self._remove, list(paths))

    def walk(self) -> Iterable[str]:
        """List the paths of all files, but those in the hidden folder."""
        for path in self._do(self.system.find, self.root):
            relative = path[len(self.root) :].lstrip("/")
            if not relative.startswith(f"{HIDDEN}/"):
                yield relative

    def clear(self) -> None:
        """Delete what killed processes left unfinished, where there can be something."""
        if not self.is_whole:
            self.remove([f"{UNFINISHED}/{name}" for name in self.names(UNFINISHED)])

    def _send_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        # from a file here, so that it can be sent again, and nothing is sent when a piece cannot be made
        with tempfile.NamedTemporaryFile() as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            self._send(path, lambda place: self.system.put_file(file.name, place))

    def _send(self, path: str, send: Any) -> None:
        if self.is_whole:
            self._do(send, self._full(path))
            return
        beside, target = self._full(f"{UNFINISHED}/{uuid.uuid4().hex}"), self._full(path)
        for place in (beside, target):
            self._do(lambda folder: self.system.makedirs(folder, exist_ok=True), place.rsplit("/", 1)[0])
        self._do(send, beside)
        self._do(lambda place: self.system.mv(place, target), beside)

    def _size(self, path: str) -> int | None:
        try:
            return self._do(self.system.info, self._full(path))["size"]
        except FileNotFoundError:
            return None

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._do(self.system.rm_file, self._full(path))

    def _all(self, work: Any, paths: Sequence[str]) -> list[Any]:
        if len(paths) < 2:
            return [work(path) for path in paths]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            return list(pool.map(work, paths))

    def _do(self, work: Any, place: str) -> Any:
        return patiently(work, place, where=f"{self.address}/{place[len(self.root) :].lstrip('/')}")

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"
