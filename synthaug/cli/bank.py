"""The commands ``synthaug bank build``, ``show`` and ``paint``."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors, parsed_swap
from synthaug.cli.options import (
    ERRORS,
    ChannelsOption,
    ClassesOption,
    GroupOption,
    LayoutOption,
    PerOption,
    tell_written,
)
from synthaug.cli.profiles import ProfileOption, told
from synthaug.progress import shown

bank_app = typer.Typer(help="Lesion banks: real masks and intensities in one file.", no_args_is_help=True)


@bank_app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled cases.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank file to write.")],
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    per: PerOption = "lesion",
    min_voxels: Annotated[int, typer.Option(help="Smallest lesion kept.")] = 27,
    layout: LayoutOption = "auto",
    group_pattern: GroupOption = None,
    profile: ProfileOption = None,
) -> None:
    """Cut the lesions of labelled cases into one bank file."""
    from synthaug import LesionBank

    # what is left out is said once, below, and not by logging as well
    logging.getLogger("synthaug.lesions").addHandler(logging.NullHandler())
    with one_line_errors(*ERRORS):
        data = told(profile, folder, classes, channels, layout, group_pattern)
        cases = shown(data.training, "bank", "case")
        bank = LesionBank.from_cases(cases, data.classes, data.channels, per, min_voxels, data.space)
        bank.save(out)
    used = len({lesion.name.rpartition("/")[0] or lesion.name for lesion in bank})
    typer.echo(
        f"{len(bank)} lesions of {len(bank.groups)} patients in {out}, from {used} of {len(data.training)} cases"
    )
    for reason in bank.skipped:
        typer.echo(f"left out: {reason}", err=True)
    tell_written(out, "synthaug", "insert", folder, "--bank", out, "--out", "inserted")


@bank_app.command()
def show(path: Annotated[Path, typer.Argument(help="A bank file.")]) -> None:
    """List the lesions of a bank."""
    from synthaug import LesionBank
    from synthaug.insertion.plan import equivalent_diameter_mm

    with one_line_errors(*ERRORS):
        bank = LesionBank.load(path)
    painter = "" if bank.painting is None else f", painted by {bank.painting['generator']['name']}"
    typer.echo(f"{len(bank)} lesions of {len(bank.groups)} patients{painter}; channels {', '.join(bank.channels)}")
    width = max(len(lesion.name) for lesion in bank)
    typer.echo(f"{'lesion':{width}}  {'patient':14}  diameter mm  {'  '.join(f'{c:>8}' for c in bank.classes)}")
    for lesion in bank:
        diameter = equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm)
        counts = "  ".join(f"{n:8}" for n in lesion.voxels)
        typer.echo(f"{lesion.name:{width}}  {lesion.group or '':14}  {diameter:11.1f}  {counts}")


@bank_app.command()
def sampler(
    bank: Annotated[Path, typer.Argument(help="Bank to learn from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The sampler's file to write.")],
    seed: Annotated[int, typer.Option(help="By which lesions of a large bank are drawn.", min=0)] = 0,
) -> None:
    """Learn a sampler of lesion masks, which takes a bank's place where masks alone are wanted."""
    from synthaug.lesions.bank import LesionBank
    from synthaug.lesions.sampler import LesionSampler

    with one_line_errors(*ERRORS):
        learned = LesionSampler.fit(LesionBank.load(bank), seed)
        learned.save(out)
    size = out.stat().st_size / 1e6
    typer.echo(f"sampler of {', '.join(learned.classes)} in {out}, {size:.0f} MB; for any generator but paste")
    tell_written(out, *("synthaug", "insert", "CASES", "--bank", out, "--generator", "procedural", "--out", "inserted"))


@bank_app.command()
def paint(
    bank: Annotated[
        Path, typer.Argument(help="Bank whose masks are painted, or a sampler: its file, or brats-masks, which ships.")
    ],
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
    from synthaug.lesions.registry import resolve_lesions

    with one_line_errors(*ERRORS):
        painted = resolve_lesions(bank).painted(
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
    whose = f"{len(painted.groups)} patients" if painted.groups else "no patient"
    typer.echo(f"{len(painted)} lesions of {whose} in {out}, {size:.0f} MB; generator paste")
    tell_written(out, "synthaug", "bank", "show", out)
