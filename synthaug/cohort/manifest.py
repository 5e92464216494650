"""Records of cases and rows of the manifest: each lesion's donor, host, place, and how to make it again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.case_insertion import InsertedCase, InsertedLesion
from synthaug.cohort.hosts import Host


def case_record(
    index: int,
    name: str,
    kind: str | None,
    host: Host,
    inserted: InsertedCase | None,
    files: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
    classes: Classes,
) -> dict[str, Any]:
    """Make the record of a case, JSON-able; a function of the case alone.

    Args:
        index: number of the case.
        name: name of the case.
        kind: kind of the case in a balanced set, or None.
        host: host that it was made from.
        inserted: its lesions, or None for a real case as it is.
        files: path to sha256 and size in bytes; empty where no lesion could be put in.
        provenance: entries of every row.
        classes: vocabulary of the labels.
    """
    lesions = [] if inserted is None else inserted.lesions
    rows = [_row(i, name, index, host, lesion, provenance, classes) for i, lesion in enumerate(lesions)]
    return {
        "index": index,
        "case": name,
        "real": inserted is None,
        "kind": kind,
        "host": host.case.name,
        "host_group": host.case.group,
        "asked": 0 if inserted is None else inserted.asked,
        "refused": [] if inserted is None else inserted.refused,
        "lesions": rows,
        "files": dict(files),
    }


def _row(
    number: int,
    name: str,
    index: int,
    host: Host,
    lesion: InsertedLesion,
    provenance: Mapping[str, Any],
    classes: Classes,
) -> dict[str, Any]:
    row, spacing = lesion.row, host.spacing_mm
    center = [c + s.start for c, s in zip(row["center_vox"], host.box, strict=True)]
    voxel_ml = float(np.prod(spacing)) / 1000
    return {
        "case": name,
        "index": index,
        "lesion": number,
        "host": host.case.name,
        "host_group": host.case.group,
        "donor": row["lesion"],
        "donor_case": None if row["donor_group"] is None else row["lesion"].rsplit("/", 1)[0],
        "donor_group": row["donor_group"],
        "swaps": row["swaps"],
        "center_vox": center,
        "center_mm": [round(float(v), 3) for v in host.stored.volume.affine @ [*center, 1.0]][:3],
        "extent_mm": [round(n * s, 3) for n, s in zip(lesion.extent_vox, spacing, strict=True)],
        "diameter_mm": round(row["diameter_mm"], 3),
        "volume_ml": round(sum(row["voxels"].values()) * voxel_ml, 6),
        "voxels": {c: row["voxels"][c] for c in classes.names},
        "class_ml": {c: round(row["voxels"][c] * voxel_ml, 6) for c in classes.names},
        "attempt": lesion.attempt,
        "quality": lesion.quality,
        "box": [[s.start, s.stop] for s in host.box],
        "plan": row,
        **provenance,
    }
