"""The command ``synthaug insert``."""

from pathlib import Path
from typing import Annotated, Any

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
    tell,
    tell_written,
)
from synthaug.cli.profiles import ProfileOption, Told, told
from synthaug.lesions.base import LesionSource
from synthaug.progress import shown


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
    swap_draw: Annotated[str | None, typer.Option(help="joint or each.")] = None,
    second: Annotated[float, typer.Option(help="Probability of a second lesion.")] = 0.0,
    profile: ProfileOption = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    layout: LayoutOption = "auto",
    group_pattern: GroupOption = None,
    unlabelled: UnlabelledOption = None,
    overwrite: Annotated[bool, typer.Option(help="Make cases anew that an earlier run wrote into --out.")] = False,
) -> None:
    """Insert a tumour into whole cases: NIfTI in, NIfTI and one JSON row per insertion out."""
    from synthaug import InsertionOptions
    from synthaug.config import overridden
    from synthaug.data.dataset import labelled_hosts
    from synthaug.data.outputs import ROWS, CaseOutputs
    from synthaug.insertion.report import append_rows
    from synthaug.lesions.registry import resolve_lesions

    with one_line_errors(*ERRORS):
        lesions = None if bank is None else resolve_lesions(bank)
        data = told(profile, case, classes, channels, layout, group_pattern, lesions=lesions)
        given: dict[str, Any] = {"scale": scale, "diameter_mm": diameter_mm, "swap_draw": swap_draw}
        given |= {"swaps": [parsed_swap(text) for text in swap] if swap else None}
        given = {name: value for name, value in given.items() if value is not None}
        chosen = overridden(given | {"prob": 1.0, "second": second, "seed": seed}, options or ())
        checked = InsertionOptions.checked(**chosen)
        chosen = {name: getattr(checked, name) for name in chosen}
        engine = _engine(data, lesions, generator, chosen)
        cases, left_out = labelled_hosts(data.cases, unlabelled)
        outputs = CaseOutputs(data.folder, out, data.classes, data.channels)
        outputs.begin(cases, overwrite)
    if left_out is not None:
        typer.echo(f"left out: {left_out}", err=True)
    failed, written = 0, False
    for found in shown(cases, "insert", "case"):
        try:
            rows = _insert_one(engine, found, outputs, data.profile is not None)
        except (ValueError, OSError) as error:
            named = f"{error}" if found.name in f"{error}" else f"{found.name}: {error}"
            tell(f"failed: {named}", aside=True)
            failed += 1
            continue
        append_rows(out / ROWS, rows)
        for row in rows:
            words = row["reason"] if row["outcome"] != "done" else f"{row['diameter_mm']:.1f} mm at {row['center_vox']}"
            tell(f"{found.name}: {row['lesion']}: {words}")
            failed += row["outcome"] != "done"
            written |= row["outcome"] == "done"
    if written:
        tell_written(out, "synthaug", "view", out, "--before", case)
    raise typer.Exit(1 if failed else 0)


def _engine(data: Told, lesions: LesionSource | None, generator: str | None, chosen: dict):
    """The insertion: that of the profile, where there is one, with what was given in place of its own."""
    from synthaug import LesionShapes, TumorInsertion
    from synthaug.profile.use import BANK, insertion_arguments

    own = {"classes": data.classes, "channels": data.channels}
    if data.profile is None or data.path is None:
        shapes = LesionShapes(classes=data.classes) if lesions is None else lesions
        paints = "procedural" if shapes.channels is None else "paste"
        return TumorInsertion(shapes, generator or paints, **own, **chosen)
    beside = data.path.parent / BANK
    donors = lesions or (beside if beside.is_file() else None)
    return TumorInsertion(**insertion_arguments(data.path, donors, generator, own | chosen))


def _insert_one(engine, case, outputs, placed: bool) -> list[dict]:
    """Insert into one case; writes its files only where a lesion went in, and returns the rows.

    `placed` says whether lesions go where the data have them, which needs to know where the host is.
    """
    from synthaug.data import load_case
    from synthaug.data.maps import host_of_case, read_map
    from synthaug.frames import host_frame
    from synthaug.host.space import Space

    volume = load_case(case, engine.channels, require_label=False)
    image = torch.from_numpy(volume.image)[None]
    label = torch.zeros(image.shape[2:], dtype=torch.int16) if volume.label is None else torch.from_numpy(volume.label)
    maps: dict[str, Any] = {
        name: torch.from_numpy(read_map(case, file, volume))[None] for name, file in engine.options.files.items()
    }
    if "host" not in maps and (engine.space != Space() or placed):
        tissue = host_of_case(case, volume, engine.space, engine.channels, engine.classes)
        maps["host"] = torch.from_numpy(tissue)[None]
        maps["frames"] = host_frame(tissue, volume.affine)
    new_image, new_label, plan = engine.recorded(image, label[None], volume.spacing_mm, groups=[case.group], **maps)
    rows = [{"case": case.name, **row} for row in plan.to_rows()]
    if any(row["outcome"] == "done" for row in rows):
        outputs.write(case, dict(zip(engine.channels, new_image[0].numpy(), strict=True)), new_label[0].numpy())
        outputs.describe()
    return rows
