"""The commands ``synthaug nnunet-path`` and ``synthaug nnunet-bank``."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.cli.options import ERRORS, PerOption, tell_written


def nnunet_path() -> None:
    """Print the folder that nnUNet_extTrainer names, so that nnU-Net finds nnUNetTrainerSynthAug."""
    from synthaug.adapters.nnunet import trainer_folder

    typer.echo(trainer_folder())


def nnunet_bank(
    dataset: Annotated[str, typer.Argument(help="Number or name of the preprocessed dataset.")],
    fold: Annotated[str, typer.Option(help="Number of the fold, or all.")],
    config: Annotated[
        Path | None, typer.Option(envvar="SYNTHAUG_CONFIG", help="The settings that nnUNetTrainerSynthAug will read.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The bank file; that of the settings by default.")
    ] = None,
    configuration: Annotated[str, typer.Option("--configuration", "-c", help="Of the plans.")] = "3d_fullres",
    plans: Annotated[str, typer.Option("--plans", "-p", help="Name of the plans.")] = "nnUNetPlans",
    per: PerOption = "lesion",
    min_voxels: Annotated[int, typer.Option(help="Smallest lesion kept.")] = 27,
) -> None:
    """Cut the lesions of a fold's training cases, as nnU-Net preprocessed them, into one bank file."""
    with one_line_errors(*ERRORS):
        if importlib.util.find_spec("nnunetv2") is None:
            raise ImportError('nnunet-bank reads what nnU-Net preprocessed: pip install "synthaug[nnunet]"')
        from synthaug.adapters.nnunet.bank import Preprocessed, build_bank, shares_of
        from synthaug.adapters.nnunet.settings import Settings, read_settings
        from synthaug.config import ConfigError
        from synthaug.lesions.sampler import shipped

        chosen = fold if fold == "all" else int(fold)
        settings = Settings(lesions="shapes") if config is None else read_settings(config)
        target = out or settings.bank_path(chosen)
        if shipped(target):
            raise ConfigError(
                f"bank: {target} is a sampler of masks that ships and needs no bank; --out cuts one anyway"
            )
        bank = build_bank(Preprocessed.open(dataset, configuration, plans), chosen, settings, per, min_voxels)
        bank.save(target)
    typer.echo(f"{len(bank)} lesions of {len(bank.groups)} patients in {target}; voxels: {', '.join(shares_of(bank))}")
    for reason in bank.skipped:
        typer.echo(f"left out: {reason}", err=True)
    tell_written(target, "nnUNetv2_train", dataset, configuration, fold, "-tr", "nnUNetTrainerSynthAug")
