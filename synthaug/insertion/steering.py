"""What of an insertion may be changed between batches, and where it stands: set by schedules, kept in checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from synthaug.checks import checked_at_least, checked_probability
from synthaug.classes import Classes
from synthaug.insertion.assembly import donor_channels
from synthaug.insertion.draw import Decider
from synthaug.insertion.report import Audit
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps
from synthaug.lesions.scale import SizeWeights
from synthaug.lesions.shapes import LesionShapes


class Steering:
    """The adjustable part of `TumorInsertion`.

    Each setter checks its value and leaves the insertion as it was where it raises. Setting a value does not touch the
    random sequence: with the same values set at the same samples, a run repeats bit for bit.
    """

    classes: Classes
    lesions: LesionSource
    _decider: Decider
    _audit: Audit

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
        new, old = ClassMix(shares, self.classes), self._decider.mix
        donor_channels(self.lesions, self.generator, self.classes, self.channels, Swaps((), "joint", self.classes), new)
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
        if weights is not None and isinstance(self.lesions, LesionShapes) and self._decider.scale.diameter_mm is None:
            raise ValueError(
                "size_weights: LesionShapes draws its own diameters; give TumorInsertion(diameter_mm=...) instead"
            )
        self._decider.size_weights = weights

    def expected(self, samples: int) -> float:
        """Insertions that will be asked for, on average, over this many samples at the present `prob`."""
        return samples * self._decider.prob * (1 + self._decider.second)

    def state_dict(self) -> dict[str, Any]:
        """Where the random sequence, the counters and the adjustable values stand, JSON-able; waits for the device."""
        mix, weights = self._decider.mix, self._decider.size_weights
        return {
            "number": self._decider.number,
            "prob": self._decider.prob,
            "mix_target": None if mix is None else mix.target.tolist(),
            "mix_counts": None if mix is None else mix.counts.tolist(),
            "size_weights": None if weights is None else weights.to_dict(),
            "lesions": self.lesions.state_dict(),
            "audit": self._audit.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, with the values that were set then."""
        self._audit.load_state_dict(state["audit"])
        self.number = state["number"]
        self.lesions.load_state_dict(state.get("lesions", {}))
        self.prob = state.get("prob", self.prob)
        if state.get("mix_target") is not None:
            self.class_mix = dict(zip(self.classes.names, state["mix_target"], strict=True))
            self._decider.mix.target[:] = state["mix_target"]
        if self._decider.mix is not None and state["mix_counts"] is not None:
            self._decider.mix.counts[:] = state["mix_counts"]
        weights = state.get("size_weights")
        self.size_weights = None if weights is None else SizeWeights.from_dict(weights)
