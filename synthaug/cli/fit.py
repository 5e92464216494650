"""The command ``synthaug fit``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.cli.options import ERRORS, LayoutOption, tell_written


def fit(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled cases.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the files; that of the data.")] = None,
    classes: Annotated[str | None, typer.Option(help="Lesion labels where nothing names them: tumour=1.")] = None,
    organs: Annotated[str | None, typer.Option(help="Labels that may hold a lesion: liver=2.")] = None,
    modality: Annotated[str | None, typer.Option(help="ct, mr, pet or other; or of each: t1=mr,x=ct.")] = None,
    channels: Annotated[str | None, typer.Option(help="Names of the image channels, in order.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="Regular expression that finds the patient.")] = None,
    masks: Annotated[str | None, typer.Option(help="Where lesions may lie: a file of each case, or a folder.")] = None,
    memory_gb: Annotated[float, typer.Option(help="Of the GPU that trains the segmenter.", min=1)] = 8.0,
    layout: LayoutOption = "auto",
    train: Annotated[
        bool, typer.Option("--train", help="Train a generator too, and compare it with paste and procedural:fitted.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="Length of that training.", min=1)] = 60.0,
) -> None:
    """Learn a data set: its profile, lesion bank, ready configurations, and a page that gives the reasons.

    With --train a GAN of its own is trained beside the profile, compared with the other generators on patients that it
    did not see, and recommended or not. The same command goes on with a training that was stopped, or that had its
    minutes where --minutes now says more. Without --train a recommendation that was made stays while it fits.
    """
    with one_line_errors(*ERRORS):
        from synthaug.figures.slices import require_matplotlib
        from synthaug.profile.fit import PAGE, Given, fit, written

        require_matplotlib("the page of a profile")
        told = Given(
            classes=_values(classes),
            organs=_values(organs),
            modality=_modality(modality),
            channels=None if channels is None else [name.strip() for name in channels.split(",")],
            layout=layout,
            group_pattern=group_pattern,
            masks=masks,
            memory_gb=memory_gb,
        )
        fitted = fit(folder, out, told, progress=True)
        if fitted.kept:
            typer.echo(fitted.kept, err=True)
        rows = None
        if train:
            fitted, rows = _trained(fitted, minutes)
    for word, what in written(fitted).items():
        typer.echo(f"{word:>10}  {what}")
    for reason in (*fitted.profile.data.left_out, *fitted.bank.skipped):
        typer.echo(f"left out: {reason}", err=True)
    for name, row in (rows or {}).items():
        typer.echo(f"compared: {name}: {', '.join(f'{word} {value:g}' for word, value in row.items())}")
    insert = ("synthaug", "insert", fitted.profile.data.folder, "--profile", fitted.out, "--out", "inserted")
    tell_written(f"{fitted.out / 'synthaug.json'}, {fitted.out / PAGE}", *insert)


def _trained(fitted, minutes: float):
    """Train, compare, and write the recommendation into the profile."""
    from synthaug.profile.comparison import compare, recommended
    from synthaug.profile.fit import rewritten
    from synthaug.profile.training import FOLDER, RUN, cases_held_out, train_generator

    looks = train_generator(fitted, minutes)
    best = min(looks.found, key=looks.found.__getitem__)
    count = f"{max(looks.found)} steps, {len(looks.found)} looks at held-out patients, the best at step {best}"
    typer.echo(f"trained: {count}; without {fitted.out / RUN} a training begins anew", err=True)
    rows = compare(fitted, cases_held_out(fitted), ("paste", "procedural:fitted", FOLDER))
    return rewritten(fitted, recommended(fitted.profile, rows)), rows


def _values(text: str | None) -> dict[str, int] | None:
    from synthaug.classes import get_classes

    return None if text is None else dict(get_classes(text).values)


def _modality(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    found = {name.strip() if mark else "*": (kind if mark else name).strip() for name, mark, kind in pairs}
    if wrong := [kind for kind in found.values() if kind not in ("ct", "mr", "pet", "other")]:
        raise ValueError(f"--modality: expected ct, mr, pet or other, got {', '.join(wrong)}")
    return found
