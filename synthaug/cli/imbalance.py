"""The command ``synthaug imbalance``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.cli.options import ERRORS, ChannelsOption, ClassesOption, LayoutOption, split_channels


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
) -> None:
    """Measure a data set's class imbalance and suggest an insertion for it, with the reasons."""
    from synthaug.imbalance import run_imbalance

    with one_line_errors(*ERRORS):
        text = run_imbalance(folder, out, classes, split_channels(channels), layout, min_voxels, seed)
    typer.echo(f"{text}\n\n{out / 'imbalance.html'}, {out / 'insertion.yaml'}")
