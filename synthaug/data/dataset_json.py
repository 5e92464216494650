"""What dataset.json says of labels: nnU-Net's names and regions, and the Medical Segmentation Decathlon's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def label_names(labels: Mapping[str, Any]) -> dict[str, int]:
    """List the names of the single label values, without background and ignore, in the order of the values.

    Where labels are regions, a value is called after the smallest region that holds it: in ``{"whole tumor": [1, 2, 3],
    "tumor core": [2, 3], "enhancing tumor": 3}`` 1 is ``"whole tumor"``, 2 ``"tumor core"``. Where several values share
    their smallest region, the value is added to the name.

    Example:
        >>> label_names({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3})
        {'whole': 1, 'core': 2}
    """
    regions = {k: v if isinstance(v, (list, tuple)) else [v] for k, v in labels.items() if k != "ignore"}
    values = sorted({int(v) for members in regions.values() for v in members} - {0})
    smallest = {v: min((k for k in regions if v in regions[k]), key=lambda k: len(regions[k])) for v in values}
    names = list(smallest.values())
    return {name if names.count(name) == 1 else f"{name} {value}": value for value, name in smallest.items()}


def region_names(labels: Mapping[str, Any]) -> dict[str, tuple[str, ...]] | None:
    """List regions of several values, each as the names of `label_names`; None where there is none."""
    names = {value: name for name, value in label_names(labels).items()}
    found = {
        region: tuple(names[int(v)] for v in members)
        for region, members in labels.items()
        if isinstance(members, (list, tuple)) and region != "ignore"
    }
    return found if any(len(members) > 1 for members in found.values()) else None


def listed_labels(folder: Path) -> dict[str, Any] | None:
    """Read the labels of a folder's dataset.json, name to value or values; None where there are none.

    Raises:
        ValueError: the file is no JSON, or the labels are no names and integers.
    """
    file = folder / "dataset.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        labels = content.get("labels")
        if labels is None:
            return None
        if all(str(key).isdigit() for key in labels):  # of the Decathlon: value to name
            labels = {name: int(value) for value, name in labels.items()}
        return {str(k): [int(i) for i in v] if isinstance(v, list) else int(v) for k, v in labels.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file}: expected labels as names and integers: {error}") from error
