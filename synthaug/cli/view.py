"""The command ``synthaug view``."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.cli.options import LayoutOption


def view(
    path: Annotated[Path, typer.Argument(help="A cohort, a folder of cases, a case, or FOLDER/CASE.")],
    before: Annotated[
        Path | None, typer.Option(help="The case, or the folder of cases, that these were made from.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="File of accept and reject; FOLDER.review.json beside the folder.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of localhost; 0 for a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    layout: LayoutOption = "auto",
) -> None:
    """Look at cases in a browser: slices, volume, labels, lesion by lesion, before and after; accept or reject them."""
    with one_line_errors(ValueError, OSError, ModuleNotFoundError, missing='; pip install "synthaug[view]"'):
        from synthaug.review import Decisions, decisions_file
        from synthaug.view.server import ViewServer
        from synthaug.view.shown import find_shown

        shown = find_shown(path, before, layout)
        server = ViewServer(shown, Decisions(decisions or decisions_file(shown.root)), port)
    typer.echo(f"{len(shown.cases)} cases at {server.address}")
    typer.echo("Ctrl-C ends it; from another machine: ssh -L PORT:localhost:PORT, with --port PORT --no-browser here")
    if browser:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        made = server.decisions.made
        typer.echo(f"\n{len(made)} decisions in {server.decisions.file}" if made else "\nno decisions")
        if "reject" in made.values():
            typer.echo(f"next: synthaug cohort ... --exclude {server.decisions.file}")
    finally:
        server.server_close()
