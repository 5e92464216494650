"""Reading, working and writing at the same time, in order, with a bounded number of cases in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

T = TypeVar("T")

CASE_ERRORS = (ValueError, OSError, MemoryError, torch.OutOfMemoryError)
"""What a case can fail with while the others go on."""


@dataclass(frozen=True)
class Failure:
    """A case's error, in words."""

    message: str


def overlapped(
    items: Iterable[T],
    read: Callable[[T], Any],
    work: Callable[[T, Any], Any],
    write: Callable[[T, Any], Any],
    writers: int,
) -> Iterator[tuple[T, Any]]:
    """Read the next item while one is worked on and earlier ones are written; `work` runs in the calling thread.

    Args:
        items: numbers or names to work on, in order.
        read: reads an item's input; in one thread.
        work: makes the item's result of its input.
        write: writes the result; in `writers` threads.
        writers: number of threads that write; at most as many items wait for them.

    Yields:
        Each item with what `write` gave, or with a `Failure` where a step raised one of `CASE_ERRORS`, in order.
    """
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(writers) as writing:
        coming = _ahead(items, lambda item: reading.submit(_attempt, read, item))
        going: deque[tuple[T, Future]] = deque()
        for item, future in coming:
            found = future.result()
            if not isinstance(found, Failure):
                found = _attempt(work, item, found)
            going.append((item, writing.submit(_finish, write, item, found)))
            del found
            while len(going) > writers or (going and going[0][1].done()):
                yield _result(going)
        while going:
            yield _result(going)


def _ahead(items: Iterable[T], begin: Callable[[T], Future]) -> Iterator[tuple[T, Future]]:
    """Begin items one ahead: yield each with its future when the next one is begun."""
    begun: deque[tuple[T, Future]] = deque()
    for item in items:
        begun.append((item, begin(item)))
        if len(begun) > 1:
            yield begun.popleft()
    yield from begun


def _attempt(step: Callable, *given: Any) -> Any:
    try:
        return step(*given)
    except CASE_ERRORS as error:
        return Failure(f"{error}" or type(error).__name__)


def _finish(write: Callable[[T, Any], Any], item: T, found: Any) -> Any:
    return found if isinstance(found, Failure) else _attempt(write, item, found)


def _result(going: deque[tuple[T, Future]]) -> tuple[T, Any]:
    item, future = going.popleft()
    return item, future.result()
