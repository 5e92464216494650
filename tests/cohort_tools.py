"""A small cohort of phantoms, and comparisons, for the tests of cohorts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from synthaug.cohort import CohortConfig, production
from synthaug.data.cases import find_cases
from synthaug.data.nifti import read_stored, volumes_first

NNUNET_VALUES = {0: 0, 1: 1, 2: 2, 4: 3}


def cohort_config(cases: Path, bank: Path | None, **changes: Any) -> CohortConfig:
    """Four small cases with paste, unless told otherwise."""
    lesions = {"scale": (0.4, 0.6), "min_voxels": 8, **changes.pop("lesions", {})}
    if bank is not None:
        lesions["bank"] = bank
    values = {"cases": cases, "count": 4, "layout": "brats", "seed": 3, "lesions": lesions, **changes}
    return CohortConfig(**values)


def tiny_config(hosts: Path, **changes: Any) -> CohortConfig:
    """Four cases of 40^3 voxels with procedural lesions, unless told otherwise."""
    shapes = {"shapes": {"diameter_mm": (6, 9)}, "scale": None}
    return cohort_config(hosts, None, lesions=shapes, classes="BRATS18", **changes)


def manifest(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "cases.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a cohort but its report, which is drawn anew."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.html")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def assert_exact_outside(out: Path, hosts: Path, values: dict[int, int] | None = None) -> int:
    """Every stored voxel outside the manifest's lesions is the host's, with dtype, affine and header; lesions' number.

    `values` says how the layout writes the hosts' label values.
    """
    host_of, case_of = ({c.name: c for c in find_cases(folder)} for folder in (hosts, out))
    rows = manifest(out)
    for record in records(out):
        case, host = case_of[record["case"]], host_of[record["host"]]
        old, new = read_stored("old", host.label, 1), read_stored("new", case.label, 1)
        expected = old.raw if values is None else np.vectorize(values.get)(old.raw).astype(old.raw.dtype)
        lesion = new.raw != expected
        assert new.raw.dtype == old.raw.dtype and new.header.binaryblock == old.header.binaryblock
        assert int(lesion.sum()) == sum(sum(r["voxels"].values()) for r in rows if r["case"] == record["case"])
        for channel, path in case.images.items():
            names = [name for name, other in case.images.items() if other == path]
            made = read_stored("new", path, len(names))
            raw = volumes_first(made.raw)[names.index(channel)]
            before = read_stored("old", host.images[channel], 1)
            assert raw.dtype == before.raw.dtype and np.array_equal(made.affine, before.affine)
            assert np.array_equal(raw[~lesion], before.raw[~lesion])
            assert not lesion.any() or (raw[lesion] != before.raw[lesion]).mean() > 0.5
            assert made.raw.ndim == 4 or made.header.binaryblock == before.header.binaryblock
    return len(rows)


def plain_reports(request, monkeypatch) -> None:
    """A fixture: drawing takes longer than small cohorts; tests with the report in their names have it drawn."""
    if "report" not in request.node.name:
        monkeypatch.setattr(production, "write_cohort_report", lambda store, *_: store.write("r", {"report.html": b""}))
