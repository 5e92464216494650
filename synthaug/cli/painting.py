"""The command ``synthaug bank paint``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors, parsed_swap


def paint(
    bank: Annotated[Path, typer.Argument(help="Bank whose masks are painted.")],
    generator: Annotated[str, typer.Option(help="brats-gan, brats-diffusion, procedural, a folder or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank file to write.")],
    number: Annotated[int, typer.Option("--number", "-n", help="Lesions to paint.", min=1)] = 200,
    scale: Annotated[tuple[float, float] | None, typer.Option(help="Range of the linear scale.")] = None,
    diameter_mm: Annotated[tuple[float, float] | None, typer.Option(help="Range of the diameter instead.")] = None,
    swap: Annotated[list[str] | None, typer.Option(help="FROM:TO:PROBABILITY, may be repeated.")] = None,
    swap_draw: Annotated[str, typer.Option(help="joint or each.")] = "joint",
    spacing_mm: Annotated[
        tuple[float, float, float], typer.Option(help="Voxel size of the images that they are for.")
    ] = (1.0, 1.0, 1.0),
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
) -> None:
    """Paint lesions ahead, at their final sizes; "paste" then inserts them at its own price."""
    from synthaug.lesions.bank import LesionBank

    with one_line_errors(ValueError, TypeError, OSError, ImportError):
        painted = LesionBank.load(bank).painted(
            generator,
            number,
            progress=True,
            scale=scale,
            diameter_mm=diameter_mm,
            swaps=[parsed_swap(text) for text in swap or ()],
            swap_draw=swap_draw,
            spacing_mm=spacing_mm,
            seed=seed,
        )
        painted.save(out)
    size = out.stat().st_size / 1e6
    typer.echo(f"{len(painted)} lesions of {len(painted.groups)} patients in {out}, {size:.0f} MB; generator paste")
