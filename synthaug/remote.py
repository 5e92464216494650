"""Places by URL, through fsspec: data sets and files are fetched into a cache, and failing requests are tried again.

Credentials are the store's own business: whatever its fsspec implementation reads (environment, files, the machine's
role). Nothing of a URL that may be secret, and no message of a store, is passed on unscrubbed.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator

from synthaug.files import replace_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

T = TypeVar("T")
TRIES, FIRST_PAUSE_S = 7, 0.1
"""How often a request is tried, and the pause after the first failure; each further one is twice as long."""

AT_A_TIME = 16
FETCHED = (".nii", ".nii.gz", ".json", ".jsonl", ".tsv", ".tar", ".safetensors", ".yaml")
ZARR = ".zarr/"
"""In the path of each object of Zarr, most of which have no ending."""

INDEX = ".fetched.json"
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)
"""Errors that trying again does not change."""


def is_url(place: Any) -> bool:
    """Whether a place is a URL that is not of a local file."""
    return isinstance(place, str) and re.match(r"[a-z][a-z0-9+.-]*(://|::)", place) is not None and not _local(place)


def _local(url: str) -> bool:
    return url.startswith(("file://", "local://"))


def as_place(place: Any) -> Any:
    """A URL as it is, anything else as a path."""
    if isinstance(place, str) and not is_url(place):
        return Path(place.split("://", 1)[1] if _local(place) else place)
    return place


Place = Annotated[Path | str, BeforeValidator(as_place)]
"""A path, or a URL."""


def scrubbed(text: str) -> str:
    """Take user names, passwords and queries out of the URLs in a text."""
    text = re.sub(r"://[^/@\s]+@", "://", text)
    return re.sub(r"(://[^\s?]+)\?[^\s'\"]+", r"\1", text)


def open_filesystem(url: str) -> tuple["AbstractFileSystem", str]:
    """Open the file system of a URL, and find the path in it.

    Raises:
        ModuleNotFoundError: the package that it needs is not installed; it is named.
        ValueError: no such protocol.
    """
    from fsspec.core import url_to_fs

    try:
        # what other processes write must be seen
        return url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ModuleNotFoundError(f"{scrubbed(url)}: {error}") from error


def patiently(work: Callable[..., T], *given: Any, where: str) -> T:
    """Do something with a store, again and again with longer and longer pauses where it fails.

    Args:
        work: is called with `given`.
        *given: arguments.
        where: the place, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it failed `TRIES` times, or for a reason that does not pass.
    """
    for attempt in range(TRIES):
        try:
            return work(*given)
        except FileNotFoundError:
            raise
        except Exception as error:  # stores raise what their libraries raise
            if attempt + 1 == TRIES or isinstance(error, _FINAL):
                raise OSError(f"{where}: {type(error).__name__}: {scrubbed(str(error))}") from None
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise AssertionError  # the last try returns or raises


def local_folder(place: Path | str) -> Path:
    """A folder as it is, or that of a URL fetched into the cache, but for what is there and has not changed.

    Only files of data sets are fetched (`FETCHED`, `ZARR`). The cache is the folder that SYNTHAUG_CACHE names, by
    default ``~/.cache/synthaug``.

    Raises:
        OSError: it cannot be reached or written; FileNotFoundError: there is nothing.
    """
    if not is_url(place):
        return Path(place)
    url, where = str(place).rstrip("/"), scrubbed(str(place))
    system, root = open_filesystem(url)
    found = patiently(lambda: system.find(root, detail=True), where=where)
    wanted = {p[len(root) :].lstrip("/"): about for p, about in found.items() if p.endswith(FETCHED) or ZARR in p}
    wanted = {path: about for path, about in wanted.items() if not path.startswith(".")}
    if not wanted:
        raise FileNotFoundError(f"{where}: expected a folder of cases, found no file of one")
    folder = _cache() / f"{hashlib.sha256(where.encode()).hexdigest()[:12]}-{root.rsplit('/', 1)[-1]}"
    known = _known(folder)
    marks = {path: _mark(about) for path, about in wanted.items()}
    missing = [path for path, mark in marks.items() if known.get(path) != mark or not (folder / path).is_file()]
    for path in set(known) - set(marks):
        (folder / path).unlink(missing_ok=True)
    if missing:
        logger.info("fetching %d of %d files of %s into %s", len(missing), len(wanted), where, folder)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda path: _fetch(system, f"{root}/{path}", folder / path, where), missing))
    replace_file(folder / INDEX, json.dumps(marks))
    return folder


def local_file(place: Path | str) -> Path:
    """A file as it is, or that of a URL fetched into the cache.

    Raises:
        OSError: it cannot be reached or written; FileNotFoundError: there is none.
    """
    if not is_url(place):
        return Path(place)
    url, where = str(place), scrubbed(str(place))
    system, path = open_filesystem(url)
    mark = _mark(patiently(system.info, path, where=where))
    name = hashlib.sha256(f"{where} {mark}".encode()).hexdigest()[:12]
    target = _cache() / name / path.rsplit("/", 1)[-1]
    if not target.is_file():
        _fetch(system, path, target, where)
    return target


def _fetch(system: "AbstractFileSystem", path: str, target: Path, where: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        patiently(system.get_file, path, str(beside), where=where)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _mark(about: Mapping[str, Any]) -> list[str]:
    """What changes when a file is written anew: its size, and the checksum or time that its store tells."""
    tells = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "created")
    return [str(about["size"]), str(next((about[key] for key in tells if key in about), ""))]


def _known(folder: Path) -> dict[str, list[str]]:
    file = folder / INDEX
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _cache() -> Path:
    return Path(os.environ.get("SYNTHAUG_CACHE") or Path.home() / ".cache" / "synthaug") / "places"
