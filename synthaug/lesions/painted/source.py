"""`PaintedLesions`: a generator paints lesions anew while training runs; its looks at the price of paste.

The pool at any time is a window on the painter's sequence; to repaint is to move it on by one. With `refresh` the
window's place follows from the running number of the sample alone, so that plans, resumed runs and replays get the same
pool however fast the painting is; with `budget` it moves as fast as time allows.
"""

import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from synthaug.checks import checked_at_least
from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Candidates, Lesion, LesionSource
from synthaug.lesions.cutting import MARGIN_VOX
from synthaug.lesions.painted.budget import Budget
from synthaug.lesions.painted.painter import LesionPainter
from synthaug.lesions.painted.pool import Pool
from synthaug.lesions.places import PlaceFrequency

LEAST_AHEAD, MOST_BOUGHT = 2, 16


class PaintedLesions(LesionSource):
    """Paints a pool of lesions ahead, to be inserted with ``generator="paste"``, at scale 1.

    Whole lesions are painted, not crops of hosts that the insertion would have to keep: so this is a source of lesions
    like any other, the insertion does not know of it, and a plan's rows name paintings that are painted again from
    their names, bit for bit.

    Args:
        bank: donors, whose masks are painted.
        generator: name, folder, hub id, or `TumorGenerator`; one that needs no donor.
        count: number of paintings in the pool.
        refresh: number of paintings that are made anew for each sample that is seen, such as 0.1; the oldest goes.
        budget: instead, share of the step time, in (0, 1), that insertion and painting together may take: as much is
            painted anew as fits. Which painting comes when then depends on the clock. With neither, the pool stays.
        start: a painted bank of the same generator, with which the pool begins.
        seed, rank: decide every draw; ranks of a distributed run paint different lesions.
        device: device of the generator and of the paintings.
        progress: show a progress bar while the pool is filled, which is when it is first needed.
        **options: sizes, swaps and `spacing_mm` of the paintings, and options of the generator, as for
            `LesionBank.painted`.

    Raises:
        ValueError: both `refresh` and `budget`, numbers out of range, a `start` that is no painted bank or one of
            other classes, channels or generator, and what `LesionBank.painted` raises.

    Example:
        >>> image = np.random.default_rng(0).normal(100, 10, (2, 32, 32, 32))
        >>> label = np.zeros((32, 32, 32), np.int16)
        >>> label[10:20, 10:20, 10:20] = 2
        >>> bank = LesionBank.from_arrays([("P1", "P1", image, label, (1, 1, 1))], "BRATS18", ("t1", "t2"))
        >>> lesions = PaintedLesions(bank, "procedural", count=3, refresh=0.5)
        >>> len(lesions), [lesion.size_vox for lesion in lesions.to_bank()]
        (3, [(10, 10, 10), (10, 10, 10), (10, 10, 10)])
        >>> lesions.follow(4)  # after 4 samples, 2 are painted anew
        >>> lesions.repainted
        2
        >>> lesions.close()
    """

    channels: tuple[str, ...]
    margin_vox = MARGIN_VOX

    def __init__(
        self,
        bank: LesionBank,
        generator: str | TumorGenerator,
        count: int = 200,
        *,
        refresh: float | None = None,
        budget: float | None = None,
        start: LesionBank | None = None,
        seed: int = 0,
        rank: int = 0,
        device: str | torch.device = "cpu",
        progress: bool = False,
        **options: Any,
    ):
        if refresh is not None and budget is not None:
            raise ValueError(f"give refresh or budget, not both; got refresh={refresh}, budget={budget}")
        self.refresh = checked_at_least("refresh", refresh or 0.0)
        self.budget = None if budget is None else Budget(budget)
        painter = LesionPainter(bank, generator, seed=seed, rank=rank, device=device, **options)
        self.pool = Pool(painter, int(checked_at_least("count", count, 1)), start, progress)
        self.bank, self.classes, self.channels = bank, bank.classes, bank.channels
        self._groups = bank.groups | (set() if start is None else start.groups)
        self.changes = bool(self.refresh or self.budget)
        self._new_step = False
        self._prices: dict[int, float] = {}
        self._process = os.getpid()
        if not self.changes:
            self.pool.move(0)

    @property
    def groups(self) -> set[str]:
        """Patient groups of the donors, and of those of the pool it began with."""
        return self._groups

    @property
    def vocabulary(self) -> Classes | None:
        """That of the donors' bank."""
        return self.bank.vocabulary

    def group_of(self, given: str) -> str:
        """The donors' patient group that is meant, as `LesionBank.group_of` knows it."""
        return self.bank.group_of(given)

    def __len__(self) -> int:
        return self.pool.count

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_process": os.getpid(), "_prices": {}}

    @property
    def places(self) -> PlaceFrequency | None:
        """How often the donors' lesions lie where."""
        return self.bank.places

    @property
    def repainted(self) -> int:
        """Number of paintings that were made anew since the first pool."""
        return self.pool.first

    def follow(self, number: int) -> None:
        """Move the pool to its place for sample `number`; waits for paintings that are due.

        Raises:
            RuntimeError: this is a loader worker, which does not know how training goes on.
            Exception: what a painting in the background failed with.
        """
        if self.changes and (in_worker() or self._process != os.getpid()):
            raise RuntimeError(
                "PaintedLesions with refresh or budget follows the training and cannot be used in a loader worker: "
                "insert into the batch in the training loop, or leave both out, or paint a bank with bank.painted(...)"
            )
        if self.refresh:
            self.pool.move(math.floor(self.refresh * number))
            for ahead in range(max(LEAST_AHEAD, math.ceil(4 * self.refresh))):
                self.pool.ask(self.pool.first + self.pool.count + ahead)
        elif self.budget is not None:
            self.pool.move(self.pool.first)
            self._spend_budget(self.budget)

    def _spend_budget(self, budget: Budget) -> None:
        """Take what is ready into the pool, and have painted what the budget allows."""
        if budget.typical is None and self.pool.typical is not None:
            budget.learn(self.pool.typical / self._threads)
        if self._new_step:
            budget.step()
            self._new_step = False
        while (timed := self.pool.ready(end := self.pool.first + self.pool.count)) is not None:
            budget.settle(timed.seconds / self._threads, self._prices.pop(end))
            self.pool.move(self.pool.first + 1)
        while len(self._prices) < MOST_BOUGHT and (price := budget.buy()) is not None:
            number = self.pool.first + self.pool.count + len(self._prices)
            self._prices[number] = price
            self.pool.ask(number)

    @property
    def _threads(self) -> int:
        return torch.get_num_threads() if self.pool.painter.device.type == "cpu" else 1

    @property
    def painting_seconds(self) -> float:
        """Seconds of the training's threads, or of the accelerator, that painting in the background took so far."""
        return self.pool.seconds / self._threads

    @property
    def waited_seconds(self) -> float:
        """Seconds for which the training waited for it."""
        return self.pool.waited

    def spent(self, seconds: float) -> None:
        """Charge the budget with the seconds that planning or applying took."""
        self._new_step = True
        if self.budget is not None:
            self.budget.spend(seconds)

    def state_dict(self) -> dict[str, Any]:
        """Return how many paintings were made anew."""
        return {"repainted": self.pool.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the pool of that time."""
        if self.changes and state:
            self._prices.clear()
            self.pool.move(int(state["repainted"]))

    def close(self) -> None:
        """Stop the painting thread, as this object's end does; where a painting is needed, another starts."""
        self._prices.clear()
        self.pool.close()

    def candidates(self, rng: np.random.Generator, exclude_group: str | None) -> Candidates:
        """List the pool's lesions, without those of `exclude_group`."""
        self.pool.move(self.pool.first)
        found = self.pool.candidates()
        if exclude_group is None:
            return found
        own = self.group_of(exclude_group)
        return found.at(np.array([i for i, x in enumerate(found.lesions) if x.group != own], dtype=int))

    def lesion(self, name: str) -> Lesion:
        """Find the lesion of that name, painted again where it is in the pool no more.

        Raises:
            ValueError: it is not the name of a painting by this generator from this bank.
        """
        return self.pool.find(name).lesion

    def mask(self, name: str, device: torch.device) -> Tensor:
        """Return a lesion's mask, (X, Y, Z) uint8, k + 1 in class k: the tight box and 3 voxels around it."""
        return self.pool.find(name).mask.to(device, non_blocking=True)

    def intensities(self, name: str, channels: Sequence[int], device: torch.device) -> Tensor:
        """Return model intensities of the mask's box, (C, X, Y, Z) float32."""
        whole = self.pool.find(name).intensities
        if whole.is_cuda:
            whole.record_stream(torch.cuda.current_stream(whole.device))
        return whole[list(channels)].to(device, non_blocking=True).float()

    def class_statistics(self, name: str, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (K, C) of a painting's classes; the donor's where it lacks a class."""
        row = self.pool.find(name).row
        return row["mean"][:, list(channels)], row["std"][:, list(channels)]

    def to_bank(self) -> LesionBank:
        """Copy the present pool to a painted bank, to be saved; rows of plans made with it repeat from there."""
        self.pool.move(self.pool.first)
        return self.bank.of_rows([painting.row for painting in self.pool.paintings()], self.pool.painter.facts)


def in_worker() -> bool:
    """Tell whether this is a data loader's worker: torch's, or a daemonic process such as batchgenerators'."""
    return get_worker_info() is not None or multiprocessing.current_process().daemon
