"""The commands ``synthaug configs list``, ``show`` and ``copy``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors
from synthaug.files import replace_file
from synthaug.shipped import find_config, shipped_configs

configs_app = typer.Typer(help="The configurations that come with synthaug.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="Such as gan_tiny; synthaug configs list has them all.")]


@configs_app.command("list")
def list_configs() -> None:
    """List the configurations, with their first lines."""
    with one_line_errors(OSError):
        configs = shipped_configs()
    width = max(map(len, configs))
    for name, file in configs.items():
        typer.echo(f"{name:{width}}  {_summary(file)}")


def _summary(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


@configs_app.command()
def show(name: NameArgument) -> None:
    """Print a configuration; comments say what each key means."""
    with one_line_errors(ValueError, OSError):
        typer.echo(find_config(name).read_text(encoding="utf-8"), nl=False)


@configs_app.command()
def copy(
    name: NameArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; NAME.yaml by default.")] = None,
) -> None:
    """Copy a configuration, to change it; a file that is there is left as it is."""
    with one_line_errors(ValueError, OSError):
        source, target = find_config(name), out or Path(f"{name}.yaml")
        if target.exists():
            raise FileExistsError(f"{target} is there already: give another --out")
        replace_file(target, source.read_bytes())
    typer.echo(f"written: {target}; next: change it, then {_use(name, target)}")


def _use(name: str, file: Path) -> str:
    """The command that reads a copy of a shipped configuration."""
    kind = name.partition("_")[0]
    if kind == "nnunet":
        return f"export SYNTHAUG_CONFIG={file}"
    return f"synthaug {kind if kind in ('cohort', 'trial') else f'train {kind}'} --config {file}"
