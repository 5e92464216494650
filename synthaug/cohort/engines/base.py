"""What an engine is: it makes the cases that it is given, in its own processes, and says what became of each."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.gate import Segmenter
from synthaug.cohort.making import CaseMaker
from synthaug.cohort.pipeline import Failure
from synthaug.cohort.store import open_store
from synthaug.config import ConfigError
from synthaug.generators.base import TumorGenerator

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Every n-th case, from the i-th on: which cases these are depends on nothing else.

    Attributes:
        number: i, from 0.
        of: n.
    """

    number: int = 0
    of: int = 1

    @classmethod
    def read(cls, text: str) -> "Share":
        """Read ``"i/n"``.

        Raises:
            ConfigError: another form, or i is not below n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or int(match[1]) >= int(match[2]):
            raise ConfigError(f"shard: expected i/n with i from 0 to n - 1, such as 0/4, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def split(self, number: int, of: int) -> "Share":
        """The `number`-th of `of` shares of this share."""
        return Share(self.number + self.of * number, self.of * of)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index % self.of == self.number


@dataclass(frozen=True)
class Order:
    """What to make, in a form that can be sent to other processes.

    Attributes:
        config: the cohort's configuration.
        out: the place, a path or a URL.
        generator: used in place of the configuration's.
        segmenter: likewise.
        actors: number of workers, where the engine starts them.
    """

    config: CohortConfig
    out: str
    generator: TumorGenerator | None = None
    segmenter: Segmenter | None = None
    actors: int | None = None

    def maker(self, device: torch.device) -> CaseMaker:
        """Make a maker of its cases.

        Raises:
            ConfigError: as `CaseMaker`.
        """
        return CaseMaker(self.config, open_store(self.out), self.generator, self.segmenter, device)


class Engine(ABC):
    """Makes cases in one process or in many.

    Args:
        order: what to make.

    Attributes:
        device: of the insertions in this process.
        is_main: whether this process does what is done once.
        share: of the cases, that this process asks for.
        processes: number of processes that ask for cases.
    """

    device: torch.device
    is_main = True
    share = Share()
    processes = 1

    def __init__(self, order: Order):
        self.order = order
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @abstractmethod
    def make(self, maker: CaseMaker, indices: Iterable[int]) -> Iterator[tuple[int, Failure | None]]:
        """Make cases; yields each with what it failed with, or None, when it is done."""

    def once(self, work: Callable[[], T]) -> T:
        """Do something in the main process, and return its result in all that ask for cases."""
        return work()

    def joined(self, items: list[T]) -> list[T]:
        """Join the lists of all processes that ask for cases; waits for all."""
        return items

    def leave(self) -> None:  # noqa: B027 (most have nothing to end)
        """End it, after everything else."""
