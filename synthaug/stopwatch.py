"""Timing of work on a device without waiting for it."""

import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


class Stopwatch:
    """Sums the seconds spent within its ``with`` blocks; on CUDA by events, which may be read later."""

    def __init__(self, device: torch.device):
        self.cuda, self.seconds = device.type == "cuda", 0.0
        self.events: deque[list[torch.cuda.Event]] = deque()

    def __enter__(self) -> None:
        self.begin = time.perf_counter()
        if self.cuda:
            self.events.append([torch.cuda.Event(enable_timing=True) for _ in range(2)])
            self.events[-1][0].record()

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            self.events[-1][1].record()
        else:
            self.seconds += time.perf_counter() - self.begin

    def take(self, wait: bool = True) -> float:
        """Take the seconds summed since the last take; without `wait`, of work that is known to have ended."""
        while self.events and (wait or self.events[0][1].query()):
            begin, end = self.events.popleft()
            end.synchronize()
            self.seconds += begin.elapsed_time(end) / 1000
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def costed(method: Method) -> Method:
    """Decorate a method of an insertion, called with a batch's image: tells a source that `changes` its seconds."""

    @functools.wraps(method)
    def measured(self: Any, image: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.lesions.changes:
            return method(self, image, *args, **kwargs)
        if self._watch is None or self._watch.cuda != (getattr(image, "is_cuda", False)):
            self._watch = Stopwatch(getattr(image, "device", torch.device("cpu")))
        with self._watch:
            result = method(self, image, *args, **kwargs)
        self.lesions.spent(self._watch.take(wait=False))
        return result

    return cast(Method, measured)  # `wraps` gives it the method's signature, which its own does not say
