"""What is in a folder: a cohort and whether it is as its manifest says, or any cases."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.describe import SUMMARY
from synthaug.cohort.job import HIDDEN
from synthaug.data.cases import Case, load_stored
from synthaug.files import file_sha256

NOT_LISTED = (HIDDEN, SUMMARY, "report.html")


@dataclass(frozen=True)
class Findings:
    """A cohort beside its manifest.

    Attributes:
        summary: the content of ``cohort.json``.
        cases: case name to its record.
        lesions: case name to its rows of the manifest.
        checked: number of files whose checksum was taken.
        missing: files that should be there.
        extra: files that should not.
        altered: files with another checksum.
    """

    summary: dict[str, Any]
    cases: dict[str, dict[str, Any]]
    lesions: dict[str, list[dict[str, Any]]]
    checked: int
    missing: list[str]
    extra: list[str]
    altered: list[str]

    @property
    def sound(self) -> bool:
        """Whether every file is as the manifest says."""
        return not (self.missing or self.extra or self.altered)


def is_cohort(folder: Path) -> bool:
    """Whether a folder is one of `synthaug.cohort.generate`, finished or not."""
    return (folder / SUMMARY).is_file() or (folder / HIDDEN).is_dir()


def verify(folder: Path, only: str | None = None) -> Findings:
    """Compare a cohort with its manifest, by checksums of all files.

    Args:
        folder: the cohort's.
        only: a case, where only its files are wanted.

    Raises:
        ValueError: the cohort is not finished, or its summary or manifest is damaged, or it has no such case.
    """
    if not (folder / SUMMARY).is_file():
        done = len(list((folder / HIDDEN / "records").glob("*.json")))
        raise ValueError(f"{folder}: a cohort that is not finished, {done} cases are done; the same command goes on")
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        cases = {record["case"]: record for record in _rows(folder / "cases.jsonl")}
        lesions: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
        for row in _rows(folder / "manifest.jsonl"):
            lesions.setdefault(row["case"], []).append(row)
        own = summary["files"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{folder}: its manifest is damaged or missing: {error}") from error
    if only is not None and only not in cases:
        raise ValueError(
            f"{folder}: no case is called {only!r}; there are {len(cases)}, such as {next(iter(cases), '')}"
        )
    expected = {
        path: f["sha256"] for r in cases.values() for path, f in r["files"].items() if only in (None, r["case"])
    }
    if only is None:
        expected |= own
    there = {path: folder / path for path in expected if (folder / path).is_file()}
    altered = sorted(path for path, file in there.items() if file_sha256(file) != expected[path])
    extra = [] if only is not None else sorted(set(_files(folder)) - set(expected))
    missing = sorted(set(expected) - set(there))
    return Findings(summary, cases, lesions, len(there), missing, extra, altered)


def describe_cohort(found: Findings) -> list[str]:
    """Lines about a whole cohort."""
    summary, rows = found.summary, [row for rows in found.lesions.values() for row in rows]
    lines = [
        f"{summary['written']} of {summary['asked']} synthetic cases in the layout {summary['layout']}, "
        f"{len(rows)} of {summary['lesions_asked']} lesions, {summary['real']} real cases beside",
        f"generator {summary['generator']['name']}, sha256 of its weights {summary['generator']['sha256'] or 'none'}",
        f"configuration {summary['config_sha256'][:12]}, "
        + ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
    ]
    if rows:
        sizes = np.array([row["diameter_mm"] for row in rows])
        totals = {name: sum(row["class_ml"][name] for row in rows) for name in rows[0]["class_ml"]}
        lines.append(f"diameters {sizes.min():.1f} to {sizes.max():.1f} mm, median {np.median(sizes):.1f} mm")
        lines.append("tumour in all: " + ", ".join(f"{name} {ml:.1f} ml" for name, ml in totals.items()))
    lines += [f"refused attempts, {reason}: {n}" for reason, n in summary["refused"].items()]
    return lines + verdict(found)


def describe_case(found: Findings, name: str) -> list[str]:
    """Lines about one case of a cohort."""
    record = found.cases[name]
    lines = [
        f"{name}: {'the real case' if record['real'] else 'host'} {record['host']}, patient {record['host_group']}"
    ]
    for row in found.lesions[name]:
        classes = ", ".join(f"{c} {ml:.2f} ml" for c, ml in row["class_ml"].items())
        swaps = "".join(f", {a} became {b}" for a, b in row["swaps"].items())
        lines.append(
            f"lesion {row['lesion']}: {row['diameter_mm']:.1f} mm at voxel {row['center_vox']}, {classes}; donor "
            f"{row['donor']}{swaps}, scale {row['plan']['scale']:.2f}, attempt {row['attempt'] + 1}"
        )
        lines += [f"  quality: {', '.join(f'{k} {v}' for k, v in row['quality'].items())}"] if row["quality"] else []
    lines += [f"{path}" for path in record["files"]]
    return lines + verdict(found)


def verdict(found: Findings) -> list[str]:
    """Lines about what is not as the manifest says."""
    lines = []
    for word in ("missing", "extra", "altered"):
        lines += [f"{word}: {path}" for path in getattr(found, word)]
    return lines or [f"all {found.checked} files are as the manifest says"]


def describe_files(case: Case, classes: Classes) -> list[str]:
    """Lines about a case of any folder, as its files have it.

    Raises:
        CaseError: what `load_case` raises.
    """
    stored = load_stored(case, tuple(case.images), require_label=False)
    volume = stored.volume
    shape = " x ".join(str(n) for n in volume.image.shape[1:])
    size = " x ".join(f"{s:g}" for s in volume.spacing_mm)
    axes = "".join(nib.aff2axcodes(volume.affine))
    lines = [f"{case.name}: patient {case.group}, {shape} voxels of {size} mm, axes {axes}"]
    for (channel, path), values in zip(case.images.items(), volume.image, strict=True):
        levels = ", ".join(f"{v:g}" for v in np.percentile(values, (0, 50, 99, 100)))
        lines.append(f"  {channel}: {path.name}, {stored.files[path].raw.dtype}, min, median, 99 %, max: {levels}")
    return lines + _label_lines(volume.label, classes, float(np.prod(volume.spacing_mm)) / 1000)


def _label_lines(label: np.ndarray | None, classes: Classes, voxel_ml: float) -> list[str]:
    if label is None:
        return ["  no label"]
    values, counts = np.unique(label[label != 0], return_counts=True)
    names: Mapping[int, str] = {value: name for name, value in classes.values.items()}
    if not len(values):
        return ["  label: empty"]
    parts = [
        f"{v} ({names.get(int(v), 'of no class')}) {n * voxel_ml:.2f} ml" for v, n in zip(values, counts, strict=True)
    ]
    return [f"  label: {', '.join(parts)}"]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] not in NOT_LISTED:
            yield relative.as_posix()
