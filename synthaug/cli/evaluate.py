"""The commands ``synthaug evaluate`` and ``synthaug report``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli.errors import TRAIN, one_line_errors
from synthaug.cli.options import ClassesOption, LayoutOption, tell, tell_written
from synthaug.cli.profiles import ProfileOption, scored
from synthaug.progress import shown

ERRORS = (ValueError, OSError, ImportError)


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted label maps, <case>.nii.gz.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the labelled cases.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for rows.csv, of each case, and summary.csv.")
    ] = None,
    classes: ClassesOption = None,
    profile: ProfileOption = None,
    model: Annotated[Path | None, typer.Option(help="Run or model that predicted, whose classes are scored.")] = None,
    partial: Annotated[bool, typer.Option(help="Not all labelled cases need have a prediction.")] = False,
    surface: Annotated[bool, typer.Option(help="HD95, NSD and average surface distance, too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.", min=0)] = 0,
    layout: LayoutOption = "auto",
) -> None:
    """Score predictions against labels: overlap, surfaces and lesions, with intervals by patient.

    Exit code 1: a case has no prediction, unless --partial says that this is meant, or cannot be scored; it is named.
    """
    from synthaug.evaluation import format_table, summarise, write_table
    from synthaug.evaluation.folder import evaluate_cases, unpredicted
    from synthaug.evaluation.registry import shown_metrics

    rows, failed = [], 0
    with one_line_errors(*ERRORS, missing=TRAIN):
        data = scored(predictions, folder, profile, classes, layout, model)
        labelled = [case for case in data.cases if case.label is not None]
        missing = unpredicted(predictions, labelled)
        found: dict[str, Any] = {} if data.regions is None else {"regions": data.regions}
        rule = None if data.space is None else data.space.rule
        results = evaluate_cases(predictions, labelled, data.classes, rule, surface=surface, **found)
        for result in shown(results, "evaluate", "case", len(labelled) - len(missing)):
            if isinstance(result, Exception):
                tell(f"left out: {result}", aside=True)
                failed += 1
            else:
                rows += result
                tell(f"{result[0]['case']}: Dice {_dice(result)}")
    for name in missing:
        typer.echo(f"not predicted: {name}", err=True)
    rows, nowhere = _without_absent(rows)
    if nowhere:
        typer.echo(f"not scored, in no label and no prediction: {', '.join(nowhere)}", err=True)
    if rows:
        summary = summarise(rows, seed=seed)
        columns = shown_metrics(row["metric"] for row in summary)
        lower = ", ".join(metric.name for metric in columns if metric.higher_is_better is False)
        count = len({row["case"] for row in rows})
        heading = f"{count} of {len(labelled)} labelled cases; mean (median) [95 % interval of the mean]"
        typer.echo(f"\n{heading}{lower and f'; lower is better: {lower}'}")
        typer.echo(format_table(summary, [metric.name for metric in columns]))
        if out is not None:
            write_table(rows, out / "rows.csv")
            write_table(summary, out / "summary.csv")
            page = () if model is None else ("synthaug", "report", model)
            tell_written(f"{out / 'rows.csv'}, {out / 'summary.csv'}", *(page or ("synthaug", "imbalance", folder)))
    raise typer.Exit(1 if failed or (missing and not partial) else 0)


def _without_absent(rows: list[dict]) -> tuple[list[dict], list[str]]:
    """The rows without classes and regions that are nowhere, where any prediction is right, and the names of these."""
    there = {row["region"] for row in rows if row["size"] == "all" and not _is_absent(row)}
    return [row for row in rows if row["region"] in there], sorted({row["region"] for row in rows} - there)


def _is_absent(row: dict) -> bool:
    return not row["truth_ml"] and not row["predicted_ml"]


def _dice(rows: list[dict]) -> str:
    whole = [row for row in rows if row["size"] == "all"]
    return ", ".join(f"{row['region']} {'absent' if _is_absent(row) else format(row['dice'], '.3f')}" for row in whole)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; RUN/report.html by default.")] = None,
) -> None:
    """Write one page about a run: curves, scores, best and worst cases, insertions and examples of them."""
    with one_line_errors(*ERRORS, missing=TRAIN):
        from synthaug.training.report import write_run_report

        page = write_run_report(run, out)
    tell_written(page, "synthaug", "predict", run, "CASES", "--out", "predictions")
