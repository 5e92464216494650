"""The command ``synthaug insert``."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from synthaug.cli.errors import one_line_errors, parsed_swap
from synthaug.cli.options import DEFAULT_CHANNELS, ERRORS, ChannelsOption, ClassesOption, LayoutOption


def insert(
    case: Annotated[Path, typer.Argument(help="A case folder, or a folder of cases.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; one folder per case, and insertions.jsonl.")],
    options: Annotated[
        list[str] | None, typer.Argument(help="Any of synthaug.InsertionOptions, such as rotate_deg=20 halo_mm=2.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Bank of lesion masks; without it, procedural shapes.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="paste (default with a bank), procedural, brats-gan, brats-diffusion, a folder.")
    ] = None,
    classes: ClassesOption = "BRATS18",
    channels: ChannelsOption = DEFAULT_CHANNELS,
    scale: Annotated[tuple[float, float] | None, typer.Option(help="Range of the linear scale.")] = None,
    diameter_mm: Annotated[tuple[float, float] | None, typer.Option(help="Range of the diameter instead.")] = None,
    swap: Annotated[list[str] | None, typer.Option(help="FROM:TO:PROBABILITY, may be repeated.")] = None,
    swap_draw: Annotated[str, typer.Option(help="joint or each.")] = "joint",
    second: Annotated[float, typer.Option(help="Probability of a second lesion.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    layout: LayoutOption = "auto",
) -> None:
    """Insert a tumour into whole cases: NIfTI in, NIfTI and one JSON row per insertion out."""
    from synthaug import InsertionOptions, LesionShapes, TumorInsertion, get_classes
    from synthaug.channels import canonical_channels
    from synthaug.config import overridden
    from synthaug.data import find_cases
    from synthaug.insertion.report import append_rows

    with one_line_errors(*ERRORS):
        vocabulary, names = get_classes(classes), canonical_channels(channels.split(","))
        given = {"prob": 1.0, "second": second, "seed": seed, "swap_draw": swap_draw}
        given |= {"scale": scale, "diameter_mm": diameter_mm, "swaps": [parsed_swap(text) for text in swap or ()]}
        chosen = InsertionOptions.checked(**overridden(given, options or ()))
        engine = TumorInsertion(
            LesionShapes(classes=vocabulary) if bank is None else bank,
            generator or ("procedural" if bank is None else "paste"),
            classes=vocabulary,
            channels=names,
            **chosen.engine_options,
        )
        cases = find_cases(case, layout=layout)
    failed = 0
    for found in cases:
        try:
            rows = _insert_one(engine, found, names, out)
        except (ValueError, OSError) as error:
            typer.echo(f"failed: {error}", err=True)
            failed += 1
            continue
        append_rows(out / "insertions.jsonl", rows)
        for row in rows:
            words = row["reason"] if row["outcome"] != "done" else f"{row['diameter_mm']:.1f} mm at {row['center_vox']}"
            typer.echo(f"{found.name}: {row['lesion']}: {words}")
            failed += row["outcome"] != "done"
    raise typer.Exit(1 if failed else 0)


def _insert_one(engine, case, channels: tuple[str, ...], out: Path) -> list[dict]:
    """Insert into one case; writes its files only where a lesion went in, and returns the rows."""
    from synthaug.data import load_case
    from synthaug.data.maps import read_map
    from synthaug.data.writing import write_case

    volume = load_case(case, channels, require_label=False)
    image = torch.from_numpy(volume.image)[None]
    label = torch.zeros(image.shape[2:], dtype=torch.int16) if volume.label is None else torch.from_numpy(volume.label)
    maps = {name: torch.from_numpy(read_map(case, file, volume))[None] for name, file in engine.options.files.items()}
    new_image, new_label, plan = engine.recorded(image, label[None], volume.spacing_mm, groups=[case.group], **maps)
    rows = [{"case": case.name, **row} for row in plan.to_rows()]
    if any(row["outcome"] == "done" for row in rows):
        write_case(case, dict(zip(channels, new_image[0].numpy(), strict=True)), new_label[0].numpy(), out / case.name)
    return rows
