"""Ray makes the cases: actors hold bank and generator, and Ray starts them again where a process or a machine dies.

The driver hands out a few cases at a time, so that neither it nor Ray ever holds a list of all.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from synthaug.cohort.engines.base import Engine, Order
from synthaug.cohort.making import CaseMaker
from synthaug.cohort.pipeline import Failure
from synthaug.remote import is_url

logger = logging.getLogger(__name__)

MOST_AT_A_TIME = 8
"""Cases of one task; within it they are read, made and written at the same time."""

TRIES = 4
"""How often a task is begun whose actor dies, by itself or with its machine."""


class RayEngine(Engine):
    """Makes cases by actors on a Ray cluster: the one that RAY_ADDRESS names, that runs here, or one begun for it.

    Args:
        order: what to make; `actors` by default as many as the cluster has GPUs, or else as its CPUs have threads for.
    """

    def __init__(self, order: Order):
        super().__init__(replace(order, out=_absolute(order.out), config=order.config.with_places(_absolute)))
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError('the engine ray needs pip install "synthaug[ray]"') from error
        self._ray, self._own = ray, not ray.is_initialized()

    def make(self, maker: CaseMaker, indices: Iterable[int]) -> Iterator[tuple[int, Failure | None]]:
        """Make cases, in the order in which they are done.

        Raises:
            ConnectionError: no task of any actor came back: the cluster is gone, or every case kills its process.
        """
        ray, lost = self._ray, 0
        if self._own:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        actors = self._actors()
        size = max(1, min(MOST_AT_A_TIME, maker.total // (4 * len(actors))))
        coming = _grouped(iter(indices), size)
        going: dict[Any, tuple[Any, list[int]]] = {}
        try:
            for actor in actors * 2:  # one at work and one that waits, for each
                self._begin(actor, coming, going)
            while going:
                (done,), _ = ray.wait(list(going))
                actor, cases = going.pop(done)
                self._begin(actor, coming, going)
                results, gone = self._results(done, cases)
                yield from results
                lost = lost + 1 if gone else 0
                if going and lost >= 2 * len(actors):  # else all that is left would be listed as failed
                    raise ConnectionError(
                        f"ray: {lost} tasks one after the other were lost {TRIES} times each: the head or the cluster"
                        " is gone, or every case kills its process; the same command goes on with what is left"
                    )
        finally:
            for actor in actors:
                ray.kill(actor)

    def leave(self) -> None:
        """Disconnect from the cluster, and end it where it was begun for this."""
        if self._own:
            self._ray.shutdown()

    def _actors(self) -> list[Any]:
        ray, threads, there = self._ray, self.order.config.threads, self._ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        count = self.order.actors or gpus or max(1, int(there.get("CPU", 1)) // threads)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": min(threads, int(there.get("CPU", 1)))}
        remote = ray.remote(max_restarts=-1, max_task_retries=TRIES - 1, **needs)(_Worker)
        logger.info("ray: %d actors, each with %s", count, needs)
        return [remote.remote(self.order) for _ in range(count)]

    def _begin(self, actor: Any, coming: Iterator[list[int]], going: dict[Any, tuple[Any, list[int]]]) -> None:
        if cases := next(coming, None):
            going[actor.make.remote(cases)] = (actor, cases)

    def _results(self, task: Any, cases: list[int]) -> tuple[list[tuple[int, Failure | None]], bool]:
        """What became of the cases of a task, and whether it was lost with its actor."""
        try:
            return self._ray.get(task), False
        except self._ray.exceptions.RayActorError as error:
            message = f"its worker died or was out of reach {TRIES} times: {str(error).splitlines()[0]}"
            return [(index, Failure(message)) for index in cases], True


def _absolute(place: Any) -> Any:
    """A path from the root, for actors may work in another folder; a URL as it is."""
    return place if is_url(place) else os.path.abspath(place)  # noqa: PTH100 (of a text, without asking the disk)


def _grouped(indices: Iterator[int], size: int) -> Iterator[list[int]]:
    while group := list(islice(indices, size)):
        yield group


class _Worker:
    """An actor: holds bank and generator, and makes cases."""

    def __init__(self, order: Order):
        torch.set_num_threads(order.config.threads)
        self._maker = order.maker(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def make(self, indices: list[int]) -> list[tuple[int, Failure | None]]:
        """Make cases; those that were done before their worker died are left alone."""
        done = self._maker.records.done(indices)
        return [(index, None) for index in sorted(done)] + list(self._maker.make(i for i in indices if i not in done))
