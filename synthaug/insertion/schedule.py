"""The probability of a lesion over a training: warm-up, plateau, decay, and by default a clean end.

A network that was trained on changed data gains from an end on real data alone (He et al., 2019, "Data augmentation
revisited"): by default the last 40 % of a training are real.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt

from synthaug.checks import checked_at_least, checked_probability
from synthaug.options import InsertionOptions

Moment = Annotated[float, Field(gt=0, lt=1)] | NonNegativeInt
"""A step, or where it is below 1 a share of all steps."""


@dataclass(frozen=True)
class ProbSchedule:
    """Schedules `prob` over a run's steps: linear warm-up from 0, then constant, then decay.

    It has no state: ``insert.prob = schedule(step)`` before each step is the same after a restart.

    Args:
        prob: probability between warm-up and decay.
        warmup_steps: number of steps over which it rises; the first step has prob / (warmup_steps + 1).
        decay_from: last step with `prob`; None for no decay.
        decay_to: first step with `end_prob`, which then stays; the same as `decay_from` for a sudden end.
        end_prob: probability at the end of the decay.
        shape: ``"linear"`` or ``"cosine"`` decay.

    Raises:
        ValueError: a probability outside [0, 1], steps that are not in order, one of decay_from and decay_to alone, or
            an unknown shape.

    Example:
        >>> schedule = ProbSchedule(0.6, warmup_steps=2, decay_from=10, decay_to=20)
        >>> [round(schedule(step), 2) for step in (1, 3, 15, 20)]
        [0.2, 0.6, 0.3, 0.0]
    """

    prob: float
    warmup_steps: int = 0
    decay_from: int | None = None
    decay_to: int | None = None
    end_prob: float = 0.0
    shape: str = "linear"

    def __post_init__(self):
        checked_probability("prob", self.prob)
        checked_probability("end_prob", self.end_prob)
        checked_at_least("warmup_steps", self.warmup_steps)
        begin, end = self.decay_from, self.decay_to
        if (begin is None) != (end is None):
            raise ValueError(f"give both decay_from and decay_to; got {begin} and {end}")
        if begin is not None and end is not None and not self.warmup_steps <= begin <= end:
            raise ValueError(
                f"expected warmup_steps <= decay_from <= decay_to, got {self.warmup_steps}, {begin} and {end}"
            )
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"shape: expected 'linear' or 'cosine', got {self.shape!r}")

    def __call__(self, step: int) -> float:
        """Return the probability at a step, counted from 1."""
        if step <= self.warmup_steps:
            return self.prob * step / (self.warmup_steps + 1)
        if self.decay_from is None or self.decay_to is None or step <= self.decay_from:
            return self.prob
        t = min(1.0, (step - self.decay_from) / max(1, self.decay_to - self.decay_from))
        left = 1 - t if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * t))
        return self.end_prob + (self.prob - self.end_prob) * left

    def mean(self, steps: int) -> float:
        """Average the probability over steps 1 to `steps`, to tell how many insertions a run will ask for."""
        return float(np.mean([self(step) for step in range(1, steps + 1)]))


class ScheduledOptions(InsertionOptions):
    """Options of an insertion in a training, with the schedule of its probability.

    Attributes:
        warmup_steps: number of steps over which `prob` rises; in nnU-Net the steps are epochs, here and below.
        decay_from: last step with `prob`, or a share of all steps; None for no decay.
        decay_to: first step with `end_prob`, or a share of all steps; the same as `decay_from` for a sudden end.
        end_prob: probability at the end.
        decay_shape: ``"linear"`` or ``"cosine"`` decay.
    """

    warmup_steps: NonNegativeInt = 0
    decay_from: Moment | None = 0.6
    decay_to: Moment | None = 0.6
    end_prob: Annotated[float, Field(ge=0, le=1)] = 0.0
    decay_shape: Literal["linear", "cosine"] = "linear"

    def schedule(self, steps: int) -> ProbSchedule:
        """Schedule the probability over a training of so many steps.

        Raises:
            ValueError: what `ProbSchedule` raises.
        """
        begin, end = (
            round(moment * steps) if isinstance(moment, float) else moment
            for moment in (self.decay_from, self.decay_to)
        )
        return ProbSchedule(self.prob, self.warmup_steps, begin, end, self.end_prob, self.decay_shape)
