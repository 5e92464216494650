"""The cohort's report, ``cohort.html``: counts, histograms beside the bank's, refusals and pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.config import CohortConfig
from synthaug.cohort.encoding import text_bytes
from synthaug.cohort.job import REPORT
from synthaug.cohort.layouts import Layout
from synthaug.cohort.store import Store
from synthaug.figures.charts import BLUE, ORANGE, svg
from synthaug.figures.html import render
from synthaug.figures.slices import (
    Outline,
    axial,
    class_colours,
    extent,
    figure,
    grey,
    jpeg,
    outlined,
    png,
    through,
    tinted,
)
from synthaug.lesions.bank import LesionBank
from synthaug.sizes import equivalent_diameter_mm

if TYPE_CHECKING:
    from synthaug.cohort.records import Records as AllRecords
    from synthaug.cohort.tally import Tally

GALLERY_CASES, MOST_NAMES, MOST_CASES, SLICES = 12, 20, 5000, 5
LONG_SIDE_PX = 260
VIEWS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
"""Axes of a volume to the right, to the front and up that become (across, up, slice)."""

Records = Sequence[Mapping[str, Any]]


def write_cohort_report(
    store: Store,
    config: CohortConfig,
    layout: Layout,
    provenance: Mapping[str, Any],
    records: "AllRecords",
    tally: "Tally",
    bank: LesionBank | None,
) -> None:
    """Write ``report.html`` into a cohort.

    Args:
        store: of the cohort, with the cases that the records name.
        config: the cohort's configuration.
        layout: the layout that it is written in.
        provenance: versions, generator, hash of the configuration.
        records: one per case that is done; of more than `MOST_CASES` every n-th is looked at.
        tally: of all records.
        bank: the donors, which are shown beside, or None.
    """
    every = -(-records.total // MOST_CASES)
    shown = list(islice(records, None, None, every))
    synthetic = [r for r in shown if not r["real"]]
    rows = [row for r in synthetic for row in r["lesions"]]
    text = render(
        "cohort.html",
        about=config.about,
        layout=config.layout,
        seed=config.seed,
        provenance=provenance,
        every=every,
        sentence=_sentence(config, tally),
        tiles_shown=_tiles(config, tally, synthetic, rows),
        curve=_histograms(config, rows, bank) if rows else None,
        classes=_class_cells(rows, config.vocabulary),
        class_keys=[(colour, name) for name, colour in class_colours(config.vocabulary.names).items()],
        columns=[f"{view}{contour}" for view in VIEWS for contour in ("", ", label")],
        cases=_shown_cases(store, layout, config.vocabulary, synthetic) if rows else [],
        refusals=_refusals(tally),
        not_written=", ".join(list(tally.not_written)[:MOST_NAMES]),
        hosts=_hosts(shown),
    )
    store.write("report", {REPORT: text_bytes(text)})


def _sentence(config: CohortConfig, tally: "Tally") -> str:
    missing = config.total - tally.written
    short = "all that were asked for" if not missing else f"{missing} of those asked for are missing"
    return (
        f"{tally.written} cases with {tally.lesions} inserted lesions, {short}; every voxel outside one is the host's."
    )


def _tiles(config: CohortConfig, tally: "Tally", synthetic: Records, rows: Records) -> list[tuple[str, str]]:
    written = [r for r in synthetic if r["files"]]
    hosts, donors = {r["host_group"] for r in written}, {r["donor_group"] for r in rows} - {None}
    return [
        (f"{tally.written} of {config.total}", "cases written"),
        (f"{tally.lesions}", "lesions"),
        (f"{sum(row['volume_ml'] for row in rows):,.0f} ml", "of tumour"),
        (f"{len(hosts)}", "host patients"),
        (f"{len(donors)}", "donor patients"),
    ]


def _histograms(config: CohortConfig, rows: Records, bank: LesionBank | None) -> str:
    classes = config.vocabulary
    drawing, _ = figure(9.6, 3.2, 100)
    left, right = drawing.add_axes((0.09, 0.17, 0.38, 0.74)), drawing.add_axes((0.57, 0.17, 0.42, 0.74))
    sets = {"cohort": (BLUE, [r["diameter_mm"] for r in rows], _shares([r["voxels"] for r in rows], classes))}
    if bank is not None:
        sizes = [equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm) for lesion in bank]
        names = [classes.canonical(c) for c in bank.classes]
        counts = [dict(zip(names, lesion.voxels, strict=True)) for lesion in bank]
        sets["bank"] = (ORANGE, sizes, _shares(counts, classes))
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
    return svg(drawing)


def _shares(counts: Sequence[Mapping[str, int]], classes: Classes) -> np.ndarray:
    table_of = np.array([[row.get(name, 0) for name in classes.names] for row in counts], dtype=float)
    return (table_of / np.maximum(table_of.sum(1, keepdims=True), 1)).mean(0)


def _class_cells(rows: Records, classes: Classes) -> list[tuple]:
    """List for each class its name, the lesions that have it, ml in all and the median ml."""
    cells = []
    for name in classes.names if rows else ():
        volumes = np.array([row["class_ml"][name] for row in rows])
        total, median = round(float(volumes.sum()), 1), round(float(np.median(volumes)), 2)
        cells.append((name, int((volumes > 0).sum()), total, median))
    return cells


def _refusals(tally: "Tally") -> list[tuple[str, int, str]]:
    rows = [("lesions asked for", tally.lesions_asked, "")]
    rows += [("not put in at all", tally.lesions_asked - tally.lesions, "sub")]
    rows += [("attempts refused", sum(tally.refused.values()), "")]
    return rows + [(reason, n, "sub refused") for reason, n in tally.refused.most_common()]


def _hosts(records: Records) -> list[tuple[str, str, int]]:
    """List the cases that served as hosts: name, patient and number of synthetic cases."""
    counts = Counter((r["host"], r["host_group"]) for r in records if r["files"] and not r["real"])
    return [(name, group, n) for (name, group), n in sorted(counts.items())]


# -------------------------------------------------------------------------------------------------- pictures


def _shown_cases(store: Store, layout: Layout, classes: Classes, synthetic: Records) -> list[dict[str, Any]]:
    """Make the rows of the gallery: cases spread evenly over the cohort, in channels by turns."""
    written = [r for r in synthetic if r["files"]]
    chosen = [written[i] for i in np.linspace(0, len(written) - 1, min(GALLERY_CASES, len(written))).astype(int)]
    shown = [str(c) for c in ("flair", "t1ce") if c in layout.channels] or [layout.channels[0]]
    return [_shown_case(store, layout, classes, r, shown[i % len(shown)]) for i, r in enumerate(chosen)]


def _shown_case(
    store: Store, layout: Layout, classes: Classes, record: Mapping[str, Any], channel: str
) -> dict[str, Any]:
    return {
        "case": record["case"],
        "channel": channel,
        "host": record["host"],
        "sizes": "; ".join(f"{row['diameter_mm']:.1f} mm from {str(row['donor'])[:40]}" for row in record["lesions"]),
        **_pictures(store, layout, classes, record, channel),
    }


def _pictures(
    store: Store, layout: Layout, classes: Classes, record: Mapping[str, Any], channel: str
) -> dict[str, Any]:
    volume, label = _volumes(store, layout, record, channel)
    lesion = max(record["lesions"], key=lambda row: row["volume_ml"])
    place = nib.affines.apply_affine(np.linalg.inv(label.affine), lesion["center_mm"]).round().astype(int)
    voxels, labels = np.asarray(volume.dataobj, dtype=np.float32), np.asarray(label.dataobj).astype(int)
    inside = voxels != np.bincount((voxels.ravel() - voxels.min()).astype(int)).argmax() + voxels.min()
    low, high = np.percentile(voxels[inside] if inside.any() else voxels, (1, 99.7))
    spacing = label.header.get_zooms()[:3]
    colours = class_colours(classes.names)
    pictures, stacks = [], dict[int, list[tuple[str, bytes]]]()
    tints = {value: colours[name] for name, value in layout.label_values.items()}
    for view, axes in VIEWS.items():
        n = int(np.clip(place[axes[2]], 0, labels.shape[axes[2]] - 1))
        shown = (spacing[axes[0]], spacing[axes[1]])
        box = [extent(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in axes[:2]]
        volumes = (voxels, inside, labels)
        cut, brain, marked = (_square(axial(v.transpose(axes), n, *box), *shown) for v in volumes)
        zoom = max(1, round(LONG_SIDE_PX / max(cut.shape)))
        plain = grey(cut, brain, low, high, zoom)
        lines = [Outline(marked == v, colours[name], fill=0.2) for name, v in layout.label_values.items()]
        around = np.zeros(labels.shape, bool)
        for row in record["lesions"]:
            around[_around(row, label)] = True
        frame = _square(axial(around.transpose(axes), n, *box), *shown)
        lines.append(Outline(frame, "white", dashed=True, width=1.0))
        if view == "axial":
            reach = _around(lesion, label)[axes[2]]
            for z in through(labels[_around(lesion, label)].any((0, 1)), SLICES):
                values, tissue, marks = (_square(axial(v, reach.start + z, *box), *shown) for v in volumes)
                tint = tinted(grey(values, tissue, low, high, zoom), marks, tints, zoom)
                stacks.setdefault(1, []).append((f"axial slice {reach.start + z} with the label", jpeg(tint)))
        with_label = png(outlined(plain, lines, zoom))
        pictures += [(f"{view} slice {n}", jpeg(plain)), (f"{view} slice {n}, label", with_label)]
    return {"pictures": pictures, "stacks": stacks}


def _around(row: Mapping[str, Any], label: nib.Nifti1Image) -> tuple[slice, ...]:
    """Find a cube around a lesion, as wide as the lesion is long, in a volume whose axes may be exchanged."""
    center = nib.affines.apply_affine(np.linalg.inv(label.affine), row["center_mm"])
    reach = [max(row["extent_mm"]) / 2 / s + 2 for s in label.header.get_zooms()[:3]]
    return tuple(slice(max(int(c - r), 0), int(c + r) + 1) for c, r in zip(center, reach, strict=True))


def _volumes(
    store: Store, layout: Layout, record: Mapping[str, Any], channel: str
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Read one channel and the label, their axes to the right, to the front and up."""
    volume, label = layout.read_back(store, record, channel)
    return nib.as_closest_canonical(volume), nib.as_closest_canonical(label)


def _square(cut: np.ndarray, across_mm: float, up_mm: float) -> np.ndarray:
    """Repeat rows or columns of a slice of thick voxels, so that it is shown in true proportion."""
    finest = min(across_mm, up_mm)
    rows, columns = (
        np.arange(round(n * s / finest)) * finest / s for n, s in zip(cut.shape, (up_mm, across_mm), strict=True)
    )
    return cut[rows.astype(int)][:, columns.astype(int)]
