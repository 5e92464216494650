"""The command ``synthaug trial``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import TRAIN, one_line_errors, stoppable
from synthaug.cli.options import ERRORS
from synthaug.cli.profiles import ProfileOption


def trial(
    config: Annotated[
        str | None, typer.Option(help="YAML file, or a name that synthaug configs list shows; trial_tiny without data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of labelled cases.")] = None,
    profile: ProfileOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the trial; runs/NAME of the config by default.")] = None,
    looks: Annotated[int | None, typer.Option(help="How often results are judged, the end included.", min=1)] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write the page of what is done.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the trial's configuration, such as workers=2."),
    ] = None,
) -> None:
    """Train with and without insertion on your data, and say whether it helps; the same command again continues."""
    with one_line_errors(*ERRORS, missing=TRAIN):
        from synthaug.config import read_config
        from synthaug.figures.slices import require_matplotlib
        from synthaug.shipped import find_config
        from synthaug.trial.base import with_profile
        from synthaug.trial.config import TrialConfig
        from synthaug.trial.plan import make_plan
        from synthaug.trial.trial import report_trial, run_trial

        require_matplotlib("the page of a trial")
        if config is None and (data is not None or profile is not None):
            raise ValueError("--config: expected a trial for these data, such as trial_brats; got none")
        file = find_config(config or "trial_tiny")
        changes = [*(overrides or ()), *([] if looks is None else [f"looks={looks}"])]
        chosen, told = with_profile(read_config(file, TrialConfig, changes), profile, data, _say_aside)
        folder = out or Path("runs") / file.stem
        plan = make_plan(chosen, folder, told)
        with stoppable(folder):
            outcome = report_trial(plan) if report_only else run_trial(plan, typer.echo)
    typer.echo(outcome.sentence)
    if outcome.failed:
        typer.echo(
            f"error: {outcome.failed} of {len(plan.runs)} runs failed; the same command tries them again", err=True
        )
        raise typer.Exit(1)
    if outcome.page is not None:
        typer.echo(f"written: {outcome.page}; next: open it, and put what it recommends into your configuration")


def _say_aside(text: str) -> None:
    typer.echo(text, err=True)
