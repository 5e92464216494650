"""The command line of a trainer's script."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from synthaug.config import ConfigError, read_config
from synthaug.data import CaseError
from synthaug.shipped import find_config
from synthaug.training.run_config import RunConfig

EXIT_CODE = 2
"""Of a run that could not begin for what it was told, or stopped at a case that cannot be read."""

INTERRUPTED = 130
"""Of a run that Ctrl-C stopped."""

WAIT_S = 10.0
"""Seconds in which the first process of a machine says what is wrong, which most often all find; the launcher then ends
the others."""


def command(train: Callable[[Any, Path], Any], model: type[RunConfig], summary: str) -> Callable[..., None]:
    """Make the command line of a trainer, for `typer.run`: --config NAME_OR_FILE [--out FOLDER] [key=value ...].

    Args:
        train: called with the configuration and the run's folder.
        model: pydantic model of the configuration.
        summary: first line of the help.
    """

    def main(
        config: Annotated[str, typer.Option(help="YAML file, or the name of one that comes with synthaug")],
        out: Annotated[Path | None, typer.Option(help="folder of the run [default: runs/<name of the config>]")] = None,
        overrides: Annotated[
            list[str] | None, typer.Argument(help="changes of the config, such as optimizer.steps=50")
        ] = None,
    ) -> None:
        try:
            file = find_config(config)
        except ValueError as error:
            _stop(error)
        folder = out or Path("runs") / file.stem
        try:
            train(read_config(file, model, overrides or ()), folder)
        except (ConfigError, CaseError) as error:
            _stop(error)
        except KeyboardInterrupt:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                words = f"stopped; the same command goes on with {folder} from its latest checkpoint"
                print(words, file=sys.stderr, flush=True)
            raise SystemExit(INTERRUPTED) from None

    main.__doc__ = f"{summary}; the same command again continues a run that was stopped."
    return main


def _stop(error: Exception) -> NoReturn:
    """End with one message on stderr, even where several processes have the same to say."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(WAIT_S)
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CODE)
