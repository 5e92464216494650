"""The command ``synthaug demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    simple: Annotated[bool, typer.Option(help="Formula brains instead of MNI152 anatomy; faster.")] = False,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 20,
) -> None:
    """Run the demo on phantoms: a lesion bank, insertion in a training loop, a report with pictures; needs no data."""
    from synthaug.demo import run_demo

    typer.echo(
        f"written: {run_demo(out, seed=seed, simple=simple, steps=steps)}; next: open it, then synthaug fit FOLDER on "
        "your own cases"
    )
