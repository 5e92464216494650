"""The report: one HTML page with pictures and style inside, without scripts, that needs neither files nor network."""

import inspect
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch

from synthaug.demo.brains import Brain
from synthaug.demo.examples import Example
from synthaug.demo.loop import BATCH, PATCH, Patch, Training, make_insertion, train
from synthaug.demo.pictures import BRIGHTER, COLUMNS, DARKER, FULL_COLOUR_SD, loss_curve, panels
from synthaug.figures.html import gallery, image, page, pairs, picture_row, section, table, tiles
from synthaug.figures.slices import COLOURS
from synthaug.insertion.report import Report
from synthaug.lesions.bank import LesionBank

CLASS_WORDS = {"NCR": "necrotic core", "ED": "oedema", "ET": "enhancing tumour"}
FILE_WORDS = {
    "bank.safetensors": "the lesion bank: masks and intensities of the donors; "
    "<code>synthaug bank show bank.safetensors</code> lists it",
    "insertions.jsonl": "one JSON row for every insertion asked for in the training loop, done or refused; "
    "<code>InsertionPlan.from_rows</code> repeats a batch from its rows",
    "examples.jsonl": "the same for the whole-brain examples",
    "report.html": "this page; it needs no other file",
}


@dataclass(frozen=True)
class Facts:
    """What the report tells: everything that the demo made."""

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
    body = "\n".join(
        (
            _head(facts),
            _tiles(facts),
            _whole_brains(facts),
            _loop(facts, rows),
            _counts(facts.report, rows),
            _code(),
            _files(),
        )
    )
    footer = f"seed {facts.seed}, made in {facts.seconds:.0f} s, torch {escape(torch.__version__)}"
    path.write_text(page("synthaug demo", body, footer), encoding="utf-8")


def _head(facts: Facts) -> str:
    own = sum(host.has_tumour for host in facts.hosts)
    brains = "drawn by formulas" if facts.simple else "on MNI152 anatomy at 1 mm"
    note = (
        '<p class="note">These brains are formulas, as asked or because nilearn is not installed. With '
        "<code>pip install &quot;synthaug[demo]&quot;</code> and without <code>--simple</code> they have MNI152 "
        "anatomy.</p>"
    )
    return (
        "<h1>Synthetic tumours, inserted while a network trains</h1>\n"
        f'<p class="lead">The patients here are phantoms {brains}: no real patient is in this page. The lesions of '
        f"{len(facts.bank.groups)} phantom patients were cut into a lesion bank. While a small segmentation network "
        f"trained on {len(facts.hosts)} hosts ({own} of them with a tumour of its own), synthaug put tumours into its "
        "batches: it drew a lesion, changed its size and classes, found a place in healthy tissue, gave it the host's "
        "intensities and wrote image and label. Every voxel outside a lesion is exactly as it was.</p>"
        + (note if facts.simple else "")
    )


def _tiles(facts: Facts) -> str:
    report, losses = facts.report, facts.training.losses
    tenth = max(1, len(losses) // 6)
    first, last = statistics.fmean(losses[:tenth]), statistics.fmean(losses[-tenth:])
    share, per_step, _ = _times(facts.training)
    items = (
        (f"{report.done} of {report.asked}", f"insertions done in {report.samples} training samples"),
        (f"{sum(report.voxels.values()):,}", "tumour voxels written into batches"),
        (f"{first:.2f} → {last:.2f}", f"loss, first and last {tenth} of {len(losses)} steps"),
        (f"{per_step * 1000:.0f} ms", f"insertion per batch, {share:.0%} of this tiny loop"),
        (f"{len(facts.bank)}", f"lesions of {len(facts.bank.groups)} patients in the bank"),
    )
    return tiles(items)


def _whole_brains(facts: Facts) -> str:
    rows = []
    for example in facts.examples:
        row = example.row
        words = (
            f"<b>{escape(example.title)}</b> &nbsp;<code>TumorInsertion({escape(example.code)})</code>"
            f"<small>{escape(example.host)}, lesion {escape(_short(row['lesion']))}, "
            f"{_size(row)}{_swaps(row)}, centre at voxel {row['center_vox']}</small>"
        )
        rows.append(_picture_row(example, words))
    ratio = "5 / 6" if not facts.simple else "1"
    return section(
        "One tumour in a whole brain",
        "<p>Each row is a tumour-free brain before and after one insertion, in the axial slice where the lesion is "
        "largest; the front is above, the patient's left on the left. Oedema is bright on FLAIR, enhancing tumour is "
        "bright on T1ce, the necrotic core is dark on T1ce. The label that comes back with the image outlines exactly "
        "what was painted. The images go in with raw intensities, as a scanner gives them.</p>\n"
        f"{_legend()}{gallery(COLUMNS, rows, ratio)}",
    )


def _loop(facts: Facts, rows: Sequence[dict]) -> str:
    training = facts.training
    share, insertion, learning = _times(training)
    steps = [row["number"] // BATCH for row in rows if row["outcome"] == "done"]
    pictures = [_picture_row(patch, _patch_words(patch, rows)) for patch in training.patches]
    count = len(training.losses)
    measured = f"mean of the {count - 1} steps after the first" if count > 1 else "one step"
    return section(
        "In the training loop",
        f"<p>{count} steps of Dice and cross-entropy on batches of {BATCH} patches of {PATCH} voxels a "
        f"side. The network has {training.parameters:,} parameters and is there to show the call, not to segment "
        "well.</p>\n"
        f"{image('loss over the training steps', loss_curve(training.losses, steps), 'curve')}\n"
        f"<p>Time, measured in this run on one CPU thread, {measured}: insertion "
        f"{insertion * 1000:.0f} ms, forward, backward and update {learning * 1000:.0f} ms. Insertion costs the same "
        "whatever is trained: beside a network of real size, which takes many times longer per step, its share is "
        "smaller.</p>\n"
        f'<div class="share"><div style="flex:{share:.4f};background:#d2521c">insertion {share:.0%}</div>'
        f'<div style="flex:{1 - share:.4f};background:#1f5fa8">network {1 - share:.0%}</div></div>\n'
        "<p>Patches of this run with large insertions, last those with a tumour of the host's own in the slice:</p>\n"
        f"{_legend(own=True)}{gallery(COLUMNS, pictures)}",
    )


def _counts(report: Report, rows: Sequence[dict]) -> str:
    asked = [("samples seen", report.samples, ""), ("insertions asked for", report.asked, "")]
    asked += [("done", report.done, "sub"), ("refused", report.asked - report.done, "sub")]
    asked += [(f"because: {escape(reason)}", n, "sub refused") for reason, n in report.refused.items()]
    diameters = sorted(row["diameter_mm"] for row in rows if row["outcome"] == "done")
    levels = (("smallest", diameters[0]), ("median", statistics.median(diameters)), ("largest", diameters[-1]))
    voxels = [(f"{name} ({CLASS_WORDS[name]})", f"{n:,}", "") for name, n in report.voxels.items()]
    sizes = [(f"diameter, {name}", f"{value:.1f} mm", "") for name, value in levels]
    return section(
        "Asked, done, refused",
        "<p>Nothing is dropped in silence: every insertion that was asked for has an outcome, and what could not be "
        "done has a reason. The diameter is that of the sphere of the lesion's volume.</p>\n"
        f'<div class="two">{pairs(asked, "asked")}{pairs([*voxels, *sizes], "inserted")}</div>\n'
        f"<details><summary>All {len(rows)} insertions of the training loop</summary>{_row_table(rows)}</details>",
    )


def _code() -> str:
    source = "\n\n".join(inspect.getsource(f) for f in (make_insertion, train))
    return section(
        "The code that did it",
        "<p>The demo's own functions, from <code>synthaug/demo/loop.py</code>. The one line that a training loop needs "
        f"is <code>image, label = insert(...)</code>.</p>\n<pre>{escape(source)}</pre>",
    )


def _files() -> str:
    items = "".join(f"<tr><td><code>{name}</code></td><td>{words}</td></tr>" for name, words in FILE_WORDS.items())
    return section("Files beside this page", f'<table class="data">{items}</table>')


def _picture_row(item: Example | Patch, words: str) -> str:
    pictures, z = panels(item.before, item.after, item.label_before, item.label_after)
    named = [(f"{name}, axial slice {z}", png) for name, png in zip(COLUMNS, pictures, strict=True)]
    return picture_row(words, named)


def _patch_words(patch: Patch, rows: Sequence[dict]) -> str:
    number = patch.step * BATCH + patch.sample
    mine = [r for r in rows if r["number"] == number and r["outcome"] == "done"]
    lesions = "; ".join(
        f"lesion {escape(_short(r['lesion']))}, scale {r['scale']:.2f}, {_size(r)}{_swaps(r)}" for r in mine
    )
    return f"<b>Step {patch.step + 1}, a patch of {escape(patch.host)}</b><small>{lesions}</small>"


def _legend(own: bool = False) -> str:
    label = [(f"background:{COLOURS[name]}", f"{name}, {words}") for name, words in CLASS_WORDS.items()]
    change = [(f"background:{BRIGHTER}", "brighter than before"), (f"background:{DARKER}", "darker")]
    lines = [("Label", label, ""), ("Change", change, f"full colour at {FULL_COLOUR_SD} s.d. of the host's tissue")]
    text = ""
    for name, items, rest in lines:
        swatches = "".join(f'<span><i style="{style}"></i>{words}</span>' for style, words in items)
        dashed = '<span><i class="dashed"></i>the host\'s own tumour</span>' if own and name == "Label" else ""
        text += f'<div class="legend"><b>{name}</b>{swatches}{dashed}<span>{rest}</span></div>\n'
    return text


def _row_table(rows: Sequence[dict]) -> str:
    head = ("step", "host", "lesion", "scale", "classes renamed", "diameter", "outcome")
    cells = [
        (
            str(row["number"] // BATCH + 1),
            row["host_group"],
            _short(row["lesion"] or ""),
            f"{row['scale']:.2f}",
            ", ".join(f"{a} to {b}" for a, b in row["swaps"].items()),
            f"{row['diameter_mm']:.1f} mm" if row["diameter_mm"] else "",
            row["reason"],
        )
        for row in rows
    ]
    return table(head, cells, ["" if row["outcome"] == "done" else "refused" for row in rows])


def _times(training: Training) -> tuple[float, float, float]:
    """Share of insertion in the loop's time, and seconds a step of both; without the first step, which warms up."""
    skip = 1 if len(training.losses) > 1 else 0
    insertion, learning = (statistics.fmean(t[skip:]) for t in (training.insertion_s, training.training_s))
    return insertion / (insertion + learning), insertion, learning


def _size(row: dict) -> str:
    voxels = ", ".join(f"{name} {n:,}" for name, n in row["voxels"].items() if n)
    return f"diameter {row['diameter_mm']:.1f} mm ({voxels} voxels)"


def _swaps(row: dict) -> str:
    return "".join(f", {a} became {b}" for a, b in row["swaps"].items())


def _short(lesion: str) -> str:
    """A lesion's name; the seed in the name of an invented shape is cut."""
    return lesion if len(lesion) < 20 else f"{lesion[:12]}…"
