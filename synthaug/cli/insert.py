"""The command ``synthaug insert``."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from synthaug.cli.errors import one_line_errors, parsed_swap
from synthaug.cli.options import (
    ERRORS,
    ChannelsOption,
    ClassesOption,
    GroupOption,
    LayoutOption,
    UnlabelledOption,
    split_channels,
    tell_taken,
)


def insert(
    case: Annotated[Path, typer.Argument(help="A case folder, or a folder of cases.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write to: the cases, in their layout, and insertions.jsonl."),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(help="Any of synthaug.InsertionOptions, such as rotate_deg=20 halo_mm=2.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Bank of lesion masks; without it, procedural shapes.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="paste (default with a bank), procedural, brats-gan, brats-diffusion, a folder.")
    ] = None,
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    scale: Annotated[tuple[float, float] | None, typer.Option(help="Range of the linear scale.")] = None,
    diameter_mm: Annotated[tuple[float, float] | None, typer.Option(help="Range of the diameter instead.")] = None,
    swap: Annotated[list[str] | None, typer.Option(help="FROM:TO:PROBABILITY, may be repeated.")] = None,
    swap_draw: Annotated[str, typer.Option(help="joint or each.")] = "joint",
    second: Annotated[float, typer.Option(help="Probability of a second lesion.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    layout: LayoutOption = "auto",
    group_pattern: GroupOption = None,
    unlabelled: UnlabelledOption = None,
    overwrite: Annotated[bool, typer.Option(help="Make cases anew that an earlier run wrote into --out.")] = False,
) -> None:
    """Insert a tumour into whole cases: NIfTI in, NIfTI and one JSON row per insertion out."""
    from synthaug import InsertionOptions, LesionShapes, TumorInsertion
    from synthaug.config import overridden
    from synthaug.data.dataset import find_dataset, labelled_hosts
    from synthaug.data.outputs import ROWS, CaseOutputs
    from synthaug.insertion.report import append_rows
    from synthaug.lesions.registry import resolve_lesions

    with one_line_errors(*ERRORS):
        given = {"prob": 1.0, "second": second, "seed": seed, "swap_draw": swap_draw}
        given |= {"scale": scale, "diameter_mm": diameter_mm, "swaps": [parsed_swap(text) for text in swap or ()]}
        chosen = InsertionOptions.checked(**overridden(given, options or ()))
        lesions = None if bank is None else resolve_lesions(bank)
        data = find_dataset(case, classes, split_channels(channels), layout, group_pattern, lesions=lesions)
        engine = TumorInsertion(
            lesions or LesionShapes(classes=data.classes),
            generator or ("procedural" if bank is None else "paste"),
            classes=data.classes,
            channels=data.channels,
            **chosen.engine_options,
        )
        tell_taken(data.taken)
        cases, left_out = labelled_hosts(data.cases, unlabelled)
        outputs = CaseOutputs(case, out, data.classes, data.channels)
        outputs.begin(cases, overwrite)
    if left_out is not None:
        typer.echo(f"left out: {left_out}", err=True)
    failed = 0
    for found in cases:
        try:
            rows = _insert_one(engine, found, outputs)
        except (ValueError, OSError) as error:
            named = f"{error}" if found.name in f"{error}" else f"{found.name}: {error}"
            typer.echo(f"failed: {named}", err=True)
            failed += 1
            continue
        append_rows(out / ROWS, rows)
        for row in rows:
            words = row["reason"] if row["outcome"] != "done" else f"{row['diameter_mm']:.1f} mm at {row['center_vox']}"
            typer.echo(f"{found.name}: {row['lesion']}: {words}")
            failed += row["outcome"] != "done"
    raise typer.Exit(1 if failed else 0)


def _insert_one(engine, case, outputs) -> list[dict]:
    """Insert into one case; writes its files only where a lesion went in, and returns the rows."""
    from synthaug.data import load_case
    from synthaug.data.maps import read_map

    volume = load_case(case, engine.channels, require_label=False)
    image = torch.from_numpy(volume.image)[None]
    label = torch.zeros(image.shape[2:], dtype=torch.int16) if volume.label is None else torch.from_numpy(volume.label)
    maps = {name: torch.from_numpy(read_map(case, file, volume))[None] for name, file in engine.options.files.items()}
    new_image, new_label, plan = engine.recorded(image, label[None], volume.spacing_mm, groups=[case.group], **maps)
    rows = [{"case": case.name, **row} for row in plan.to_rows()]
    if any(row["outcome"] == "done" for row in rows):
        outputs.write(case, dict(zip(engine.channels, new_image[0].numpy(), strict=True)), new_label[0].numpy())
        outputs.describe()
    return rows
