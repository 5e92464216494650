"""Descriptions, line by line for the terminal, of a cohort, of one of its cases, and of a case of any folder."""

from collections.abc import Mapping

import nibabel as nib
import numpy as np

from synthaug.classes import FEW_VALUES, Classes
from synthaug.cohort.verification import Findings
from synthaug.data.cases import Case, load_stored


def describe_cohort(found: Findings) -> list[str]:
    """Describe a whole cohort in lines."""
    summary, lesions = found.summary, found.lesions
    lines = [
        f"{summary['written']} of {summary['asked']} synthetic cases in the layout {summary['layout']}, "
        f"{lesions.count} of {summary['lesions_asked']} lesions, {summary['real']} real cases beside",
        f"generator {summary['generator']['name']}, sha256 of its weights {summary['generator']['sha256'] or 'none'}",
        f"configuration {summary['config_sha256'][:12]}, "
        + ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
    ]
    if lesions.count:
        sizes = lesions.diameters_mm
        lines.append(f"diameters {min(sizes):.1f} to {max(sizes):.1f} mm, median {lesions.median_mm:.1f} mm")
        lines.append("tumour in all: " + ", ".join(f"{name} {ml:.1f} ml" for name, ml in lesions.class_ml.items()))
    lines += [f"refused attempts, {reason}: {n}" for reason, n in summary["refused"].items()]
    return lines + verdict(found)


def describe_case(found: Findings) -> list[str]:
    """Describe the one case of a cohort that was asked for, in lines."""
    record = found.record
    host = f"{'the real case' if record['real'] else 'host'} {record['host']}, patient {record['host_group']}"
    lines = [f"{record['case']}: {host}"]
    for row in found.rows:
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
    """List what is not as the manifest says, in lines."""
    lines = []
    for word in ("missing", "extra", "altered"):
        lines += [f"{word}: {path}" for path in getattr(found, word)]
    return lines or [f"all {found.checked} files are as the manifest says"]


def describe_files(case: Case, classes: Classes | None) -> list[str]:
    """Lines about a case of any folder, as its files have it; without classes label values have no names.

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


def _label_lines(label: np.ndarray | None, classes: Classes | None, voxel_ml: float) -> list[str]:
    if label is None:
        return ["  no label"]
    values, counts = np.unique(label[label != 0], return_counts=True)
    names: Mapping[int, str] = {} if classes is None else {value: name for name, value in classes.values.items()}
    if not len(values):
        return ["  label: empty"]
    if len(values) > FEW_VALUES:
        return [f"  label: {len(values)} values from {values.min()} to {values.max()}; is it an image?"]
    of = "" if classes is None else " (of no class)"
    parts = [
        f"{v}{f' ({names[int(v)]})' if int(v) in names else of} {n * voxel_ml:.2f} ml"
        for v, n in zip(values, counts, strict=True)
    ]
    return [f"  label: {', '.join(parts)}"]
