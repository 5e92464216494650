"""Progress bars for what takes longer than ten seconds: on a terminal alone, and gone when it is done."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Go through items under a bar on stderr; none where that is no terminal.

    Args:
        items: what is gone through.
        what: is done, as the bar says.
        unit: name of an item.
        total: their number, where `items` does not know it.
    """
    return iter(tqdm(items, what, total, unit=unit, leave=False, disable=None))
