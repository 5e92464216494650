"""The commands ``synthaug cohort`` and ``synthaug inspect``; the first is also ``python -m synthaug.cohort``."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli.errors import one_line_errors, stoppable
from synthaug.cli.options import (
    ChannelsOption,
    ClassesOption,
    GroupOption,
    LayoutOption,
    UnlabelledOption,
    split_channels,
    tell_taken,
    tell_written,
)
from synthaug.cli.profiles import ProfileOption
from synthaug.profile.profile import find_profile
from synthaug.remote import as_place

SHORT = {
    "profile": "profile",
    "cases": "cases",
    "count": "count",
    "layout": "layout",
    "seed": "seed",
    "exclude": "exclude",
    "generator": "generator",
    "classes": "classes",
    "bank": "lesions.bank",
    "per_case": "lesions.per_case",
    "scale": "lesions.scale",
    "diameter_mm": "lesions.diameter_mm",
    "hosts": "hosts.tumour",
    "unlabelled": "hosts.unlabelled",
    "group_pattern": "hosts.group_pattern",
    "folds": "splits.folds",
    "per_class": "balance.per_class",
    "balance": "balance.by",
}
"""Options and the keys of the configuration that they set."""


def cohort(
    out: Annotated[str, typer.Option(help="Folder of the cohort, or its URL: s3://bucket/cohort.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Any key, such as lesions.retries=20.")] = None,
    config: Annotated[
        str | None, typer.Option(help="YAML file with all of it, or a name; options and keys change it.")
    ] = None,
    profile: ProfileOption = None,
    cases: Annotated[str | None, typer.Option(help="Folder of the host cases, or its URL.")] = None,
    bank: Annotated[
        str | None, typer.Option(help="Bank or sampler of lesion masks, or its URL; without it, procedural shapes.")
    ] = None,
    generator: Annotated[str | None, typer.Option(help="paste, procedural, a folder of weights, ...")] = None,
    count: Annotated[int | None, typer.Option(help="Cases to make.")] = None,
    layout: Annotated[str | None, typer.Option(help="nnunet, msd, bids, brats, webdataset or zarr.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="Decisions of synthaug view; rejected cases are skipped.")
    ] = None,
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    per_case: Annotated[tuple[int, int] | None, typer.Option(help="Least and most lesions in a case.")] = None,
    scale: Annotated[tuple[float, float] | None, typer.Option(help="Range of the linear scale.")] = None,
    diameter_mm: Annotated[tuple[float, float] | None, typer.Option(help="Range of the diameter instead.")] = None,
    swap: Annotated[list[str] | None, typer.Option(help="FROM:TO:PROBABILITY, may be repeated.")] = None,
    hosts: Annotated[str | None, typer.Option(help="any, with or free: hosts by their own tumours.")] = None,
    unlabelled: UnlabelledOption = None,
    group_pattern: GroupOption = None,
    folds: Annotated[str | None, typer.Option(help="splits_final.json of the real data, or a number to make.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Instead of count: cases of each class or size.")] = None,
    balance: Annotated[str | None, typer.Option(help="What --per-class balances: class or size.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="local, accelerate (in a launch of it, the default there) or ray.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: every n-th case from the i-th on, from 0; see docs.")] = None,
    join: Annotated[bool, typer.Option(help="Work beside another launch on the same cohort.")] = False,
    actors: Annotated[int | None, typer.Option(min=1, help="Workers of ray; by default as many as fit.")] = None,
) -> None:
    """Write a cohort of synthetic cases; the same command again continues one that was stopped.

    The cases are the same, byte for byte, from every engine, shard by shard or at once.

    Exit code 0: every case is there, or every one of the shard; 1: some are not, and were named; 2: nothing could be
    begun (another launch is at work there, for one), or the disk was full in the end.
    """
    given = {key: value for key, value in locals().items() if key in SHORT and value is not None}
    if config is None and profile is None and (beside := find_profile(as_place(cases))) is not None:
        typer.echo(f"profile: {beside} (beside the cases)", err=True)
        given["profile"] = beside
    values = {SHORT[key]: value for key, value in given.items()}
    if channels is not None:
        values["channels"] = split_channels(channels)
    if swap:
        values["lesions.swaps"] = [text.split(":") for text in swap]
    with _one_line_errors():
        from synthaug.cohort.production import generate

        say = logging.StreamHandler()
        logging.getLogger("synthaug.cohort").addHandler(say)
        logging.getLogger("synthaug.cohort").setLevel(logging.INFO if _is_first() else logging.ERROR)
        try:
            with stoppable(out), _terminated_as_interrupted():
                made_of = _configuration(config, values, overrides or [])
                summary = generate(*(made_of, out), progress=True, engine=engine, shard=shard, join=join, actors=actors)
        finally:
            logging.getLogger("synthaug.cohort").removeHandler(say)
    if _is_first():
        _tell(summary)
    raise typer.Exit(0 if summary.complete or summary.sound_so_far else 1)


def _is_first() -> bool:
    """Whether this is the first process of its launch, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM, by which Slurm and Ray end a job, for Ctrl-C: locks are given back."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line_errors() -> AbstractContextManager[None]:
    return one_line_errors(ValueError, OSError, ModuleNotFoundError, missing='; pip install "synthaug[cohort]"')


def _configuration(config: str | None, values: dict[str, Any], overrides: list[str]):
    import yaml

    from synthaug.cohort.config import CohortConfig
    from synthaug.config import read_config
    from synthaug.shipped import find_config

    file = None if config is None else find_config(config)
    texts = [f"{k}={yaml.safe_dump(_plain(v), default_flow_style=True, width=10_000)}" for k, v in values.items()]
    texts = [text.removesuffix("...\n").strip() for text in texts]
    return read_config(file, CohortConfig, [*texts, *overrides])


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return str(value) if isinstance(value, Path) else value


def _tell(summary) -> None:
    done = "nothing to do" if not summary.made and summary.complete else f"{summary.made} made now"
    typer.echo(f"{summary.written} of {summary.asked} cases in {summary.out} ({done}); {summary.out}/report.html")
    if summary.left:
        typer.echo(f"{summary.left} cases are left to other shards or launches; the one that ends last describes all")
    if summary.complete:
        tell_written(summary.out, "synthaug", "view", summary.out)
    for word, which in (("refused", summary.refused), ("failed", summary.failed)):
        for name, reason in which.items():
            typer.echo(f"{word}: {name}: {reason}", err=True)


def inspect(
    path: Annotated[str, typer.Argument(help="A cohort, COHORT/CASE, or any folder of cases, or a URL of them.")],
    classes: ClassesOption = None,
    layout: LayoutOption = "auto",
) -> None:
    """Say what is in a cohort or a case; of a cohort, whether every file is as its manifest says.

    Exit code 1: a file is missing, extra or altered, a case cannot be read, or a cohort has none.
    """
    with _one_line_errors():
        sound = _inspect_any(path, classes, layout)
    raise typer.Exit(0 if sound else 1)


def _inspect_any(path: str, classes: str | None, layout: str) -> bool:
    from synthaug.cohort.summary_lines import describe_case, describe_cohort, describe_files
    from synthaug.cohort.verification import is_cohort, verify
    from synthaug.data.cases import CaseError
    from synthaug.data.dataset import find_classes, named_cases
    from synthaug.remote import local_folder

    if is_cohort(path):
        found = verify(path)
        typer.echo("\n".join(describe_cohort(found)))
        if not found.summary["written"] + found.summary["real"]:
            typer.echo(f"{path}: no case could be written", err=True)
            return False
        return found.sound
    above, _, name = path.rstrip("/").rpartition("/")
    if is_cohort(above or "."):
        found = verify(above or ".", name)
        typer.echo("\n".join(describe_case(found)))
        return found.sound
    folder = local_folder(path)
    sound, cases = True, named_cases(folder, layout)
    try:
        vocabulary, said = find_classes(folder, cases, classes, structures=True)
        tell_taken([] if said is None else [f"classes {vocabulary} ({said})"])
    except ValueError as error:
        if classes is not None:
            raise
        vocabulary = None
        typer.echo(f"{error}", err=True)
    for case in cases:
        try:
            typer.echo("\n".join(describe_files(case, vocabulary)))
        except CaseError as error:
            typer.echo(f"{error}", err=True)
            sound = False
    return sound
