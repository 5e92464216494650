"""Scores of one case: flat rows, one for each class and region, and one for each of their size classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthaug.classes import Classes, get_classes
from synthaug.evaluation.lesionwise import LesionScore, Lesionwise, match_lesions
from synthaug.evaluation.masks import PENALTY_MM, MaskPair, checked_spacing
from synthaug.evaluation.regions import Regions, checked_labels, checked_regions
from synthaug.evaluation.registry import LESIONS, OVERLAP, SURFACE, VOLUMES, Scores, measured


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
        label: (X, Y, Z) integer label map, the truth.
        classes: vocabulary of both maps.
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
        ``"class"``) and the metrics of `synthaug.evaluation.registry`; with `lesionwise` a row with those of lesions
        follows for each size class. Undefined values are None.

    Raises:
        TypeError: a label map that is not of integers.
        ValueError: shapes, label values, regions or a voxel size that do not fit.

    Example:
        >>> import numpy as np
        >>> label = np.zeros((32, 32, 32), np.int16)
        >>> label[8:20, 8:20, 8:20], label[12:16, 12:16, 12:16] = 2, 4  # oedema around enhancing tumour
        >>> prediction = np.where(label == 4, 1, label)  # taken for necrosis
        >>> rows = evaluate_case(prediction, label, "BRATS18", spacing_mm=(1, 1, 1), case="a", surface=False)
        >>> {row["region"]: row["dice"] for row in rows if row["size"] == "all"}
        {'WT': 1.0, 'TC': 1.0, 'ET': 0.0, 'NCR': 0.0, 'ED': 1.0}
    """
    vocabulary, spacing = get_classes(classes), checked_spacing(spacing_mm)
    masks = checked_regions(regions, per_class, vocabulary)
    found, truth = (checked_labels(n, x, vocabulary) for n, x in (("prediction", prediction), ("label", label)))
    if found.shape != truth.shape:
        raise ValueError(f"expected a prediction of the label's shape {truth.shape}, got {found.shape}")
    options = (Lesionwise() if lesionwise else None) if isinstance(lesionwise, bool) else lesionwise
    wanted = (*OVERLAP, *(SURFACE if surface else ()), *VOLUMES)
    penalty = PENALTY_MM if options is None else options.penalty_mm
    rows: list[dict[str, Any]] = []
    for name, (kind, values) in masks.items():
        pair = MaskPair(np.isin(found, values), np.isin(truth, values), spacing, nsd_tolerance_mm, penalty)
        head = {"case": case, "group": case if group is None else group, "region": name, "kind": kind}
        rows.append(head | {"size": "all"} | measured(wanted, pair))
        if options is not None:
            lesions = match_lesions(pair.prediction, pair.truth, spacing, options, surface)
            rows[-1] |= measured(LESIONS, lesions)
            rows += [head | {"size": size} | _of_size(lesions, size) for size in options.sizes.names]
    return rows


def _of_size(lesions: Sequence[LesionScore], size: str) -> Scores:
    """Compute the figures of one size class; of a class without lesions, counts are 0 and all else is undefined."""
    mine = [lesion for lesion in lesions if lesion.size == size]
    return {m.name: m.measure(mine) if mine or m.count else None for m in LESIONS if m.by_size}
