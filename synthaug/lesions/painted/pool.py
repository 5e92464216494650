"""A pool of paintings: a window on a painter's sequence, moved on as new ones come from a thread in the background."""

import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Candidates
from synthaug.lesions.painted.painter import LesionPainter, Painting
from synthaug.lesions.painted.threads import PaintingThreads, Timed, painted_by

KEPT = 64
"""Paintings that are kept after they left the pool, for plans that still name them and for replays."""

FEW = 8
"""So many missing paintings are made one after the other by the thread in the background, more by many threads."""


class Pool:
    """Holds paintings `first` to ``first + count - 1`` of a painter's sequence.

    Args:
        painter: paints the sequence.
        count: number of paintings in the window.
        start: a painted bank whose lesions stand for the first of the sequence, or None.
        progress: show a progress bar where many are painted at once.

    Attributes:
        first: number of the window's first painting.
        seconds: time of one CPU core or of the accelerator that paintings in the background took.
        waited: seconds that the training waited for them.
        typical: seconds that the last one took, wherever it was made; None before there was one.
    """

    def __init__(self, painter: LesionPainter, count: int, start: LesionBank | None, progress: bool):
        self.painter, self.count, self.progress = painter, count, progress
        self.given = {} if start is None else dict(enumerate(painter.read(start)[:count]))
        self.first, self.seconds, self.waited = 0, 0.0, 0.0
        self.typical: float | None = None
        self._window: dict[int, Painting] = {}
        self._late: OrderedDict[str, Painting] = OrderedDict()
        self._candidates: Candidates | None = None
        self._by_name: dict[str, Painting] | None = None
        self._threads: PaintingThreads | None = None
        self._asked: dict[int, Future[Timed]] = {}
        self._end: Callable[[], Any] | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the thread, which no other process can have."""
        return self.__dict__ | {"_threads": None, "_asked": {}, "_end": None}

    def move(self, first: int) -> None:
        """Move the window's beginning to `first`; paintings that are not there are painted, and waited for."""
        if first == self.first and len(self._window) == self.count:
            return
        wanted = range(first, first + self.count)
        missing = [n for n in wanted if n not in self._window]
        here = {n: self.given[n] for n in missing if n in self.given}
        fresh = [n for n in missing if n not in here and n not in self._asked]
        if len(fresh) > FEW:
            timed = painted_by(self.painter, fresh, self.progress)
            self.typical = sum(one.seconds for one in timed) / len(timed)
            here |= zip(fresh, (one.painting for one in timed), strict=True)
        for number in missing:
            self._window[number] = here[number] if number in here else self._taken(number)
        for number in [n for n in self._window if n not in wanted]:
            self._keep(self._window.pop(number))
        for number in [n for n in self._asked if n < first]:
            self._asked.pop(number).cancel()
        self.first, self._candidates, self._by_name = first, None, None

    def ask(self, number: int) -> None:
        """Have a painting made in the background, unless it was asked for."""
        if number not in self._asked and number not in self._window and number not in self.given:
            self._asked[number] = self._thread().submit(number)

    def ready(self, number: int) -> Timed | None:
        """Return a painting that was asked for, if it is there.

        Raises:
            Exception: what the painting failed with.
        """
        future = self._asked.get(number)
        return future.result() if future is not None and future.done() else None

    def candidates(self) -> Candidates:
        """List the window's lesions; each keeps its place until the one that follows it by `count` takes it."""
        if self._candidates is None:
            self._candidates = Candidates([painting.lesion for painting in self.paintings()])
        return self._candidates

    def paintings(self) -> list[Painting]:
        """List the window's paintings, in the order of `candidates`."""
        return [self._window[n] for n in sorted(self._window, key=lambda n: n % self.count)]

    def find(self, name: str) -> Painting:
        """Find the painting of that name, painted again where it is here no more.

        Raises:
            ValueError: what `LesionPainter.repaint` says.
        """
        if self._by_name is None:
            self._by_name = {p.row["name"]: p for p in (*self.given.values(), *self._window.values())}
        if name not in self._by_name and name not in self._late:
            self._keep(self._waited_for(self._thread().submit(name)).painting)
        return self._by_name.get(name) or self._late[name]

    def close(self) -> None:
        """Stop the thread; a painting that is needed starts another."""
        if self._end is not None:
            self._end()
        self._threads, self._asked, self._end, self._process = None, {}, None, 0

    def _taken(self, number: int) -> Painting:
        self.ask(number)
        timed = self._waited_for(self._asked[number])
        del self._asked[number]
        return timed.painting

    def _waited_for(self, future: "Future[Timed]") -> Timed:
        began = time.perf_counter()
        timed = future.result()
        self.waited += time.perf_counter() - began
        self.seconds += timed.seconds
        self.typical = timed.seconds
        return timed

    def _keep(self, painting: Painting) -> None:
        self._late[painting.row["name"]] = painting
        while len(self._late) > KEPT:
            self._late.popitem(last=False)

    def _thread(self) -> PaintingThreads:
        if self._threads is None or self._process != os.getpid():  # a forked process has not its parent's threads
            self._threads, self._process = PaintingThreads(self.painter), os.getpid()
            self._end = weakref.finalize(self, self._threads.close)
        return self._threads
