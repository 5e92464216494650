"""Masks that are scored: the classes of a vocabulary, and unions of them such as whole tumour and tumour core."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthaug.classes import Classes, same_tissue

Regions = Mapping[str, Sequence[str]]

_GLIOMA = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}


def default_regions(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Choose the unions of classes that a vocabulary is usually scored by.

    Glioma vocabularies (NCR, ED, ET, or other names of these) have BraTS's whole tumour WT, tumour core TC and
    enhancing tumour ET; the resection cavity of BraTS 2024 is in none of them and is scored as a class. Other
    vocabularies of several classes have the union of all, ``"all"``; those of one class have none.
    """
    found = {name: same_tissue(name, classes.names) for name in _GLIOMA["WT"]}
    own = {name: known for name, known in found.items() if known is not None}
    if len(own) == len(found):
        return {region: tuple(own[name] for name in members) for region, members in _GLIOMA.items()}
    return {"all": classes.names} if len(classes) > 1 else {}


def checked_regions(
    regions: bool | Regions, per_class: bool, classes: Classes
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Check regions, and list name to kind (``"region"`` or ``"class"``) and label values, regions first.

    Raises:
        ValueError: an unknown class in a region, a region without one, a region that has the name of a class but is
            not that class, or nothing to score.
    """
    if isinstance(regions, bool):
        regions = default_regions(classes) if regions else {}
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, members in regions.items():
        if isinstance(members, str) or not members:
            raise ValueError(f"region {name}: expected class names such as ('NCR', 'ET'), got {members!r}")
        canonical = [classes.canonical(member) for member in members]
        if name in classes.names and canonical != [name]:
            raise ValueError(f"region {name}: it has the name of a class, but is {' + '.join(canonical)}")
        found[name] = ("region", tuple(classes.values[member] for member in canonical))
    if per_class:
        for name, value in classes.values.items():
            found.setdefault(name, ("class", (value,)))
    if not found:
        raise ValueError("evaluation: expected regions, per_class or both, got neither")
    return found


def checked_labels(name: str, labels: Any, classes: Classes) -> np.ndarray:
    """Check a label map, and bring it to the CPU as (X, Y, Z) integers.

    Raises:
        TypeError: not integers.
        ValueError: not three axes, or a value that is neither 0 nor of `classes`.
    """
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    labels = np.asarray(labels)
    if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name}: expected an integer label map, got {labels.dtype}")
    if labels.ndim != 3:
        raise ValueError(f"{name}: expected the shape (X, Y, Z), got {labels.shape}")
    if problem := classes.strange_values(labels):
        raise ValueError(f"{name}: {problem}")
    return labels
