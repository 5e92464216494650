"""The processes of one launch by ``accelerate launch`` or ``torchrun`` make the cases, each a share of them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from synthaug.cohort.engines.base import Order, Share, T
from synthaug.cohort.engines.local import LocalEngine
from synthaug.config import ConfigError

PATIENCE = timedelta(days=30)
"""How long a process waits for the others at the end; they work on their own for as long as the cohort takes."""


class AccelerateEngine(LocalEngine):
    """Makes a share of the cases in each process of a launch; they meet at the beginning and at the end.

    Args:
        order: what to make.
    """

    def __init__(self, order: Order):
        super().__init__(order)
        from accelerate import PartialState

        self._own = not torch.distributed.is_initialized()
        # between machines and on CPUs only small objects are sent, for which gloo is enough everywhere
        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        self.device, self.is_main = self._state.device, self._state.is_main_process
        self.processes = self._state.num_processes
        self.share = Share(self._state.process_index, self.processes)

    def once(self, work: Callable[[], T]) -> T:
        """Do something in the main process, and return its result in all.

        Raises:
            ConfigError: `work` raised it, or an OSError, in the main process; it is raised in all.
        """
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

    def joined(self, items: list[T]) -> list[T]:
        """Join the lists of all processes, in every process; waits for all."""
        from accelerate.utils import gather_object

        return gather_object(items)

    def leave(self) -> None:
        """Disconnect from the others, if this connected to them: one that just goes breaks their connections."""
        self._state.wait_for_everyone()
        if self._own:
            self._state.destroy_process_group()
            self._state._reset_state()  # else the next cohort of this process would take itself for connected
