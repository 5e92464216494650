"""Measurements and suggestion as rows, as text for the terminal and as one page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthaug.figures.html import render
from synthaug.imbalance.measure import Measurements
from synthaug.imbalance.separability import EASY, HARD, ClassPair
from synthaug.imbalance.suggestion import Suggestion
from synthaug.sizes import SizeClasses

CLASS_HEAD = ("class", "voxels", "ml", "share", "cases", "lesions", "specks", "median mm")


def class_rows(measured: Measurements) -> list[dict[str, Any]]:
    """Make a row for each class: its volume, share, cases, lesions, specks (smaller components) and median diameter."""
    rows = []
    for k, name in enumerate(measured.classes.names):
        diameters = [lesion.diameter_mm for lesion in measured.parts[name]]
        rows.append(
            {
                "class": name,
                "voxels": int(measured.voxels[k]),
                "ml": round(float(measured.ml[:, k].sum()), 3),
                "share": round(measured.shares[name], 4),
                "cases": measured.cases_with[name],
                "lesions": len(diameters),
                "specks": measured.specks[name],
                "median_mm": round(float(np.median(diameters)), 2) if diameters else None,
            }
        )
    return rows


def size_rows(measured: Measurements, sizes: SizeClasses) -> list[dict[str, Any]]:
    """Make a row for each size class: whole lesions in it, and lesions of each class."""
    columns = {"whole": measured.lesions} | measured.parts
    counts = {name: sizes.counts([lesion.diameter_mm for lesion in found]) for name, found in columns.items()}
    return [
        {"size": name, "range": sizes.words(name), **{column: counts[column][name] for column in columns}}
        for name in sizes.names
    ]


def to_dict(
    measured: Measurements, pairs: Sequence[ClassPair], suggestion: Suggestion, sizes: SizeClasses
) -> dict[str, Any]:
    """Collect all figures, JSON-able."""
    return {
        "cases": len(measured.cases),
        "patients": len(set(measured.cases.values())),
        "left_out": measured.left_out,
        "imbalance_ratio": measured.ratio,
        "host_ratio": measured.host_ratio,
        "classes": class_rows(measured),
        "sizes": size_rows(measured, sizes),
        "lesions": [vars(lesion) for lesion in measured.lesions],
        "pairs": [
            {"first": p.first, "second": p.second, "channels": {c: vars(o) for c, o in p.by_channel.items()}}
            for p in pairs
        ],
        "suggestion": {"config": suggestion.config, "reasons": suggestion.reasons, "notes": suggestion.notes},
    }


def to_text(measured: Measurements, pairs: Sequence[ClassPair], suggestion: Suggestion, sizes: SizeClasses) -> str:
    """Write the figures for the terminal, without the single lesions and channels."""
    lines = [
        f"{len(measured.cases)} cases of {len(set(measured.cases.values()))} patients; "
        f"{measured.host_ratio:.0f} times as much healthy tissue as tumour",
        f"imbalance ratio of the classes: {measured.ratio:.1f} ({' > '.join(measured.present)})",
        "",
        _aligned([CLASS_HEAD, *(_class_cells(row) for row in class_rows(measured))]),
        "",
        _aligned(_with_head(size_rows(measured, sizes))),
        "",
        "told apart by intensity (AUC, all channels / best channel):",
        *(f"  {p.first} - {p.second}: {p.auc:.2f} {p.words}; {_best(p)}" for p in pairs),
        "",
        suggestion.yaml().rstrip(),
        "",
        *(f"- {note}" for note in suggestion.notes),
    ]
    return "\n".join(lines)


def to_page(
    measured: Measurements,
    pairs: Sequence[ClassPair],
    suggestion: Suggestion,
    sizes: SizeClasses,
    picture: str,
    folder: str,
) -> str:
    """Render the page, which needs no other file; `picture` is SVG."""
    size_columns, *size_cells = _with_head(size_rows(measured, sizes))
    return render(
        "imbalance.html",
        folder=folder,
        measured=measured,
        sentence=_sentence(measured),
        tiles_shown=_tiles(measured, sizes),
        picture=picture,
        suggestion=suggestion,
        yaml=Suggestion(suggestion.config).yaml(),
        class_columns=CLASS_HEAD,
        classes=[_class_cells(row) for row in class_rows(measured)],
        size_columns=size_columns,
        sizes=size_cells,
        pair_columns=["classes", "told apart", *(pairs[0].by_channel if pairs else ())],
        pairs=[_pair_cells(pair) for pair in pairs],
        hard=HARD,
        easy=EASY,
    )


def _sentence(measured: Measurements) -> str:
    rare, common = measured.present[-1], measured.present[0]
    return (
        f"{len(measured.lesions)} lesions in {len(measured.cases)} cases: {common} has {measured.ratio:.1f} times the "
        f"volume of {rare}; a suggested insertion, with its reasons, is below."
    )


def _tiles(measured: Measurements, sizes: SizeClasses) -> list[tuple[str, str]]:
    counts = sizes.counts([lesion.diameter_mm for lesion in measured.lesions])
    return [
        (f"{len(measured.cases)}", f"cases of {len(set(measured.cases.values()))} patients"),
        (f"{measured.ratio:.1f} : 1", f"volume of {measured.present[0]} to {measured.present[-1]}"),
        (f"{measured.host_ratio:.0f} : 1", "healthy tissue to tumour"),
        (" / ".join(str(n) for n in counts.values()), f"lesions, {' / '.join(counts)}"),
    ]


def _class_cells(row: dict[str, Any]) -> list[Any]:
    median = "-" if row["median_mm"] is None else f"{row['median_mm']:.1f}"
    ml = f"{row['ml']:,.1f}"
    return [row["class"], f"{row['voxels']:,}", ml, f"{row['share']:.1%}", *(row[k] for k in CLASS_HEAD[4:7]), median]


def _with_head(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def _pair_cells(pair: ClassPair) -> list[str]:
    channels = pair.by_channel.values()
    return [
        f"{pair.first} and {pair.second}",
        pair.words,
        *(f"{o.auc:.2f} / {o.overlap:.2f} / {o.fisher:.2f}" for o in channels),
    ]


def _best(pair: ClassPair) -> str:
    return f"{pair.best_channel} {pair.by_channel[pair.best_channel].auc:.2f}"


def _aligned(rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    )
