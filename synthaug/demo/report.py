"""The report of the demo: values of the template ``demo.html``."""

import inspect
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthaug.demo.brains import Brain
from synthaug.demo.examples import Example
from synthaug.demo.loop import BATCH, PATCH, Patch, Training, make_insertion, train
from synthaug.demo.pictures import BRIGHTER, COLUMNS, DARKER, FULL_COLOUR_SD, lesion_slices, loss_curve, panels
from synthaug.figures.html import render
from synthaug.figures.slices import COLOURS
from synthaug.insertion.report import Report
from synthaug.lesions.bank import LesionBank

CLASS_WORDS = {"NCR": "necrotic core", "ED": "oedema", "ET": "enhancing tumour"}


@dataclass(frozen=True)
class Facts:
    """Bank, training, examples and hosts that the demo made, for its report."""

    bank: LesionBank
    report: Report
    training: Training
    examples: Sequence[Example]
    hosts: Sequence[Brain]
    simple: bool
    seed: int
    seconds: float


def write_report(path: Path, facts: Facts, rows_file: Path) -> None:
    """Write the page; `rows_file` has the rows of the training loop."""
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    done = [row for row in rows if row["outcome"] == "done"]
    share, insertion_s, learning_s = _times(facts.training)
    count = len(facts.training.losses)
    text = render(
        "demo.html",
        facts=facts,
        sentence=_sentence(facts),
        tiles_shown=_tiles(facts),
        class_keys=[(COLOURS[name], f"{name}, {words}") for name, words in CLASS_WORDS.items()],
        change_keys=[(BRIGHTER, "brighter than before"), (DARKER, "darker")],
        full_colour_sd=FULL_COLOUR_SD,
        columns=COLUMNS,
        examples=[_example_row(example) for example in facts.examples],
        patches=[_patch_row(patch, done) for patch in facts.training.patches],
        batch=BATCH,
        patch=PATCH,
        curve=loss_curve(facts.training.losses, [row["number"] // BATCH for row in done]),
        measured=f"mean of the {count - 1} steps after the first" if count > 1 else "one step",
        share=share,
        insertion_s=insertion_s,
        learning_s=learning_s,
        asked=_counts(facts.report),
        inserted=_inserted(facts.report, done),
        insertion_columns=("step", "host", "lesion", "scale", "classes renamed", "diameter", "outcome"),
        insertions=[_insertion_cells(row) for row in rows],
        kinds=["" if row["outcome"] == "done" else "refused" for row in rows],
        source="\n\n".join(inspect.getsource(f) for f in (make_insertion, train)),
        torch_version=torch.__version__,
    )
    path.write_text(text, encoding="utf-8")


def _sentence(facts: Facts) -> str:
    report = facts.report
    return (
        f"{report.done} of {report.asked} tumours went into the batches of a small network while it trained on phantom "
        f"brains, and {len(facts.examples)} into whole brains, which are below; no voxel outside them was touched."
    )


def _tiles(facts: Facts) -> list[tuple[str, str]]:
    report, losses = facts.report, facts.training.losses
    tenth = max(1, len(losses) // 6)
    first, last = statistics.fmean(losses[:tenth]), statistics.fmean(losses[-tenth:])
    share, per_step, _ = _times(facts.training)
    return [
        (f"{report.done} of {report.asked}", f"insertions done in {report.samples} training samples"),
        (f"{sum(report.voxels.values()):,}", "tumour voxels written into batches"),
        (f"{first:.2f} → {last:.2f}", f"loss, first and last {tenth} of {len(losses)} steps"),
        (f"{per_step * 1000:.0f} ms", f"insertion per batch, {share:.0%} of this tiny loop"),
        (f"{len(facts.bank)}", f"lesions of {len(facts.bank.groups)} patients in the bank"),
    ]


def _example_row(example: Example) -> dict[str, Any]:
    row = example.row
    words = f"{example.host}, lesion {_short(row['lesion'])}, {_size(row)}{_swaps(row)}"
    return {
        "title": example.title,
        "code": example.code,
        "words": f"{words}, centre at voxel {row['center_vox']}",
        "pictures": _pictures(example),
        "stacks": {COLUMNS.index("Label"): lesion_slices(example.after, example.label_before, example.label_after)},
    }


def _patch_row(patch: Patch, done: Sequence[dict]) -> dict[str, Any]:
    mine = [row for row in done if row["number"] == patch.step * BATCH + patch.sample]
    lesions = (f"lesion {_short(r['lesion'])}, scale {r['scale']:.2f}, {_size(r)}{_swaps(r)}" for r in mine)
    title = f"Step {patch.step + 1}, a patch of {patch.host}"
    return {"title": title, "words": "; ".join(lesions), "pictures": _pictures(patch)}


def _pictures(item: Example | Patch) -> list[tuple[str, bytes]]:
    pictures, z = panels(item.before, item.after, item.label_before, item.label_after)
    return [(f"{name}, axial slice {z}", png) for name, png in zip(COLUMNS, pictures, strict=True)]


def _counts(report: Report) -> list[tuple[str, int, str]]:
    rows = [("samples seen", report.samples, ""), ("insertions asked for", report.asked, "")]
    rows += [("done", report.done, "sub"), ("refused", report.asked - report.done, "sub")]
    return rows + [(f"because: {reason}", n, "sub refused") for reason, n in report.refused.items()]


def _inserted(report: Report, done: Sequence[dict]) -> list[tuple[str, str, str]]:
    diameters = sorted(row["diameter_mm"] for row in done)
    levels = (("smallest", diameters[0]), ("median", statistics.median(diameters)), ("largest", diameters[-1]))
    voxels = [(f"{name} ({CLASS_WORDS[name]})", f"{n:,}", "") for name, n in report.voxels.items()]
    return voxels + [(f"diameter, {name}", f"{value:.1f} mm", "") for name, value in levels]


def _insertion_cells(row: dict) -> tuple[str, ...]:
    return (
        str(row["number"] // BATCH + 1),
        row["host_group"],
        _short(row["lesion"] or ""),
        f"{row['scale']:.2f}",
        ", ".join(f"{a} to {b}" for a, b in row["swaps"].items()),
        f"{row['diameter_mm']:.1f} mm" if row["diameter_mm"] else "",
        row["reason"],
    )


def _times(training: Training) -> tuple[float, float, float]:
    """Work out insertion's share of the loop's time, and seconds a step of both, without the first, which warms up."""
    skip = 1 if len(training.losses) > 1 else 0
    insertion, learning = (statistics.fmean(t[skip:]) for t in (training.insertion_s, training.training_s))
    return insertion / (insertion + learning), insertion, learning


def _size(row: dict) -> str:
    voxels = ", ".join(f"{name} {n:,}" for name, n in row["voxels"].items() if n)
    return f"diameter {row['diameter_mm']:.1f} mm ({voxels} voxels)"


def _swaps(row: dict) -> str:
    return "".join(f", {a} became {b}" for a, b in row["swaps"].items())


def _short(lesion: str) -> str:
    """Shorten a lesion's name: the seed in the name of an invented shape is cut."""
    return lesion if len(lesion) < 20 else f"{lesion[:12]}…"
