"""Setters and checkpoint state of `TumorInsertion`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from synthaug.checks import checked_at_least, checked_probability
from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.insertion.asked import Outcome
from synthaug.insertion.draw import Decider
from synthaug.insertion.report import Audit
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix
from synthaug.lesions.registry import donor_channels
from synthaug.lesions.sampler import LesionSampler
from synthaug.lesions.scale import SizeWeights
from synthaug.lesions.shapes import LesionShapes
from synthaug.options import InsertionOptions

STATE_VERSION = 4
"""States of versions 1, which did not name it, to 3 can be loaded."""


class InsertionState:
    """Sets, saves and restores what changes while a `TumorInsertion` runs.

    Args:
        lesions: source of the masks.
        generator: bound to the channels and classes.
        classes: label vocabulary of the batches.
        channels: canonical names of the image channels.
        decider: draws insertions; holds the adjustable values.
        audit: counts them.
    """

    options: InsertionOptions

    def __init__(
        self,
        lesions: LesionSource,
        generator: TumorGenerator,
        classes: Classes,
        channels: tuple[str, ...],
        decider: Decider,
        audit: Audit,
    ):
        self.lesions, self.generator, self.classes, self.channels = lesions, generator, classes, channels
        self._decider, self._audit = decider, audit

    def _donor_channels(self, mix: ClassMix | None) -> list[int] | None:
        return donor_channels(self.lesions, self.generator, self.classes, self.channels, self._decider.swaps, mix)

    def _refuse_own(self, name: str) -> None:
        if self.options.place == "own":
            raise ValueError(
                f"{name}: place: own paints lesions that the device alone knows; swaps and scale change them"
            )

    def expected(self, samples: int) -> float:
        """Compute how many insertions will be asked for, on average, over this many samples at the present `prob`."""
        return samples * self._decider.prob * (1 + self._decider.second)

    @property
    def prob(self) -> float:
        """Probability of a lesion per sample; may be set between batches."""
        return self._decider.prob

    @prob.setter
    def prob(self, value: float) -> None:
        self._decider.prob = checked_probability("prob", value)

    @property
    def number(self) -> int:
        """Running number of the next sample; with `seed` and `rank` it decides what is drawn for it.

        May be set between batches: loader workers, which start from equal copies of one insertion, set it to a number
        of their framework's random state.
        """
        return self._decider.number

    @number.setter
    def number(self, value: int) -> None:
        checked_at_least("number", value)
        self._decider.number = int(value)

    @property
    def class_mix(self) -> dict[str, float] | None:
        """Target shares of the inserted voxels, or None; may be set between batches where there are no swaps.

        With other shares than before the running counts begin anew: they would otherwise make up for the past, and
        overshoot for as long as it lasted.
        """
        mix = self._decider.mix
        return None if mix is None else dict(zip(mix.names, mix.target.tolist(), strict=True))

    @class_mix.setter
    def class_mix(self, shares: Mapping[str, float] | None) -> None:
        if shares is None:
            self._decider.mix = None
            return
        if self._decider.swaps is not None:
            raise ValueError("class_mix: this insertion has swaps; it may have one of the two")
        self._refuse_own("class_mix")
        new, old = ClassMix(shares, self.classes), self._decider.mix
        self._donor_channels(new)  # raises where donors lack a class
        if old is None or not np.array_equal(new.target, old.target):
            self._decider.mix = new

    @property
    def size_weights(self) -> SizeWeights | None:
        """Weights of lesion sizes, or None for none; may be set between batches."""
        return self._decider.size_weights

    @size_weights.setter
    def size_weights(self, weights: SizeWeights | None) -> None:
        if weights is not None and not isinstance(weights, SizeWeights):
            raise TypeError(f"size_weights: expected SizeWeights or None, got {type(weights).__name__}")
        if weights is not None:
            self._refuse_own("size_weights")
        own = isinstance(self.lesions, (LesionShapes, LesionSampler)) and self._decider.scale.diameter_mm is None
        if weights is not None and own:
            raise ValueError(
                f"size_weights: {type(self.lesions).__name__} draws its own diameters; give "
                "TumorInsertion(diameter_mm=...) instead"
            )
        self._decider.size_weights = weights

    def state_dict(self) -> dict[str, Any]:
        """Return random sequence, counters and adjustable values, JSON-able; waits for the device."""
        mix, weights = self._decider.mix, self._decider.size_weights
        return {
            "version": STATE_VERSION,
            "number": self._decider.number,
            "prob": self._decider.prob,
            "mix_target": None if mix is None else mix.target.tolist(),
            "mix_counts": None if mix is None else mix.counts.tolist(),
            "size_weights": None if weights is None else weights.to_dict(),
            "lesions": self.lesions.state_dict(),
            "audit": self._audit.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore random sequence, counters and adjustable values from what `state_dict` gave.

        Raises:
            ValueError: a state of a later version of the library, or of other classes.
        """
        version = state.get("version", 1)
        if version not in range(1, STATE_VERSION + 1):
            raise ValueError(f"insertion state: expected version 1 to {STATE_VERSION}, got {version!r}")
        self._audit.load_state_dict(_with_later_outcomes(state["audit"], version))
        self.number = state["number"]
        self.lesions.load_state_dict(state.get("lesions", {}))
        self.prob = state.get("prob", self.prob)
        if state.get("mix_target") is not None:
            self.class_mix = dict(zip(self.classes.names, state["mix_target"], strict=True))
        mix = self._decider.mix
        if mix is not None and state.get("mix_target") is not None:
            mix.target[:] = state["mix_target"]  # the setter's division by the sum rounds
        if mix is not None and state["mix_counts"] is not None:
            mix.counts[:] = state["mix_counts"]
        weights = state.get("size_weights")
        self.size_weights = None if weights is None else SizeWeights.from_dict(weights)


def _with_later_outcomes(audit: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Convert the audit's state of an earlier version: outcomes that it did not know are counted 0 times."""
    counts = list(audit["counts"])
    for outcome, since in ((Outcome.OTHER_BATCH, 2), (Outcome.NO_HOME, 3), (Outcome.NO_LESION, 4)):
        if version < since:
            counts.insert(outcome, 0.0)
    return {**audit, "counts": counts}
