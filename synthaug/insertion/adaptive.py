"""Steers insertion by validation: more of the classes and lesion sizes that are found worst; and schedules `prob`.

Both are off unless they are called. After each validation

    need of a class or size = 1 - (EMA of its lesion-wise recall + EMA of its lesion-wise Dice) / 2
    weight = (need / mean need) ^ strength, held in [1 / bound, bound]

where the Dice is that of the lesions that are there: false positives are left out, for more tumours do not cure them.
The weights multiply the class mix that the insertion was made with (then shares are made to sum to 1) and tilt its
lesion sizes.

A validation set that steers training is no longer untouched: report on other cases.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthaug.checks import checked_at_least, checked_probability, checked_range
from synthaug.insertion.insertion import TumorInsertion
from synthaug.lesions.scale import SizeWeights
from synthaug.sizes import SizeClasses

LEAST_NEED = 0.02
"""A class that is found perfectly still has some need, so that no weight divides by nothing."""

SCORES = ("lesion_recall", "lesion_dice")


@dataclass(frozen=True)
class ProbSchedule:
    """Schedules `prob` over a run's steps: linear warm-up from 0, then constant, then decay.

    It has no state: ``insert.prob = schedule(step)`` before each step is the same after a restart.

    Args:
        prob: probability between warm-up and decay.
        warmup_steps: number of steps over which it rises; the first step has prob / (warmup_steps + 1).
        decay_from: last step with `prob`; None for no decay.
        decay_to: first step with `end_prob`, which then stays.
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
        if begin is not None and end is not None and not self.warmup_steps <= begin < end:
            raise ValueError(
                f"expected warmup_steps <= decay_from < decay_to, got {self.warmup_steps}, {begin} and {end}"
            )
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"shape: expected 'linear' or 'cosine', got {self.shape!r}")

    def __call__(self, step: int) -> float:
        """Return the probability at a step, counted from 1."""
        if step <= self.warmup_steps:
            return self.prob * step / (self.warmup_steps + 1)
        if self.decay_from is None or self.decay_to is None or step <= self.decay_from:
            return self.prob
        t = min(1.0, (step - self.decay_from) / (self.decay_to - self.decay_from))
        left = 1 - t if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * t))
        return self.end_prob + (self.prob - self.end_prob) * left

    def mean(self, steps: int) -> float:
        """Average the probability over steps 1 to `steps`, to tell how many insertions a run will ask for."""
        return float(np.mean([self(step) for step in range(1, steps + 1)]))


class AdaptiveInsertion:
    """Raises the rate of the classes and lesion sizes that validation finds worst.

    Call `update` after each validation, on every process with the same rows. It sets ``insert.class_mix`` and
    ``insert.size_weights``; neither draws random numbers. A class or size that validation has no lesion of keeps what
    is known of it, and counts as average before anything is.

    Args:
        insert: the `TumorInsertion` to steer.
        momentum: weight of the past in the moving averages, in [0, 1); 0 looks at the latest validation alone.
        strength: exponent of the needs; 0 changes nothing.
        bound: greatest factor by which a weight differs from 1, at least 1.
        classes: whether classes are steered; None for "where the insertion has a class_mix".
        sizes: whether lesion sizes are steered.
        size_region: region whose lesions tell how sizes are found; inserted lesions are whole ones, so that of all
            classes together. None takes the region that is listed first.
        size_classes: size classes that the rows of validation have; by default `SizeClasses()`.

    Raises:
        ValueError: numbers out of range, `classes` without a class_mix, `sizes` where the insertion cannot weight
            them, or neither of both.

    Example:
        >>> from synthaug import LesionShapes
        >>> shares = {"NCR": 0.2, "ED": 0.4, "ET": 0.4}
        >>> insert = TumorInsertion(LesionShapes(), "procedural", class_mix=shares)
        >>> adaptive = AdaptiveInsertion(insert, momentum=0.0, sizes=False)
        >>> lesions = {"size": "all", "lesions": 10, "lesions_found": 8, "false_positives": 0, "lesion_recall": 0.8}
        >>> rows = [lesions | {"region": name, "lesion_dice": 0.8} for name in ("NCR", "ED")]
        >>> rows += [lesions | {"region": "ET", "lesions_found": 4, "lesion_recall": 0.4, "lesion_dice": 0.4}]
        >>> log = adaptive.update(rows)
        >>> {name: round(share, 2) for name, share in insert.class_mix.items()}  # more of what is found worst
        {'NCR': 0.11, 'ED': 0.22, 'ET': 0.67}
    """

    def __init__(
        self,
        insert: TumorInsertion,
        momentum: float = 0.7,
        strength: float = 1.0,
        bound: float = 2.0,
        classes: bool | None = None,
        sizes: bool = True,
        size_region: str | None = None,
        size_classes: SizeClasses | None = None,
    ):
        self.insert, self.size_region = insert, size_region
        self.momentum = checked_probability("momentum", momentum)
        self.strength, self.bound = checked_at_least("strength", strength), checked_range("bound", bound)[0]
        if self.bound < 1 or self.momentum == 1:
            raise ValueError(f"expected bound >= 1 and momentum < 1, got {bound} and {momentum}")
        self.base_mix = insert.class_mix
        if classes and self.base_mix is None:
            raise ValueError(
                "adaptive classes: the insertion has no class_mix that could be changed; give "
                "TumorInsertion(class_mix={...}) in place of swaps, or classes=False"
            )
        self.classes = insert.classes.names if classes or (classes is None and self.base_mix is not None) else ()
        self.size_classes = size_classes or SizeClasses()
        self.sizes = self.size_classes.names if sizes else ()
        if not self.classes and not self.sizes:
            raise ValueError("adaptive insertion: neither classes nor sizes are to be steered")
        self.base_sizes: dict[str, float] = {}
        if self.sizes:
            weights = insert.size_weights or SizeWeights(self.size_classes, (1.0,) * len(self.size_classes))
            insert.size_weights = weights
            self.base_sizes = dict(zip(self.sizes, weights.weights, strict=True))
        self.scores: dict[str, dict[str, float]] = {}
        self.updates = 0

    def update(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Update the averages by a validation, and set the insertion's class mix and size weights.

        Args:
            rows: what `synthaug.evaluation.evaluate_case` with `lesionwise` gives for all validation cases.

        Returns:
            What was seen and set, JSON-able, for the log: ``updates``, ``scores`` (the averages of each class and
            size), ``weights``, ``class_mix`` and ``size_weights`` (only those that are steered).

        Raises:
            ValueError: no row, rows without lesion-wise scores, or without one of the classes or the region.
        """
        rows = list(rows)
        if not rows or not all(SCORES[0] in row for row in rows):
            raise ValueError(
                "adaptive insertion: expected rows of evaluate_case(..., lesionwise=True), got others or none"
            )
        region = self._size_region(rows)
        for name in self.classes:
            self._take(f"class {name}", [r for r in rows if r["region"] == name and r["size"] == "all"])
        for name in self.sizes:
            self._take(f"size {name}", [r for r in rows if r["region"] == region and r["size"] == name])
        self.updates += 1
        return self._set()

    def _size_region(self, rows: list[Mapping[str, Any]]) -> str | None:
        known = dict.fromkeys(row["region"] for row in rows)
        missing = [name for name in self.classes if name not in known]
        region = self.size_region or next(iter(known))
        if missing or region not in known:
            wanted = ", ".join([*missing, *([] if region in known else [region])])
            raise ValueError(f"adaptive insertion: no row is of {wanted}; the rows are of {', '.join(known)}")
        return region

    def _take(self, key: str, rows: list[Mapping[str, Any]]) -> None:
        """Update the averages of a class or size, in which each lesion counts alike."""
        lesions = sum(row["lesions"] for row in rows)
        if not lesions:
            return
        # of the lesions that are there: the mean over lesions and false positives, times how many they are
        dice = sum(r["lesion_dice"] * (r["lesions"] + r["false_positives"]) for r in rows if r["lesions"])
        new = {"lesion_recall": sum(row["lesions_found"] for row in rows) / lesions, "lesion_dice": dice / lesions}
        old = self.scores.get(key, new)
        self.scores[key] = {name: self.momentum * old[name] + (1 - self.momentum) * new[name] for name in SCORES}

    def weights(self) -> dict[str, float]:
        """Compute the weight of each class and size, in [1 / bound, bound]; 1 for all before the first update."""
        return self._weights("class", self.classes) | self._weights("size", self.sizes)

    def _weights(self, kind: str, names: Iterable[str]) -> dict[str, float]:
        keys = [f"{kind} {name}" for name in names]
        need = {k: max(1 - sum(self.scores[k].values()) / len(SCORES), LEAST_NEED) for k in keys if k in self.scores}
        average = float(np.mean(list(need.values()))) if need else 1.0
        raw = {key: (need.get(key, average) / average) ** self.strength for key in keys}
        return {key: float(np.clip(value, 1 / self.bound, self.bound)) for key, value in raw.items()}

    def _set(self) -> dict[str, Any]:
        weights = self.weights()
        log: dict[str, Any] = {"updates": self.updates, "scores": dict(self.scores), "weights": weights}
        if self.base_mix is not None and self.classes:
            shares = {name: self.base_mix[name] * weights[f"class {name}"] for name in self.classes}
            total = sum(shares.values())
            log["class_mix"] = {name: share / total for name, share in shares.items()}
            self.insert.class_mix = log["class_mix"]
        if self.sizes:
            log["size_weights"] = {name: self.base_sizes[name] * weights[f"size {name}"] for name in self.sizes}
            self.insert.size_weights = SizeWeights(self.size_classes, tuple(log["size_weights"].values()))
        return log

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, JSON-able; what was set on the insertion is in the insertion's own state."""
        return {
            "updates": self.updates,
            "scores": {key: dict(values) for key, values in self.scores.items()},
            "base_mix": self.base_mix,
            "base_sizes": dict(self.base_sizes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the averages that `state_dict` gave; load the insertion's state too."""
        self.updates = int(state["updates"])
        self.scores = {key: dict(values) for key, values in state["scores"].items()}
        self.base_mix, self.base_sizes = state["base_mix"], dict(state["base_sizes"])
