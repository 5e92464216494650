"""The command line: each verb a few lines over the library."""

import importlib.util
from pathlib import Path
from typing import Annotated

import torch
import typer

from synthaug.cli.cohort import cohort, inspect
from synthaug.cli.errors import one_line_errors, parsed_swap
from synthaug.cli.evaluation import evaluate, report
from synthaug.cli.painting import paint
from synthaug.cli.prediction import predict

app = typer.Typer(help="Synthetic tumours for segmentation training.", no_args_is_help=True, add_completion=False)
bank_app = typer.Typer(help="Lesion banks: real masks and intensities in one file.", no_args_is_help=True)
app.add_typer(bank_app, name="bank")

ClassesOption = Annotated[
    str, typer.Option(help="Label vocabulary: BRATS18, BRATS23, BRATS24, MSD_BRAIN, or names: tumour=1.")
]
ChannelsOption = Annotated[str, typer.Option(help="Image channels, separated by commas.")]
LayoutOption = Annotated[str, typer.Option(help="brats, nnunet, msd, or auto to find out.")]
DEFAULT_CHANNELS = "flair,t1,t1ce,t2"
ERRORS = (ValueError, TypeError, OSError, ImportError)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    simple: Annotated[bool, typer.Option(help="Formula brains instead of MNI152 anatomy; faster.")] = False,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 30,
) -> None:
    """Phantom brains, a lesion bank, insertion in a training loop, and a report with pictures; needs no data."""
    from synthaug.demo import run_demo

    typer.echo(f"report: {run_demo(out, seed=seed, simple=simple, steps=steps)}")


@bank_app.command("build")
def bank_build(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled cases.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bank file to write.")],
    classes: ClassesOption = "BRATS18",
    channels: ChannelsOption = DEFAULT_CHANNELS,
    per: Annotated[
        str, typer.Option(help="lesion: connected lesions; case: all of a case's lesions as one.")
    ] = "lesion",
    min_voxels: Annotated[int, typer.Option(help="Smallest lesion kept.")] = 27,
    layout: LayoutOption = "auto",
) -> None:
    """Cut the lesions of labelled cases into one bank file."""
    from synthaug import LesionBank

    with one_line_errors(*ERRORS):
        bank = LesionBank.from_folder(folder, classes, channels.split(","), per, min_voxels, layout)
        bank.save(out)
    typer.echo(f"{len(bank)} lesions of {len(bank.groups)} patients in {out}")
    for reason in bank.skipped:
        typer.echo(f"left out: {reason}", err=True)


@bank_app.command("show")
def bank_show(path: Annotated[Path, typer.Argument(help="A bank file.")]) -> None:
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


bank_app.command()(paint)
app.command()(cohort)
app.command()(inspect)
app.command()(evaluate)
app.command()(report)
app.command()(predict)


@app.command()
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


@app.command()
def imbalance(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled cases.")],
    out: Annotated[Path, typer.Option(help="Folder of the page, its picture, the figures and insertion.yaml.")] = Path(
        "imbalance-report"
    ),
    classes: ClassesOption = "BRATS18",
    channels: ChannelsOption = DEFAULT_CHANNELS,
    min_voxels: Annotated[int, typer.Option(help="Smaller components are specks.", min=1)] = 27,
    seed: Annotated[int, typer.Option(help="Of the voxels that are drawn.", min=0)] = 0,
    layout: LayoutOption = "auto",
) -> None:
    """Measure a data set's class imbalance and suggest an insertion for it, with the reasons."""
    from synthaug.imbalance import run_imbalance

    with one_line_errors(*ERRORS):
        text = run_imbalance(folder, out, classes, channels.split(","), layout, min_voxels, seed)
    typer.echo(f"{text}\n\n{out / 'imbalance.html'}, {out / 'insertion.yaml'}")


@app.command("nnunet-path")
def nnunet_path() -> None:
    """Print the folder that nnUNet_extTrainer names, so that nnU-Net finds nnUNetTrainerSynthAug."""
    from synthaug.adapters.nnunet import trainer_folder

    typer.echo(trainer_folder())


@app.command("nnunet-bank")
def nnunet_bank(
    dataset: Annotated[str, typer.Argument(help="Number or name of the preprocessed dataset.")],
    fold: Annotated[str, typer.Option(help="Number of the fold, or all.")],
    config: Annotated[
        Path | None, typer.Option(envvar="SYNTHAUG_CONFIG", help="The settings that nnUNetTrainerSynthAug will read.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The bank file [default: that of the settings]")
    ] = None,
    configuration: Annotated[str, typer.Option("--configuration", "-c", help="Of the plans.")] = "3d_fullres",
    plans: Annotated[str, typer.Option("--plans", "-p", help="Name of the plans.")] = "nnUNetPlans",
    per: Annotated[
        str, typer.Option(help="lesion: connected lesions; case: all of a case's lesions as one.")
    ] = "lesion",
    min_voxels: Annotated[int, typer.Option(help="Smallest lesion kept.")] = 27,
) -> None:
    """Cut the lesions of a fold's training cases, as nnU-Net preprocessed them, into one bank file."""
    with one_line_errors(*ERRORS):
        if importlib.util.find_spec("nnunetv2") is None:
            raise ImportError('nnunet-bank reads what nnU-Net preprocessed: pip install "synthaug[nnunet]"')
        from synthaug.adapters.nnunet.bank import Preprocessed, build_bank, shares_of
        from synthaug.adapters.nnunet.settings import Settings, read_settings

        chosen = fold if fold == "all" else int(fold)
        settings = Settings(lesions="shapes") if config is None else read_settings(config)
        target = out or settings.bank_path(chosen)
        bank = build_bank(Preprocessed.open(dataset, configuration, plans), chosen, settings, per, min_voxels)
        bank.save(target)
    typer.echo(f"{len(bank)} lesions of {len(bank.groups)} patients in {target}; voxels: {', '.join(shares_of(bank))}")
    for reason in bank.skipped:
        typer.echo(f"left out: {reason}", err=True)


if __name__ == "__main__":
    app()
