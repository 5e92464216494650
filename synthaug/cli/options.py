"""Options that several commands have, what they say of what nobody gave, and the errors of what was given."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

ClassesOption = Annotated[
    str | None,
    typer.Option(
        help="Label vocabulary: BRATS18, BRATS23, BRATS24, MSD_BRAIN, or names: tumour=1. By default what "
        "dataset.json, BraTS's names of files, or the bank say."
    ),
]
ChannelsOption = Annotated[
    str | None, typer.Option(help="Image channels, separated by commas; by default those of the cases.")
]
LayoutOption = Annotated[str, typer.Option(help="brats, nnunet, msd, bids, webdataset, zarr, or auto to find out.")]
GroupOption = Annotated[
    str | None, typer.Option(help="Regular expression that finds the patient in a case's name, such as '^(.+)_\\d+$'.")
]
UnlabelledOption = Annotated[
    str | None,
    typer.Option(
        help="tumour-free: cases without a label map have no tumour and may be hosts; they are left out otherwise."
    ),
]
PerOption = Annotated[str, typer.Option(help="lesion: connected lesions; case: all of a case's lesions as one.")]
ERRORS = (ValueError, TypeError, OSError, ImportError)


def split_channels(text: str | None) -> list[str] | None:
    """The names in an option's text."""
    return None if text is None else text.split(",")


def tell(text: str, aside: bool = False) -> None:
    """Print a line, on stderr where it is said aside, above the progress bar where there is one."""
    with tqdm.external_write_mode(sys.stderr if aside else sys.stdout):
        typer.echo(text, err=aside)


def tell_written(written: Path | str, *following: Path | str) -> None:
    """Say, as the last line of a command, what was written and the command to type next, given in words."""
    typer.echo(f"written: {written}; next: {' '.join(shlex.quote(str(word)) for word in following)}")


def tell_taken(taken: Iterable[str]) -> None:
    """Say on stderr what was taken from the data, for nobody gave it."""
    for words in taken:
        typer.echo(f"from the data: {words}", err=True)
