"""Threads that paint beside the training thread.

Each has a generator of its own and one intra-op thread, so that paintings do not depend on how many cores there are,
that the CPU time of the thread is all that a painting costs, and that the training keeps its threads: several teams of
OpenMP threads on the same cores wait for each other. ``torch.set_num_threads(1)`` in a thread sets that thread's
number, and beside it a global one, which threads that start later read, autograd's for accelerators among them; so the
global number is put back once the threads have started. Those that run already are not touched by either call.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from tqdm import tqdm

from synthaug.lesions.painted.painter import LesionPainter, Painting


@dataclass(frozen=True)
class Timed:
    """A painting and what it cost: seconds of one CPU core, or of the accelerator."""

    painting: Painting
    seconds: float


class PaintingThreads:
    """Paints in the background, in the order in which it is asked.

    Args:
        painter: copied for each thread.
        count: number of threads; on accelerators one is enough, which has a stream of its own.
    """

    def __init__(self, painter: LesionPainter, count: int = 1):
        own = threading.local()
        self._own, self._pool = own, ThreadPoolExecutor(count, "painting", _begin, (own, painter))
        before, all_here = torch.get_num_threads(), threading.Barrier(count)
        list(self._pool.map(lambda _: all_here.wait(), range(count)))
        torch.set_num_threads(before)

    def submit(self, what: int | str) -> "Future[Timed]":
        """Paint a number of the sequence, or a name again."""
        return self._pool.submit(_paint, self._own, what)

    def close(self) -> None:
        """Stop the threads after what they are painting now; the rest is cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def painted_by(painter: LesionPainter, what: Sequence[int | str], progress: bool = False) -> list[Timed]:
    """Paint these numbers and names by as many threads as torch would use."""
    if not what:
        return []
    threads = PaintingThreads(painter, min(len(what), torch.get_num_threads() if painter.device.type == "cpu" else 1))
    try:
        return list(tqdm(_in_order(threads, what), "painting lesions", len(what), disable=not progress))
    finally:
        threads.close()


def _in_order(threads: PaintingThreads, what: Sequence[int | str]) -> Iterator[Timed]:
    for future in [threads.submit(one) for one in what]:
        yield future.result()


def _begin(own: threading.local, painter: LesionPainter) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # a property of the thread, which changes bits: the same in all of them
    own.painter = painter.copied()
    own.stream = torch.cuda.Stream(painter.device) if painter.device.type == "cuda" else None


def _paint(own: threading.local, what: int | str) -> Timed:
    painter, paint = own.painter, own.painter.repaint if isinstance(what, str) else own.painter.paint
    if own.stream is None:
        began = time.thread_time()
        painting = paint(what)
        return Timed(painting, time.thread_time() - began)
    with torch.cuda.device(painter.device), torch.cuda.stream(own.stream):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        painting = paint(what)
        last.record()
        own.stream.synchronize()  # waits in this thread alone; whoever takes the painting finds it ready
    return Timed(painting, first.elapsed_time(last) / 1000)
