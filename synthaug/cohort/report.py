"""The cohort's report: one HTML page of counts, histograms beside the bank's, refusals and pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.config import CohortConfig
from synthaug.cohort.layouts import Layout
from synthaug.figures.html import gallery, image, legend, page, pairs, picture_row, section, table, tiles
from synthaug.figures.slices import Outline, axial, class_colours, extent, figure, grey, outlined, png, rendered
from synthaug.files import replace_file
from synthaug.insertion.plan import equivalent_diameter_mm
from synthaug.lesions.bank import LesionBank

GALLERY_CASES = 12
LONG_SIDE_PX = 260
VIEWS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
"""Axes of a volume to the right, to the front and up that become (across, up, slice)."""

Records = Sequence[Mapping[str, Any]]


def write_cohort_report(
    out: Path,
    config: CohortConfig,
    layout: Layout,
    provenance: Mapping[str, Any],
    records: Records,
    bank: LesionBank | None,
) -> None:
    """Write ``report.html`` into a cohort's folder.

    Args:
        out: the folder, with the cases that the records name.
        config: of the cohort.
        layout: of it.
        provenance: versions, generator, hash of the configuration.
        records: of all cases that are done.
        bank: whose lesions are shown beside, or None.
    """
    synthetic = [r for r in records if not r["real"]]
    rows = [row for r in synthetic for row in r["lesions"]]
    generator = provenance["generator"]["name"]
    parts = [
        f"<h1>{escape(config.about.name)}: a cohort of synthetic tumours</h1>\n"
        f'<p class="lead">{escape(config.about.description)}. Layout {escape(config.layout)}, generator '
        f"{escape(generator)}, seed {config.seed}. Every voxel outside a lesion is the host's.</p>",
        _tiles(config, synthetic, rows),
    ]
    if rows:
        parts += [_histograms(config, rows, bank), _gallery(out, layout, config.vocabulary, synthetic)]
    parts += [_refusals(synthetic), _sources(records)]
    about = "".join(f", {name} {version}" for name, version in provenance["versions"].items())
    footer = f"configuration {provenance['config_sha256'][:12]}{escape(about)}"
    replace_file(out / "report.html", page(f"{config.about.name}: cohort", "\n".join(parts), footer))


def _tiles(config: CohortConfig, synthetic: Records, rows: Records) -> str:
    written = [r for r in synthetic if r["files"]]
    hosts, donors = {r["host_group"] for r in written}, {r["donor_group"] for r in rows} - {None}
    return tiles(
        (
            (f"{len(written)} of {config.total}", "cases written"),
            (f"{len(rows)}", "lesions"),
            (f"{sum(row['volume_ml'] for row in rows):,.0f} ml", "of tumour"),
            (f"{len(hosts)}", "host patients"),
            (f"{len(donors)}", "donor patients"),
        )
    )


def _histograms(config: CohortConfig, rows: Records, bank: LesionBank | None) -> str:
    classes = config.vocabulary
    drawing, canvas = figure(9.6, 3.2, 150)
    left, right = drawing.add_axes((0.09, 0.17, 0.38, 0.74)), drawing.add_axes((0.57, 0.17, 0.42, 0.74))
    sets = {"cohort": ("#1f5fa8", [r["diameter_mm"] for r in rows], _shares([r["voxels"] for r in rows], classes))}
    if bank is not None:
        sizes = [equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm) for lesion in bank]
        names = [classes.canonical(c) for c in bank.classes]
        counts = [dict(zip(names, lesion.voxels, strict=True)) for lesion in bank]
        sets["bank"] = ("#d2521c", sizes, _shares(counts, classes))
    edges = np.linspace(0, max(max(sizes) for _, sizes, _ in sets.values()) * 1.02, 25)
    for i, (name, (colour, sizes, shares)) in enumerate(sets.items()):
        weights = np.full(len(sizes), 1 / len(sizes))
        left.hist(sizes, edges, weights=weights, color=colour, alpha=0.55, label=f"{name} ({len(sizes)})")
        place = np.arange(len(classes)) + (i - (len(sets) - 1) / 2) * 0.35
        right.bar(place, shares, 0.33, color=colour, alpha=0.8, label=name)
    left.set(xlabel="diameter, mm", ylabel="share of lesions", title="Sizes")
    right.set(title="Mean share of each class in a lesion", xticks=range(len(classes)), xticklabels=classes.names)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    curve = image("histograms of sizes and classes", rendered(drawing, canvas), "curve")
    return section(
        "Sizes and classes",
        f"<p>The diameter is that of the sphere of the lesion's volume.</p>\n{curve}\n{_class_table(rows, classes)}",
    )


def _shares(counts: Sequence[Mapping[str, int]], classes: Classes) -> np.ndarray:
    table_of = np.array([[row.get(name, 0) for name in classes.names] for row in counts], dtype=float)
    return (table_of / np.maximum(table_of.sum(1, keepdims=True), 1)).mean(0)


def _class_table(rows: Records, classes: Classes) -> str:
    cells = []
    for name in classes.names:
        volumes = np.array([row["class_ml"][name] for row in rows])
        cells.append(
            (name, int((volumes > 0).sum()), round(float(volumes.sum()), 1), round(float(np.median(volumes)), 2))
        )
    return table(("class", "lesions with it", "ml in all", "median ml"), cells, name="classes")


def _refusals(synthetic: Records) -> str:
    reasons = Counter(attempt["reason"] for r in synthetic for attempt in r["refused"])
    missing = sum(r["asked"] - len(r["lesions"]) for r in synthetic)
    empty = [r for r in synthetic if not r["files"]]
    rows = [("lesions asked for", sum(r["asked"] for r in synthetic), ""), ("not put in at all", missing, "sub")]
    rows += [("attempts refused", sum(reasons.values()), "")]
    rows += [(escape(reason), n, "sub refused") for reason, n in reasons.most_common()]
    names = ", ".join(f"{r['case']} ({r['host']})" for r in empty[:20])
    note = f"<p>Not written, for no lesion could be put in: {escape(names)}.</p>" if empty else ""
    return section(
        "Refusals",
        "<p>A lesion that is refused is tried again with the next seed, as often as the configuration says.</p>\n"
        f"{pairs(rows, 'refusals')}{note}",
    )


def _sources(records: Records) -> str:
    hosts = Counter((r["host"], r["host_group"]) for r in records if r["files"] and not r["real"])
    cells = [(name, group, n) for (name, group), n in sorted(hosts.items())]
    return section(
        "Hosts",
        f"<details><summary>{len(cells)} cases served as hosts</summary>"
        f"{table(('case', 'patient', 'synthetic cases'), cells)}</details>",
    )


# -------------------------------------------------------------------------------------------------- pictures


def _gallery(out: Path, layout: Layout, classes: Classes, synthetic: Records) -> str:
    written = [r for r in synthetic if r["files"]]
    chosen = [written[i] for i in np.linspace(0, len(written) - 1, min(GALLERY_CASES, len(written))).astype(int)]
    shown = [c for c in ("flair", "t1ce") if c in layout.channels] or [layout.channels[0]]
    rows = [_pictures(out, layout, classes, r, shown[i % len(shown)]) for i, r in enumerate(chosen)]
    colours = class_colours(classes.names)
    columns = [f"{view}{contour}" for view in VIEWS for contour in ("", ", label")]
    keys = legend(
        [(f"background:{c}", name) for name, c in colours.items()], "Label", "dashed: around what is synthetic"
    )
    return section(
        "Pictures",
        "<p>Cases spread evenly over the cohort, each cut through the middle of its largest lesion; front or top "
        "above, the patient's left on the left.</p>\n"
        f"{keys}{gallery(columns, rows)}",
    )


def _pictures(out: Path, layout: Layout, classes: Classes, record: Mapping[str, Any], channel: str) -> str:
    volume, label = _volumes(out, layout, record["case"], channel)
    lesion = max(record["lesions"], key=lambda row: row["volume_ml"])
    place = nib.affines.apply_affine(np.linalg.inv(label.affine), lesion["center_mm"]).round().astype(int)
    voxels, labels = np.asarray(volume.dataobj, dtype=np.float32), np.asarray(label.dataobj).astype(int)
    inside = voxels != np.bincount((voxels.ravel() - voxels.min()).astype(int)).argmax() + voxels.min()
    low, high = np.percentile(voxels[inside] if inside.any() else voxels, (1, 99.7))
    spacing = label.header.get_zooms()[:3]
    colours = class_colours(classes.names)
    pictures = []
    for view, axes in VIEWS.items():
        n = int(np.clip(place[axes[2]], 0, labels.shape[axes[2]] - 1))
        box = [extent(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in axes[:2]]
        cuts = [axial(v.transpose(axes), n, *box) for v in (voxels, inside, labels)]
        cuts = [_square(cut, spacing[axes[0]], spacing[axes[1]]) for cut in cuts]
        zoom = max(1, round(LONG_SIDE_PX / max(cuts[0].shape)))
        plain = grey(*cuts[:2], low, high, zoom)
        lines = [Outline(cuts[2] == v, colours[name], fill=0.2) for name, v in layout.label_values.items()]
        around = np.zeros(labels.shape, bool)
        for row in record["lesions"]:
            around[_around(row, label)] = True
        frame = _square(axial(around.transpose(axes), n, *box), spacing[axes[0]], spacing[axes[1]])
        lines.append(Outline(frame, "white", dashed=True, width=1.0))
        pictures += [(f"{view} slice {n}", png(plain)), (f"{view} slice {n}, label", png(outlined(plain, lines, zoom)))]
    sizes = "; ".join(f"{row['diameter_mm']:.1f} mm from {escape(str(row['donor'])[:40])}" for row in record["lesions"])
    words = f"<b>{escape(record['case'])}</b> {channel}, host {escape(record['host'])}<small>{sizes}</small>"
    return picture_row(words, pictures)


def _around(row: Mapping[str, Any], label: nib.Nifti1Image) -> tuple[slice, ...]:
    """A cube around a lesion, as wide as the lesion is long, in a volume whose axes may have been exchanged."""
    center = nib.affines.apply_affine(np.linalg.inv(label.affine), row["center_mm"])
    reach = [max(row["extent_mm"]) / 2 / s + 2 for s in label.header.get_zooms()[:3]]
    return tuple(slice(max(int(c - r), 0), int(c + r) + 1) for c, r in zip(center, reach, strict=True))


def _volumes(out: Path, layout: Layout, name: str, channel: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """One channel and the label, their axes to the right, to the front and up."""
    paths, number = layout.image_paths(name), layout.channels.index(channel)
    volume = nib.load(out / paths[number if len(paths) > 1 else 0])
    if len(volume.shape) == 4:
        volume = volume.slicer[..., number]
    return nib.as_closest_canonical(volume), nib.as_closest_canonical(nib.load(out / layout.label_path(name)))


def _square(cut: np.ndarray, across_mm: float, up_mm: float) -> np.ndarray:
    """A slice of thick voxels with rows or columns repeated, so that it is shown in true proportion."""
    finest = min(across_mm, up_mm)
    rows, columns = (
        np.arange(round(n * s / finest)) * finest / s for n, s in zip(cut.shape, (up_mm, across_mm), strict=True)
    )
    return cut[rows.astype(int)][:, columns.astype(int)]
