"""The processes of one launch: their ranks, and objects sent between them; all of it by accelerate."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from synthaug.config import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process waits for the others at the end; they work on their own for as long as the cohort takes."""


@dataclass(frozen=True)
class Processes:
    """The processes of a launch.

    Attributes:
        rank: number of this process.
        world: number of processes.
        device: device of this process.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def current(cls) -> "Processes":
        """Find the launch by accelerate or torchrun that this process is part of; else it is the only process."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        from accelerate import PartialState

        # between machines and on CPUs only small objects are sent, for which gloo is enough everywhere
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def is_main(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def from_main(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process, and return its result in all of them.

        Raises:
            ConfigError: `work` raised it, or an OSError, in the main process; it is raised in all.
        """
        if self.world == 1:
            return work()
        answer: list[Any] = [None, None]
        if self.is_main:
            try:
                answer[0] = work()
            except (ConfigError, OSError) as error:
                answer[1] = str(error)
        from accelerate.utils import broadcast_object_list

        result, problem = broadcast_object_list(answer, from_process=0)
        if problem is not None:
            raise ConfigError(problem)
        return result

    def gathered(self, items: list[T]) -> list[T]:
        """Join the lists of all processes, in every process; waits for all."""
        if self.world == 1:
            return items
        from accelerate.utils import gather_object

        return gather_object(items)

    def leave(self) -> None:
        """Disconnect from the other processes, at the end of a command: one that just goes breaks their connections."""
        if self.world > 1:
            from accelerate import PartialState

            self.gathered([])
            PartialState().destroy_process_group()
