"""The registry of metrics, a line each: function, name, unit and direction in every table.

A new metric is a function, of `MaskPair` or of the lesions of a case, and a line in one of the tuples here; the rows of
`evaluate_case`, ``synthaug evaluate``, the log and the report of a training run follow.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from synthaug.evaluation import lesionwise, metrics
from synthaug.evaluation.lesionwise import LesionScore
from synthaug.evaluation.masks import PENALTY_MM, MaskPair, mask_pair

Scored = TypeVar("Scored")
Scores = dict[str, float | int | None]


@dataclass(frozen=True)
class Metric(Generic[Scored]):
    """One figure of a prediction against its truth.

    Attributes:
        name: key in rows and tables of text.
        words: name for readers, such as ``"HD95"``.
        measure: computes it from a `MaskPair` or from the lesions of a case; None where it is undefined.
        higher_is_better: None for a figure that says how much there was, not how well it was found.
        unit: ``"mm"`` or ``"ml"``, empty for shares and counts.
        count: whether it is a number of lesions, which is 0 where there are none, rather than undefined.
        by_size: whether rows of single size classes have it; for figures of lesions.
        shown: whether tables for readers have it; files have all.
        followed: whether a training logs it at every validation and its report draws a curve.
    """

    name: str
    words: str
    measure: Callable[[Scored], float | int | None]
    higher_is_better: bool | None
    unit: str = ""
    count: bool = False
    by_size: bool = False
    shown: bool = False
    followed: bool = False

    @property
    def heading(self) -> str:
        """Title of its column: name for readers and unit."""
        return f"{self.words}, {self.unit}" if self.unit else self.words

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return not self.unit and not self.count


OVERLAP: tuple[Metric[MaskPair], ...] = (
    Metric("dice", "Dice", metrics.dice, True, shown=True, followed=True),
    Metric("iou", "IoU", metrics.iou, True),
    Metric("volumetric_similarity", "volumetric similarity", metrics.volumetric_similarity, True),
    Metric("sensitivity", "sensitivity", metrics.sensitivity, True),
    Metric("specificity", "specificity", metrics.specificity, True),
    Metric("precision", "precision", metrics.precision, True),
)
"""Metrics of the counts of voxels."""

SURFACE: tuple[Metric[MaskPair], ...] = (
    Metric("hd95_mm", "HD95", metrics.hd95_mm, False, unit="mm", shown=True),
    Metric("nsd", "NSD", metrics.nsd, True, shown=True),
    Metric("assd_mm", "ASSD", metrics.assd_mm, False, unit="mm"),
)
"""Metrics of the distances between surfaces, which take most of the time."""

VOLUMES: tuple[Metric[MaskPair], ...] = (
    Metric("truth_ml", "true volume", metrics.truth_ml, None, unit="ml"),
    Metric("predicted_ml", "predicted volume", metrics.predicted_ml, None, unit="ml"),
)
"""Volumes of both masks."""

LESIONS: tuple[Metric[Sequence[LesionScore]], ...] = (
    Metric("lesion_dice", "lesion-wise Dice", lesionwise.lesion_dice, True, by_size=True, shown=True),
    Metric("lesion_hd95_mm", "lesion-wise HD95", lesionwise.lesion_hd95_mm, False, unit="mm"),
    Metric(
        *("lesion_recall", "lesion-wise recall", lesionwise.lesion_recall, True),
        by_size=True,
        shown=True,
        followed=True,
    ),
    Metric("lesion_precision", "lesion-wise precision", lesionwise.lesion_precision, True),
    Metric("lesions", "lesions", lesionwise.lesions, None, count=True, by_size=True),
    Metric("lesions_found", "lesions found", lesionwise.lesions_found, None, count=True, by_size=True),
    Metric(
        *("false_positives", "false positives per case", lesionwise.false_positives, False),
        count=True,
        by_size=True,
        shown=True,
    ),
)
"""Metrics of single lesions, see `synthaug.evaluation.lesionwise`."""

_ALL: tuple[Metric[Any], ...] = (*OVERLAP, *SURFACE, *VOLUMES, *LESIONS)

METRICS = {metric.name: metric for metric in _ALL}
"""All metrics by name, in the order of the tables."""


def measured(which: Iterable[Metric[Scored]], scored: Scored) -> Scores:
    """Compute metrics of one thing, by name."""
    return {metric.name: metric.measure(scored) for metric in which}


def shown_metrics(present: Iterable[str]) -> list[Metric[Any]]:
    """Choose the columns of a table for readers, in order, of those metrics that are there."""
    there = set(present)
    return [metric for metric in METRICS.values() if metric.shown and metric.name in there]


def followed_metrics() -> list[Metric[Any]]:
    """Choose the metrics that a training logs at every validation."""
    return [metric for metric in METRICS.values() if metric.followed]


def mask_metrics(
    prediction: Any,
    truth: Any,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    surface: bool = True,
    nsd_tolerance_mm: float = 1.0,
    penalty_mm: float = PENALTY_MM,
) -> Scores:
    """Compute all voxel and surface metrics of one pair of masks.

    Args:
        prediction: (X, Y, Z) bool, an array or a tensor.
        truth: (X, Y, Z) bool.
        spacing_mm: voxel size.
        surface: whether HD95, NSD and ASSD are wanted, which take most of the time.
        nsd_tolerance_mm: distance that the normalised surface Dice forgives.
        penalty_mm: HD95 and ASSD where one of the masks is empty.

    Returns:
        The values of `OVERLAP` and, if wanted, of `SURFACE`; None where undefined.

    Raises:
        ValueError: shapes that differ, or a voxel size that is not three numbers above 0.

    Example:
        >>> import numpy as np
        >>> truth = np.zeros((8, 8, 8), bool)
        >>> truth[2:6, 2:6, 2:6] = True
        >>> scores = mask_metrics(np.roll(truth, 1, axis=0), truth, spacing_mm=(2, 1, 1))
        >>> scores["dice"], scores["hd95_mm"]
        (0.75, 2.0)
    """
    pair = mask_pair(prediction, truth, spacing_mm, nsd_tolerance_mm=nsd_tolerance_mm, penalty_mm=penalty_mm)
    return measured((*OVERLAP, *SURFACE) if surface else OVERLAP, pair)


def lesionwise_metrics(scores: Sequence[LesionScore]) -> Scores:
    """Compute the lesion-wise metrics of one case, or of one size class, if only its lesions are given.

    Args:
        scores: lesions, of `match_lesions`.

    Returns:
        The values of `LESIONS`; ``lesion_hd95_mm`` is None where distances were not asked for.
    """
    return measured(LESIONS, scores)
