"""The commands ``synthaug evaluate`` and ``synthaug report``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import TRAIN, one_line_errors

ERRORS = (ValueError, OSError, ImportError)


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted label maps, <case>.nii.gz.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the labelled cases.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for rows.csv, of each case, and summary.csv.")
    ] = None,
    classes: Annotated[str, typer.Option(help="Label vocabulary, such as BRATS18, or names: tumour=1.")] = "BRATS18",
    surface: Annotated[bool, typer.Option(help="HD95, NSD and average surface distance, too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.", min=0)] = 0,
    layout: Annotated[str, typer.Option(help="brats, nnunet, msd, bids, or auto to find out.")] = "auto",
) -> None:
    """Score predictions against labels: overlap, surfaces and lesions, with intervals by patient."""
    from synthaug.evaluation import format_table, summarise, write_table
    from synthaug.evaluation.folder import evaluate_folder
    from synthaug.evaluation.registry import shown_metrics

    rows, failed = [], 0
    with one_line_errors(*ERRORS, missing=TRAIN):
        for result in evaluate_folder(predictions, folder, classes, layout, surface=surface):
            if isinstance(result, Exception):
                typer.echo(f"left out: {result}", err=True)
                failed += 1
            else:
                rows += result
                typer.echo(f"{result[0]['case']}: Dice {_dice(result)}")
    if rows:
        summary = summarise(rows, seed=seed)
        columns = shown_metrics(row["metric"] for row in summary)
        lower = ", ".join(metric.name for metric in columns if metric.higher_is_better is False)
        typer.echo(f"\nmean (median) [95 % interval of the mean]{lower and f'; lower is better: {lower}'}")
        typer.echo(format_table(summary, [metric.name for metric in columns]))
        if out is not None:
            write_table(rows, out / "rows.csv")
            write_table(summary, out / "summary.csv")
    raise typer.Exit(1 if failed else 0)


def _dice(rows: list[dict]) -> str:
    return ", ".join(f"{row['region']} {row['dice']:.3f}" for row in rows if row["size"] == "all")


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; RUN/report.html by default.")] = None,
) -> None:
    """Write one page about a run: curves, scores, best and worst cases, insertions and examples of them."""
    with one_line_errors(*ERRORS, missing=TRAIN):
        from synthaug.training.report import write_run_report

        typer.echo(f"report: {write_run_report(run, out)}")
