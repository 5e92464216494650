"""The command ``synthaug hosts mirror``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.cli.options import ERRORS, LayoutOption, tell, tell_written
from synthaug.progress import shown

hosts_app = typer.Typer(help="Tumour-free hosts.", no_args_is_help=True)


@hosts_app.callback()
def _hosts() -> None:
    """Keep the verb: a group of one command would be the command itself."""


@hosts_app.command()
def mirror(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled cases.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; one folder per case, and pseudo_healthy.json.")],
    most_beyond_ml: Annotated[
        float, typer.Option(help="Of a tumour beyond the mid-plane; more is a tumour on both sides.")
    ] = 2.0,
    layout: LayoutOption = "auto",
) -> None:
    """Make tumour-free hosts of one-sided tumours: the affected side becomes the mirror image of the other."""
    from synthaug.data import CaseError, find_cases
    from synthaug.data.mirroring import write_mirrored_host
    from synthaug.files import replace_file

    with one_line_errors(*ERRORS):
        cases = [case for case in find_cases(folder, layout) if case.label is not None]
        if not cases:
            raise ValueError(f"{folder}: expected labelled cases, got none")
    made, refused = {}, {}
    for case in shown(cases, "mirror", "case"):
        try:
            with one_line_errors(OSError):
                made[case.name] = write_mirrored_host(case, out / case.name, most_beyond_ml)
        except CaseError as error:
            refused[case.name] = str(error)
            tell(f"refused: {error}", aside=True)
            continue
        facts = made[case.name]
        tell(f"{case.name}: {facts['removed_ml']:.1f} ml replaced, likeness of the sides {facts['likeness']:.2f}")
    if not made:
        raise typer.Exit(1)
    content = {"format": "synthaug-pseudo-healthy", "version": 1, "cases": made, "refused": refused}
    replace_file(out / "pseudo_healthy.json", json.dumps(content, indent=1).encode())
    typer.echo(f"{len(made)} pseudo-healthy hosts in {out}, {len(refused)} cases refused")
    tell_written(out, "synthaug", "view", out, "--before", folder)
