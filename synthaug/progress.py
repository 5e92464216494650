"""Progress bars for what takes longer than ten seconds: on a terminal alone, and gone when it is done."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown(items: Iterable[T], what: str, unit: str, total: int | None = None, first: int = 0) -> Iterator[T]:
    """Go through items under a bar on stderr; none where that is no terminal.

    Args:
        items: what is gone through.
        what: is done, as the bar says.
        unit: name of an item.
        total: their number, where `items` does not know it.
        first: those of them that were done before, and are not among `items`.
    """
    return iter(tqdm(items, what, total, unit=unit, initial=first, leave=False, disable=None))


def numbered_steps(batches: Iterable[T], first: int, steps: int, told: bool) -> Iterator[tuple[int, T]]:
    """Number the batches of a training, from the step after `first` on, under a bar.

    Args:
        batches: one for each step that is left.
        first: steps that were done before.
        steps: of the whole training.
        told: whether there is a bar at all; one of several processes has it.
    """
    return enumerate(shown(batches, "training", "step", steps, first) if told else batches, start=first + 1)
