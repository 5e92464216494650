"""The budget of painting beside a training, by which insertion stays within a share of the step time.

An account: each step pays in its share of the time that it took, insertion pays out the seconds that it took itself,
and a painting its CPU seconds divided by the training's threads. What is left buys paintings.
"""

import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable

RECENT = 50
LONGEST = 3.0
"""Times the median step, beyond which a step does not count: validation and checkpoints are pauses."""

SAVED_PAINTINGS = 4


class SmallBudgetWarning(UserWarning):
    """Insertion alone takes more time than it may, so that nothing is painted anew."""


class Budget:
    """Keeps account of the seconds that insertion and painting may take.

    Args:
        share: part of the step time that insertion may take, in (0, 1).
        clock: gives the present time in seconds.

    Attributes:
        allowance: seconds that are left.
        typical: seconds of a painting, a running mean; None before one is known.

    Raises:
        ValueError: a share outside (0, 1).
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.perf_counter):
        if not 0 < share < 1:
            raise ValueError(f"budget: expected a share of the step time, above 0 and below 1, got {share}")
        self.share, self.clock = share, clock
        self.allowance = 0.0
        self.typical: float | None = None
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._spent: deque[float] = deque(maxlen=RECENT)
        self._began: float | None = None
        self._since = 0.0
        self._warned = False

    def step(self) -> None:
        """Begin a step, and end the one before it; warns once where insertion takes more than its share."""
        now = self.clock()
        if self._began is not None:
            seconds = now - self._began
            if self._steps:
                seconds = min(seconds, LONGEST * statistics.median(self._steps))
            self._steps.append(seconds)
            self._spent.append(self._since)
            self.allowance += self.share * seconds - self._since
            if self.typical is not None:
                self.allowance = min(self.allowance, max(SAVED_PAINTINGS * self.typical, self.share * seconds))
        self._began, self._since = now, 0.0
        self._warn()

    def spend(self, seconds: float) -> None:
        """Charge the seconds that insertion took itself."""
        self._since += seconds

    def buy(self) -> float | None:
        """Take the estimated price of a painting, where the allowance covers it; returns it, or None."""
        if self.typical is None or self.allowance < self.typical:
            return None
        self.allowance -= self.typical
        return self.typical

    def settle(self, seconds: float, price: float) -> None:
        """Correct the price of a bought painting to the seconds of the training's that it took."""
        self.allowance -= seconds - price
        self.learn(seconds)

    def learn(self, seconds: float) -> None:
        """Update the mean price of a painting by the seconds that one took."""
        self.typical = seconds if self.typical is None else 0.8 * self.typical + 0.2 * seconds

    def _warn(self) -> None:
        if self._warned or len(self._steps) < RECENT:
            return
        own = sum(self._spent) / sum(self._steps)
        if own > self.share:
            self._warned = True
            warnings.warn(
                f"insertion alone takes {own:.1%} of the step time, more than the budget of {self.share:.1%}: "
                "no lesion is painted anew",
                SmallBudgetWarning,
                stacklevel=2,
            )
