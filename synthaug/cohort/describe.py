"""What a cohort says of itself: manifest, the layout's own description, folds, labels, and a summary with checksums."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.job import HIDDEN, to_bytes
from synthaug.cohort.layouts import PIPELINE, Layout
from synthaug.cohort.splits import LeakProof

BIDS_VERSION = "1.10.0"
SUMMARY = "cohort.json"
OWN_FILES = ("manifest.jsonl", "cases.jsonl", SUMMARY, "labels.csv", "splits_final.json", "report.html")


def description(
    config: CohortConfig,
    layout: Layout,
    provenance: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    splits: LeakProof | None,
) -> dict[str, bytes]:
    """All files of a cohort that are not of one case, by path; the summary comes last.

    Args:
        config: of the cohort.
        layout: of it.
        provenance: versions, generator, hash of the configuration.
        records: of all cases that are done, by index.
        splits: for the folds, or None.
    """
    written = [r for r in records if r["files"]]
    synthetic = [r for r in written if not r["real"]]
    rows = [row for record in synthetic for row in record["lesions"]]
    files = {
        "manifest.jsonl": _lines(rows),
        "cases.jsonl": _lines([{k: v for k, v in r.items() if k != "lesions"} for r in records]),
    }
    made = {"nnunet": _nnunet, "msd": _msd, "bids": _bids, "brats": _brats}[layout.name]
    files |= made(config, layout, provenance, written)
    if splits is not None:
        real_name = layout.real_name if config.include_real else str
        files["splits_final.json"] = _json(splits.with_cases(synthetic, real_name))
    if config.balance is not None:
        files["labels.csv"] = _table(LABEL_COLUMNS, [_label_row(record) for record in synthetic])
    return files | {SUMMARY: _json(_summary(config, provenance, records, files))}


def _summary(config: CohortConfig, provenance, records, files: Mapping[str, bytes]) -> dict[str, Any]:
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


# ------------------------------------------------------------------------------------------------ the layouts


def _nnunet(config: CohortConfig, layout: Layout, provenance, written) -> dict[str, bytes]:
    return {
        "dataset.json": _json(
            {
                **_about(config),
                "channel_names": {str(i): name for i, name in enumerate(layout.channels)},
                "labels": {"background": 0, **_by_value(layout)},
                "numTraining": len(written),
                "file_ending": ".nii.gz",
                "provenance": _provenance(provenance),
            }
        )
    }


def _msd(config: CohortConfig, layout: Layout, provenance, written) -> dict[str, bytes]:
    labels = {str(value): name for name, value in _by_value(layout).items()}
    pairs = [
        {"image": f"./{layout.image_paths(r['case'])[0]}", "label": f"./{layout.label_path(r['case'])}"}
        for r in written
    ]
    return {
        "dataset.json": _json(
            {
                **_about(config),
                "release": provenance["versions"]["synthaug"],
                "tensorImageSize": "4D" if len(layout.channels) > 1 else "3D",
                "modality": {str(i): name for i, name in enumerate(layout.channels)},
                "labels": {"0": "background", **labels},
                "numTraining": len(written),
                "numTest": 0,
                "training": pairs,
                "test": [],
                "provenance": _provenance(provenance),
            }
        )
    }


def _bids(config: CohortConfig, layout: Layout, provenance, written) -> dict[str, bytes]:
    about = config.about
    made_by = [
        {
            "Name": "synthaug",
            "Version": provenance["versions"]["synthaug"],
            "Description": f"tumours made by the generator {provenance['generator']['name']}",
        }
    ]
    common = {"BIDSVersion": BIDS_VERSION, "License": about.licence, "Authors": list(about.authors)}
    raw = {"Name": about.name, **common, "DatasetType": "raw", "GeneratedBy": made_by}
    masks = {"Name": f"{about.name}: tumour labels", **common, "DatasetType": "derivative", "GeneratedBy": made_by}
    participants = [(r["case"], "real" if r["real"] else "synthetic", r["host"], len(r["lesions"])) for r in written]
    columns = {
        "origin": {"Description": "a real case as it was, or one with synthetic tumours", "Levels": {
            "real": "as it was", "synthetic": "with synthetic tumours"}},
        "host": {"Description": "name of the case that the image comes from"},
        "lesions": {"Description": "number of synthetic lesions"},
    }  # fmt: skip
    classes = [(value, name) for name, value in _by_value(layout).items()]
    text = f"{about.description}.\n\nSource and licence: {about.licence}. Reference: {about.reference}.\n\n"
    text += "manifest.jsonl has one row for every synthetic lesion: host, donor, place, size, seed.\n"
    ignored = "".join(f"{name}\n" for name in (*OWN_FILES, f"{HIDDEN}/"))
    return {
        "dataset_description.json": _json(raw),
        "participants.tsv": _table(("participant_id", "origin", "host", "lesions"), participants, "\t"),
        "participants.json": _json(columns),
        "README": to_bytes(text),
        ".bidsignore": to_bytes(ignored),
        f"{PIPELINE}/dataset_description.json": _json(masks),
        f"{PIPELINE}/desc-tumour_dseg.tsv": _table(("index", "name"), [(0, "background"), *classes], "\t"),
    }


def _brats(config: CohortConfig, layout: Layout, provenance, written) -> dict[str, bytes]:
    about = {**config.about.model_dump(mode="json"), "channels": list(layout.channels), "labels": layout.label_values}
    return {"dataset.json": _json({**about, "cases": len(written), "provenance": _provenance(provenance)})}


def _about(config: CohortConfig) -> dict[str, str]:
    return config.about.model_dump(include={"name", "description", "reference", "licence"})


def _provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {**provenance, "manifest": "manifest.jsonl: one row for every synthetic lesion"}


def _by_value(layout: Layout) -> dict[str, int]:
    values = layout.label_values
    return {name: values[name] for name in sorted(values, key=values.get)}


# -------------------------------------------------------------------------------------------------- the rest

LABEL_COLUMNS = ("case", "label", "diameter_mm", "volume_ml", "dominant_class", "host", "host_group", "donor")


def _label_row(record: Mapping[str, Any]) -> tuple:
    (lesion,) = record["lesions"]
    dominant = max(lesion["voxels"], key=lesion["voxels"].get)
    sizes = (lesion["diameter_mm"], lesion["volume_ml"])
    return record["case"], record["kind"], *sizes, dominant, record["host"], record["host_group"], lesion["donor"]


def _json(value: Any) -> bytes:
    return to_bytes(json.dumps(value, indent=2, allow_nan=False))


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode("utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], separator: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")
