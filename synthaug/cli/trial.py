"""The command ``synthaug trial``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import TRAIN, one_line_errors
from synthaug.cli.profiles import ProfileOption


def trial(
    config: Annotated[str | None, typer.Option(help="YAML file of a trial, or a name such as trial_tiny.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of labelled cases; the profile's by default.")] = None,
    profile: ProfileOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the trial; runs/NAME of the config by default.")] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write the page of what is there.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes of the trial, such as seeds=[0,1], and of its configuration, such as optimizer.steps=50.",
        ),
    ] = None,
) -> None:
    """Train with and without insertion by rotating folds, and say whether it pays; the same command again continues."""
    with one_line_errors(ValueError, OSError, ImportError, missing=TRAIN):
        from synthaug.figures.slices import require_matplotlib

        require_matplotlib("the page of a trial")
        failed = _look(_place(config, out)) if report_only else _run(config, data, profile, out, changes or [])
    raise typer.Exit(1 if failed else 0)


def _place(config: str | None, out: Path | None) -> Path:
    if out is None and config is None:
        raise ValueError("expected --out FOLDER of a trial, or its --config")
    return out or Path("runs") / Path(str(config)).stem


def _look(out: Path) -> bool:
    from synthaug.trial.plan import load_trial
    from synthaug.trial.results import look_at

    trial = load_trial(out)
    found = look_at(trial)
    if found is None:
        raise ValueError(f"{out}: no pair is done yet")
    _show(trial, found)
    return False


def _run(config: str | None, data: Path | None, profile: Path | None, out: Path | None, changes: list[str]) -> bool:
    from synthaug.profile.use import file_of
    from synthaug.trial.config import read_trial
    from synthaug.trial.lock import locked
    from synthaug.trial.plan import open_trial
    from synthaug.trial.results import look_at
    from synthaug.trial.runs import perform

    if config is None:
        raise ValueError("expected --config, such as trial_tiny; synthaug configs list has them all")
    described, base = read_trial(config, changes)
    place = _place(config, out)
    with locked(place) as held:
        trial = open_trial(described, base, place, data, None if profile is None else file_of(profile).resolve())
        typer.echo(f"{len(trial.runs())} trainings: {len(trial.units)} pairs of {', '.join(trial.arms)}")

        def whole(done: int, planned: int) -> None:
            if done < planned and (done * described.looks) // planned > ((done - 1) * described.looks) // planned:
                _show(trial, look_at(trial))

        failed = perform(trial, held, typer.echo, whole)
        _show(trial, look_at(trial))
    if failed:
        typer.echo(f"error: {len(failed)} trainings failed: {'; '.join(run.name for run in failed)}", err=True)
    return bool(failed)


def _show(trial, found) -> None:
    from synthaug.trial.page import write_page

    if found is None:
        typer.echo("no pair is done, so there is no page")
        return
    typer.echo(f"{found.headline}\n{write_page(trial, found)}")
