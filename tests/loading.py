"""Epochs of loaders whose workers raise, without seconds of waiting for them afterwards."""

from collections.abc import Iterable
from typing import Any


def drained(loader: Iterable[Any]) -> list[Any]:
    """All batches of a loader; what a worker raises leaves without its frames.

    They hold the loader in a circle, of which the garbage collector ends the queues first, and then waits five seconds
    for each worker that these should have told to end.
    """
    try:
        return list(loader)
    except Exception as error:
        raise error.with_traceback(None) from None
