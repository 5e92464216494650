"""Files that describe a cohort: manifest, the layout's own description, folds, labels, summary with checksums."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.encoding import json_bytes, json_line_bytes, table_bytes
from synthaug.cohort.job import SUMMARY
from synthaug.cohort.layouts import Layout
from synthaug.cohort.splits import LeakProof

LABEL_COLUMNS = ("case", "label", "diameter_mm", "volume_ml", "dominant_class", "host", "host_group", "donor")


def description(
    config: CohortConfig,
    layout: Layout,
    provenance: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    splits: LeakProof | None,
) -> dict[str, bytes]:
    """Write all files of a cohort that are not of one case, as bytes by path; the summary comes last.

    Args:
        config: the cohort's configuration.
        layout: the layout that it is written in.
        provenance: versions, generator, hash of the configuration.
        records: one per case that is done, by index.
        splits: folds that the cases join, or None.
    """
    written = [r for r in records if r["files"]]
    synthetic = [r for r in written if not r["real"]]
    rows = [row for record in synthetic for row in record["lesions"]]
    files = {
        "manifest.jsonl": json_line_bytes(rows),
        "cases.jsonl": json_line_bytes([{k: v for k, v in r.items() if k != "lesions"} for r in records]),
    }
    files |= layout.description(provenance, written)
    if splits is not None:
        real_name = layout.real_name if config.include_real else str
        files["splits_final.json"] = json_bytes(splits.with_cases(synthetic, real_name))
    if config.balance is not None:
        files["labels.csv"] = table_bytes(LABEL_COLUMNS, [_label_row(record) for record in synthetic])
    return files | {SUMMARY: json_bytes(_summary(config, provenance, records, files))}


def _summary(
    config: CohortConfig,
    provenance: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    files: Mapping[str, bytes],
) -> dict[str, Any]:
    synthetic = [r for r in records if not r["real"]]
    return {
        "layout": config.layout,
        "asked": config.total,
        "written": sum(bool(r["files"]) for r in synthetic),
        "real": sum(r["real"] for r in records),
        "lesions_asked": sum(r["asked"] for r in synthetic),
        "lesions": sum(len(r["lesions"]) for r in synthetic),
        "refused": dict(sorted(Counter(a["reason"] for r in synthetic for a in r["refused"]).items())),
        **provenance,
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
    }


def _label_row(record: Mapping[str, Any]) -> tuple:
    (lesion,) = record["lesions"]
    dominant = max(lesion["voxels"], key=lesion["voxels"].get)
    sizes = (lesion["diameter_mm"], lesion["volume_ml"])
    return record["case"], record["kind"], *sizes, dominant, record["host"], record["host_group"], lesion["donor"]
