"""Errors of the commands in one line, and the parsing of swaps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

INTERRUPTED = 130
"""Exit code of what Ctrl-C stopped."""

TRAIN = '; it comes with pip install "synthaug[train]"'


@contextmanager
def one_line_errors(*kinds: type[Exception], missing: str = "") -> Iterator[None]:
    """Turn errors about what the user gave, and packages that are not installed, into one line and exit code 2.

    Args:
        *kinds: exceptions that are such errors; others pass.
        missing: added to the line where a module is not there.
    """
    try:
        yield
    except kinds as error:
        advice = missing if isinstance(error, ModuleNotFoundError) else ""
        typer.echo(f"error: {error}{advice}", err=True)
        raise typer.Exit(2) from error


@contextmanager
def stoppable(out: str | os.PathLike) -> Iterator[None]:
    """Say, when Ctrl-C stops what goes on in a folder, that the same command continues it, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on with {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def parsed_swap(text: str) -> tuple[str, str, float]:
    """Parse a class swap from FROM:TO:PROBABILITY.

    Raises:
        ValueError: another form.
    """
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"--swap: expected FROM:TO:PROBABILITY, got {text!r}")
    try:
        return parts[0], parts[1], float(parts[2])
    except ValueError:
        raise ValueError(f"--swap: expected a number as probability, got {parts[2]!r}") from None
