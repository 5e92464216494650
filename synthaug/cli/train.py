"""The commands ``synthaug train segmentation``, ``gan``, ``diffusion`` and ``thin``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import TRAIN, one_line_errors
from synthaug.cli.options import tell_written
from synthaug.cli.profiles import ProfileOption
from synthaug.shipped import find_config
from synthaug.training.launch import TRAINERS, launch_trainer

FIRST_SIGNAL = 128

train_app = typer.Typer(
    help="Train a network by accelerate's launcher; a trainer takes a configuration, and changes of it.",
    no_args_is_help=True,
)


def _command(trainer: str) -> Callable[..., None]:
    def train(
        config: Annotated[
            str | None,
            typer.Option(
                help=f"YAML file, or a name that synthaug configs list shows; {trainer}_tiny, or the one beside the "
                "profile."
            ),
        ] = None,
        profile: ProfileOption = None,
        out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME of the config by default.")] = None,
        words: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[KEY=VALUE|OPTION]...",
                help="Changes of the configuration, such as optimizer.steps=50, and options that go on to accelerate "
                "launch, such as --cpu or --num-processes 2; accelerate launch --help has them all.",
            ),
        ] = None,
    ) -> None:
        changes = [word for word in words or () if "=" in word and not word.startswith("-")]
        options = [word for word in words or () if word not in changes]
        with one_line_errors(ValueError, OSError, ModuleNotFoundError, missing=TRAIN):
            chosen, changes = _with_profile(trainer, config, profile, changes)
            told = ["--config", str(find_config(chosen)), *([] if out is None else ["--out", str(out)]), *changes]
            code = launch_trainer(trainer, told, options)
        run = out or Path("runs") / Path(told[1]).stem
        if code == 0:
            tell_written(run, *_following(trainer, run))
        if code > FIRST_SIGNAL:
            typer.echo(f"error: the training was ended by signal {code - FIRST_SIGNAL}", err=True)
        raise typer.Exit(code)

    train.__doc__ = f"Train {TRAINERS[trainer]}; the same command again continues a run that was stopped."
    return train


def _following(trainer: str, run: Path) -> tuple[Path | str, ...]:
    """What to type after a training."""
    if trainer == "segmentation":
        return "synthaug", "predict", run, "CASES", "--out", "predictions"
    return "synthaug", "insert", "CASE", "--bank", "BANK", "--generator", run / "generator", "--out", "inserted"


def _with_profile(trainer: str, config: str | None, profile: Path | None, changes: list[str]) -> tuple[str, list[str]]:
    """The configuration and its changes; a profile has one beside it for each trainer, and is told to another one.

    Raises:
        ValueError: no configuration of this trainer beside the profile.
    """
    if profile is None:
        return config or f"{trainer}_tiny", changes
    from synthaug.profile.use import file_of

    path = file_of(profile).resolve()
    beside = path.parent / f"{trainer}.yaml"
    if config is None and not beside.is_file():
        raise ValueError(f"{beside}: not there; give --config, or make it by `synthaug fit`")
    return config or str(beside), [f"data.profile={path}", *changes]


for _trainer in TRAINERS:
    # unknown options are accelerate's, which says where they are not
    train_app.command(_trainer, context_settings={"ignore_unknown_options": True})(_command(_trainer))
