"""This process alone makes the cases."""

from collections.abc import Iterable, Iterator

from synthaug.cohort.engines.base import Engine
from synthaug.cohort.making import CaseMaker
from synthaug.cohort.pipeline import Failure


class LocalEngine(Engine):
    """Makes cases in this process, reading and writing in threads beside."""

    def make(self, maker: CaseMaker, indices: Iterable[int]) -> Iterator[tuple[int, Failure | None]]:
        """Make cases, in order."""
        return maker.make(indices)
