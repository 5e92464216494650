"""One case scored: flat rows, one for each class and region, and one for each of their size classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthaug.classes import Classes, get_classes
from synthaug.evaluation.lesionwise import Lesionwise, lesionwise_metrics, match_lesions
from synthaug.evaluation.metrics import checked_spacing, mask_metrics
from synthaug.evaluation.regions import Regions, checked_labels, checked_regions

BY_SIZE = ("lesions", "lesions_found", "lesion_recall", "lesion_dice", "false_positives")
"""Figures of the rows of single size classes."""


def evaluate_case(
    prediction: Any,
    label: Any,
    classes: Classes | str | Mapping[str, int],
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    case: str = "",
    group: str | None = None,
    regions: bool | Regions = True,
    per_class: bool = True,
    surface: bool = True,
    lesionwise: bool | Lesionwise = True,
    nsd_tolerance_mm: float = 1.0,
) -> list[dict[str, Any]]:
    """Score a predicted label map against the true one.

    Args:
        prediction: (X, Y, Z) integer label map, an array or a tensor.
        label: likewise.
        classes: vocabulary of both.
        spacing_mm: voxel size.
        case: name for the rows.
        group: patient, the case where not given; `summarise` resamples patients.
        regions: True for `default_regions`, False for none, or name to class names.
        per_class: whether the single classes are scored too; one that is a region of that name is scored once.
        surface: whether surface distances are wanted, which take most of the time.
        lesionwise: whether, or how, lesion-wise metrics are wanted.
        nsd_tolerance_mm: distance that the normalised surface Dice forgives.

    Returns:
        JSON-able rows. Those of ``size`` ``"all"`` have ``case``, ``group``, ``region``, ``kind`` (``"region"`` or
        ``"class"``), the metrics of `mask_metrics` and `lesionwise_metrics`, ``truth_ml`` and ``predicted_ml``; with
        `lesionwise` a row with `BY_SIZE` follows for each size class. Undefined values are None.

    Raises:
        TypeError: a label map that is not of integers.
        ValueError: shapes, label values, regions or a voxel size that do not fit.
    """
    vocabulary, spacing = get_classes(classes), checked_spacing(spacing_mm)
    masks = checked_regions(regions, per_class, vocabulary)
    found, truth = (checked_labels(n, x, vocabulary) for n, x in (("prediction", prediction), ("label", label)))
    if found.shape != truth.shape:
        raise ValueError(f"expected a prediction of the label's shape {truth.shape}, got {found.shape}")
    options = (Lesionwise() if lesionwise else None) if isinstance(lesionwise, bool) else lesionwise
    millilitre = float(np.prod(spacing)) / 1000
    rows = []
    for name, (kind, values) in masks.items():
        pair = np.isin(found, values), np.isin(truth, values)
        head = {"case": case, "group": case if group is None else group, "region": name, "kind": kind}
        penalty = {} if options is None else {"penalty_mm": options.penalty_mm}
        scores = mask_metrics(*pair, spacing, surface, nsd_tolerance_mm, **penalty)
        volumes = {"truth_ml": float(pair[1].sum() * millilitre), "predicted_ml": float(pair[0].sum() * millilitre)}
        rows.append(head | {"size": "all"} | scores | volumes)
        if options is not None:
            lesions = match_lesions(*pair, spacing, options, surface)
            rows[-1] |= lesionwise_metrics(lesions)
            for size in options.sizes.names:
                figures = lesionwise_metrics([s for s in lesions if s.size == size])
                if not figures["lesions"] and not figures["false_positives"]:
                    figures["lesion_dice"] = None
                rows.append(head | {"size": size} | {key: figures[key] for key in BY_SIZE})
    return rows
