"""The JSON-able rows of an `InsertionPlan`: written, checked and read again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from synthaug.insertion.asked import Insertion, Outcome
from synthaug.sizes import equivalent_diameter_mm

if TYPE_CHECKING:
    from synthaug.insertion.plan import InsertionPlan

ROW_VERSION = 5
"""Rows of version 1 can be read; they do not say what the host tissue was like, which is then not compared. Those of
versions 1 and 2 do not say by which rule the place was chosen, which was any place clear of lesions; before version 4
no contrast was changed, and none of the host's own lesions; before version 5 nothing was smoothed or pushed, and no
look asked for."""

_SINCE = {
    "tissue": 2,
    "place": 3,
    "gain": 4,
    "shift": 4,
    "other_side": 4,
    "smooth_mm": 5,
    "mass_effect_mm": 5,
    "look": 5,
}
"""Fields that rows have from a version on."""

HostStats = tuple[list[list[float]], list[list[float]]]
"""Mean and standard deviation of host tissue, (B, C) each."""

TISSUE = ("mean", "std", "floor")
TUPLES = ("spacing_mm", "axes", "flips", "angles_deg", "crop_vox")
"""Fields of `Insertion` that are lists in JSON."""

TABLES = ("gain", "shift", "other_side")
"""Those that are lists of lists."""

_FIELDS = (
    *(f.name for f in fields(Insertion) if f.name not in ("refused", *_SINCE)),
    *("center_vox", "outcome", "voxels", "volume_vox", "host_given", "host_stats", "version"),
)


def row_of(
    plan: "InsertionPlan",
    insertion: Insertion,
    center: list[int],
    code: int,
    voxels: list[int],
    tissue: list[list[float]] | None,
) -> dict[str, Any]:
    """Write one row.

    Args:
        plan: the whole plan.
        insertion: the row's part that the host decided.
        center: (3,) voxel of the lesion's centre.
        code: value of the `Outcome`.
        voxels: (K,) written per class.
        tissue: (3, C) mean, standard deviation and lowest intensity of host tissue, or None where it is not known.
    """
    row = asdict(insertion)
    row.pop("refused")
    for name in TUPLES:
        row[name] = None if row[name] is None else list(row[name])
    for name in TABLES:
        row[name] = None if row[name] is None else [list(values) for values in row[name]]
    row["swaps"] = dict(insertion.swaps)
    stats = None
    if plan.host_stats is not None:
        stats = {key: plan.host_stats[i][insertion.sample] for i, key in enumerate(("mean", "std"))}
    outcome = Outcome(code)
    return row | {
        "center_vox": center,
        "outcome": outcome.name.lower(),
        "reason": outcome.reason,
        "voxels": dict(zip(plan.classes, voxels, strict=True)),
        "diameter_mm": equivalent_diameter_mm(sum(voxels), insertion.spacing_mm),
        "volume_vox": list(plan.volume_vox),
        "host_given": plan.host_given,
        "host_stats": stats,
        # without a crop it was refused before the batch was looked at
        "tissue": None if insertion.crop_vox is None else _tissue_row(tissue),
        "version": ROW_VERSION if plan.tissue is not None else 1,
    }


def _tissue_row(tissue: list[list[float]] | None) -> dict[str, list[float | None]] | None:
    """Write the host tissue; JSON knows no infinity, so a sample without tissue has the floor None."""
    if tissue is None:
        return None
    finite = [[value if math.isfinite(value) else None for value in values] for values in tissue]
    return dict(zip(TISSUE, finite, strict=True))


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Check that rows are those of one plan.

    Raises:
        ValueError: a row of another version, without one of its fields, or of another batch than the first.
    """
    for i, row in enumerate(rows):
        missing = [name for name in _FIELDS if name not in row]
        if missing:
            raise ValueError(f"row {i} of an insertion plan lacks {', '.join(missing)}")
        if row["version"] not in range(1, ROW_VERSION + 1):
            raise ValueError(f"row {i}: expected version 1 to {ROW_VERSION}, got {row['version']!r}")
        if absent := [name for name, since in _SINCE.items() if row["version"] >= since and name not in row]:
            raise ValueError(f"row {i} of an insertion plan lacks {', '.join(absent)}")
        for name in ("volume_vox", "host_given", "version"):
            if row[name] != rows[0][name]:
                raise ValueError(f"row {i}: {name} is {row[name]}, but {rows[0][name]} in row 0: not one batch")


def insertion_of(row: Mapping[str, Any]) -> Insertion:
    """Read the host's part of a row."""
    values = {f.name: row[f.name] for f in fields(Insertion) if f.name in row}
    for name in TUPLES:
        values[name] = None if values[name] is None else tuple(values[name])
    for name in TABLES:
        table = values.get(name)
        values[name] = None if table is None else tuple(tuple(numbers) for numbers in table)
    outcome = outcome_of(row)
    return Insertion(**values, refused=None if outcome is Outcome.DONE else outcome)


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """Read the outcome of a row."""
    return Outcome[row["outcome"].upper()]


def host_stats_of(rows: Sequence[Mapping[str, Any]]) -> HostStats | None:
    """Read the statistics that the caller gave, of each sample up to the last that has a row; None where none were."""
    if not rows or rows[0]["host_stats"] is None:
        return None
    by_sample = {row["sample"]: row["host_stats"] for row in rows}
    width = len(rows[0]["host_stats"]["mean"])
    blank = {"mean": [0.0] * width, "std": [1.0] * width}
    mean, std = ([by_sample.get(s, blank)[key] for s in range(1 + max(by_sample))] for key in ("mean", "std"))
    return mean, std


def tissue_of(rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """Read the host tissue of rows, (N, 3, C) float32; None where rows of version 1 do not say."""
    if any(row["version"] == 1 for row in rows):
        return None
    width = next((len(row["tissue"]["mean"]) for row in rows if row["tissue"]), 0)
    blank = {name: [0.0] * width for name in TISSUE}
    tissue = [[(row["tissue"] or blank)[name] for name in TISSUE] for row in rows]
    filled = [[[-math.inf if value is None else value for value in values] for values in one] for one in tissue]
    return torch.tensor(filled, dtype=torch.float32).reshape(len(rows), len(TISSUE), width)
