"""The command ``synthaug imbalance``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.cli.options import ERRORS, ChannelsOption, ClassesOption, LayoutOption, tell_written
from synthaug.cli.profiles import ProfileOption, told


def imbalance(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled cases.")],
    out: Annotated[Path, typer.Option(help="Folder of the page, its picture, the figures and insertion.yaml.")] = Path(
        "imbalance-report"
    ),
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    min_voxels: Annotated[int, typer.Option(help="Smaller components are specks.", min=1)] = 27,
    seed: Annotated[int, typer.Option(help="Of the voxels that are drawn.", min=0)] = 0,
    layout: LayoutOption = "auto",
    profile: ProfileOption = None,
) -> None:
    """Measure a data set's class imbalance and suggest an insertion for it, with the reasons."""
    from synthaug.imbalance import check_out, run_imbalance

    with one_line_errors(*ERRORS):
        check_out(out)
        data = told(profile, folder, classes, channels, layout)
        text = run_imbalance(folder, out, data.classes, data.channels, data.layout, min_voxels, seed, data.space)
    typer.echo(f"{text}\n")
    tell_written(f"{out / 'imbalance.html'}, {out / 'insertion.yaml'}", "synthaug", "fit", folder)
