"""The report of a training run: one HTML page from the files in its folder, which says what is missing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from synthaug.classes import Classes, get_classes
from synthaug.evaluation.registry import shown_metrics
from synthaug.evaluation.summary import summarise
from synthaug.figures.html import render
from synthaug.figures.slices import class_colours, require_matplotlib
from synthaug.files import replace_file
from synthaug.precision import Precision
from synthaug.sizes import SizeClasses
from synthaug.training.artefacts import CaseSlices, ExampleSlice, Stack, read_examples, read_rows, read_validation
from synthaug.training.report_pictures import (
    case_pictures,
    curves,
    example_pictures,
    shown_channels,
    stack_pictures,
)
from synthaug.training.run import read_metrics

EXTREME_CASES = 2
LEAST_PATIENTS = 5
"""A bootstrap of fewer patients is no interval worth showing."""

MOST_EXAMPLES = 8


def write_run_report(run: str | Path, out: str | Path | None = None, seed: int = 0) -> Path:
    """Write the page of a run.

    Args:
        run: folder of the run: ``metrics.jsonl``, ``config.yaml`` and, where the trainer kept them, the files of
            `synthaug.training.artefacts`.
        out: the page; ``report.html`` in the run's folder where not given.
        seed: seed of the bootstrap intervals.

    Returns:
        The page's file.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `run` is no folder of a run.
    """
    require_matplotlib("the report")
    run = Path(run)
    metrics = read_metrics(run) if run.is_dir() else []
    if not metrics:
        raise ValueError(f"{run}: expected the folder of a run, with rows in metrics.jsonl; there are none")
    facts = _Facts(run, metrics)
    colours = class_colours(facts.classes.names)
    shown = [facts.channels[c] for c in shown_channels(facts.channels)]
    text = render(
        "run.html",
        name=run.resolve().name,
        sentence=_sentence(facts),
        tiles_shown=_tiles(facts),
        curves=curves(facts.metrics, facts.scores),
        scores=_scores(facts, seed),
        least_patients=LEAST_PATIENTS,
        class_keys=[(colours[name], name) for name in facts.classes.names],
        cases=_cases(facts) if facts.slices else None,
        case_columns=[*shown, "truth", "prediction"],
        inserted=_inserted(facts),
        examples=_examples(facts) if facts.examples else None,
        example_columns=[*(f"{name} {when}" for name in shown for when in ("before", "after")), "label"],
        precisions=[(r["step"], Precision(**r["precision"])) for r in facts.metrics if "precision" in r],
        config=yaml.safe_dump(facts.config, sort_keys=False) if facts.config else json.dumps(None),
        last_step=facts.metrics[-1]["step"],
    )
    path = run / "report.html" if out is None else Path(out)
    replace_file(path, text)
    return path


class _Facts:
    """Log, configuration, scores, slices and examples of a run."""

    def __init__(self, run: Path, metrics: Sequence[Mapping[str, Any]]):
        self.metrics = metrics
        file = run / "config.yaml"
        self.config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
        data = self.config.get("data") or {}
        self.classes: Classes = get_classes(data.get("classes", "BRATS18"))
        self.scores, self.slices, self.examples = read_rows(run), read_validation(run), read_examples(run)
        count = self._channels_in_files()
        named = tuple(data.get("channels", ()))
        self.channels = named if count in (None, len(named)) else tuple(f"channel {c + 1}" for c in range(count))

    def _channels_in_files(self) -> int | None:
        kept: list[CaseSlices | ExampleSlice] = [*self.slices.values(), *self.examples]
        return len(kept[0].levels) if kept else None

    @property
    def latest(self) -> list[dict[str, Any]]:
        """Rows of the last validation."""
        last = max((row["step"] for row in self.scores), default=None)
        return [row for row in self.scores if row["step"] == last]

    @property
    def insertion(self) -> dict[str, Any]:
        """Counts of insertions in the last row that has any."""
        return next((row["insertion"] for row in reversed(self.metrics) if row.get("insertion")), {})

    def last(self, name: str) -> Any:
        """Find the latest value of a number in the log, or None."""
        return next((row[name] for row in reversed(self.metrics) if row.get(name) is not None), None)


def _sentence(facts: _Facts) -> str:
    dice, counts = _mean_dice(facts), facts.insertion
    step = f"After {facts.metrics[-1]['step']:,} steps"
    reached = (
        f"mean validation Dice is {np.mean([*dice.values()]):.3f} over {', '.join(dice)}"
        if dice
        else "nothing is validated"
    )
    inserted = f"{counts['done']:,} of {counts['asked']:,} insertions were done" if counts else "nothing was inserted"
    return f"{step} {reached}, and {inserted}."


def _tiles(facts: _Facts) -> list[tuple[str, str]]:
    items = [(f"{facts.metrics[-1]['step']:,}", "training steps")]
    for region, value in _mean_dice(facts).items():
        items.append((f"{value:.3f}", f"validation Dice {region}"))
    if facts.insertion:
        items.append((f"{facts.insertion['done']} of {facts.insertion['asked']}", "insertions done"))
    if (seconds := facts.last("seconds_per_step")) is not None:
        share = facts.last("insertion_share")
        words = "a step" if share is None else f"a step, {share:.0%} of it insertion"
        items.append((f"{seconds:.2f} s", words))
    return items[:5]


def _mean_dice(facts: _Facts) -> dict[str, float]:
    rows = [r for r in facts.latest if r["size"] == "all" and r.get("dice") is not None]
    rows = [r for r in rows if r["kind"] == "region"] or rows
    if not rows:
        logged: dict[str, Any] = next((r["validation"] for r in reversed(facts.metrics) if r.get("validation")), {})
        return dict(logged.get("dice", {}))
    names = dict.fromkeys(row["region"] for row in rows)
    return {name: float(np.mean([row["dice"] for row in rows if row["region"] == name])) for name in names}


def _scores(facts: _Facts, seed: int) -> dict[str, Any] | None:
    """Make the tables of the last validation; None where no rows were kept."""
    if not facts.latest:
        return None
    columns = shown_metrics(k for row in facts.latest for k, value in row.items() if value is not None)
    found = summarise(facts.latest, metrics=[metric.name for metric in columns], seed=seed)
    cells = {(row["region"], row["size"], row["metric"]): row for row in found}
    regions = list(dict.fromkeys(row["region"] for row in found))
    sizes = [name for name in dict.fromkeys(row["size"] for row in facts.latest) if name != "all"]
    known = SizeClasses()
    return {
        "step": facts.latest[0]["step"],
        "cases": len({row["case"] for row in facts.latest}),
        "columns": ["", *(metric.heading for metric in columns)],
        "lower_is_better": ", ".join(metric.words for metric in columns if metric.higher_is_better is False),
        "rows": [[r, *(_cell(cells.get((r, "all", metric.name))) for metric in columns)] for r in regions],
        "has_sizes": bool(sizes),
        "by_size": _size_rows(facts, regions, sizes),
        "size_words": ", ".join(f"{name}: {known.words(name)}" for name in sizes if name in known.names),
    }


def _size_rows(facts: _Facts, regions: Sequence[str], sizes: Sequence[str]) -> list[list[Any]]:
    rows = []
    for region in regions:
        for size in sizes:
            mine = [row for row in facts.latest if (row["region"], row["size"]) == (region, size)]
            total = {k: sum(row[k] for row in mine) for k in ("lesions", "lesions_found", "false_positives")}
            if not total["lesions"] and not total["false_positives"]:
                continue
            recall = f"{total['lesions_found'] / total['lesions']:.2f}" if total["lesions"] else "-"
            rows.append([region, size, total["lesions"], total["lesions_found"], recall, total["false_positives"]])
    return rows


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    interval = "" if row["low"] is None or row["groups"] < LEAST_PATIENTS else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['mean']:.2f}{interval}"


def _cases(facts: _Facts) -> list[dict[str, Any]]:
    """Make the rows of the gallery of the best and the worst cases, one for each slice in the files."""
    scores = {case: value for case, value in _case_dice(facts).items() if case in facts.slices}
    order = sorted(scores, key=lambda case: -scores[case])
    best = order[: min(EXTREME_CASES, (len(order) + 1) // 2)]
    worst = [case for case in order[-EXTREME_CASES:][::-1] if case not in best]
    rows = []
    for word, cases in (("Best", best), ("Worst", worst)):
        for case in cases:
            kept = facts.slices[case]
            for n, z in enumerate(kept.z):
                pictures = case_pictures(kept, n, facts.classes, facts.channels)
                title = f"{word}: {case}" if n == 0 else case
                row = {"title": title, "words": _case_words(facts, case, z), "pictures": pictures}
                rows.append(row | _stacks(facts, kept.stack if n == 0 else None, pictures, ("truth", "prediction")))
    return rows


def _stacks(facts: _Facts, stack: Stack | None, pictures: Sequence, labels: Sequence[str]) -> dict[str, Any]:
    """Draw ``stacks``, slices by the number of the picture that opens into them: the last ones of a row."""
    first = len(pictures) - len(labels)
    drawn = [stack_pictures(stack, i, name, facts.classes, facts.channels) for i, name in enumerate(labels)]
    return {"stacks": {first + i: slices for i, slices in enumerate(drawn)}}


def _case_dice(facts: _Facts) -> dict[str, float]:
    rows = [row for row in facts.latest if row["size"] == "all" and row.get("dice") is not None]
    rows = [row for row in rows if row["kind"] == "region"] or rows
    cases = dict.fromkeys(row["case"] for row in rows)
    return {case: float(np.mean([row["dice"] for row in rows if row["case"] == case])) for case in cases}


def _case_words(facts: _Facts, case: str, z: int) -> str:
    mine = [r for r in facts.latest if r["case"] == case and r["size"] == "all" and r.get("dice") is not None]
    scores = ", ".join(f"{row['region']} {row['dice']:.2f}" for row in mine)
    return f"axial slice {z}; Dice {scores}"


def _inserted(facts: _Facts) -> dict[str, Any] | None:
    """Make the tables of inserted lesions, in all and by class; None where the run inserted nothing."""
    counts = facts.insertion
    if not counts:
        return None
    expected = next((r["expected_insertions"] for r in facts.metrics if r.get("expected_insertions") is not None), None)
    rows = [("samples seen", f"{counts['samples']:,}", "")]
    if expected is not None:
        rows.append(("insertions expected in the whole run", f"{expected:,.0f}", ""))
    rows += [("asked for", f"{counts['asked']:,}", ""), ("done", f"{counts['done']:,}", "sub")]
    rows += [(f"refused: {why}", f"{n:,}", "sub refused") for why, n in counts.get("refused", {}).items()]
    columns, classes = _class_cells(facts, counts)
    return {"counts": rows, "columns": columns, "classes": classes}


def _class_cells(facts: _Facts, counts: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Make head and rows: lesions that have a class, by size where the run counted sizes, and the class's voxels."""
    sizes = [name for name in SizeClasses().names if name in counts.get("sizes", {})]
    voxels, lesions = counts.get("voxels", {}), counts.get("lesions", {})
    total = sum(voxels.values())
    rows = [
        [name, *(lesions.get(name, {}).get(s, 0) for s in sizes), f"{n:,}", f"{n / total:.0%}" if total else "-"]
        for name, n in sorted(voxels.items(), key=lambda item: facts.classes.index(item[0]))
    ]
    if sizes:
        rows.append(["any class", *(counts["sizes"][s] for s in sizes), f"{total:,}", ""])
    head = ["lesions that have", *(f"{s}, {SizeClasses().words(s)}" for s in sizes), "voxels", "share"]
    return head, rows


def _examples(facts: _Facts) -> list[dict[str, Any]]:
    """Make the rows of the gallery of samples, spread evenly over the run."""
    spread = np.linspace(0, len(facts.examples) - 1, min(MOST_EXAMPLES, len(facts.examples))).round().astype(int)
    return [_example(facts, facts.examples[i]) for i in spread]


def _example(facts: _Facts, example: ExampleSlice) -> dict[str, Any]:
    pictures = example_pictures(example, facts.classes, facts.channels)
    stacks = _stacks(facts, example.stack, pictures, ("label",))
    return {"title": f"Step {example.step}", "words": _example_words(example), "pictures": pictures, **stacks}


def _example_words(example: ExampleSlice) -> str:
    done = [row for row in example.rows if row.get("outcome") == "done"]
    words = []
    for row in done:
        swaps = "".join(f", {a} became {b}" for a, b in row.get("swaps", {}).items())
        host = f" into {row['host_group']}" if row.get("host_group") else ""
        words.append(f"lesion {row['lesion']}{host}, {row['diameter_mm']:.0f} mm{swaps}")
    return "; ".join(words)
