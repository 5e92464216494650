"""The folder of a trial: what it is a trial of, and the lock that keeps a second process out."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from synthaug.config import ConfigError
from synthaug.data.stored import size_and_time
from synthaug.files import replace_file
from synthaug.training.run import leaves
from synthaug.trial.plan import Plan

FILE, LOCK = "trial.yaml", "lock"
FREE = ("trial.workers", "trial.looks", "trial.nice", "trial.base", "trial.overrides")
"""Keys that a continued trial may have otherwise; what base and overrides come to is compared in full."""

ELSEWHERE = ("folder", "cache", "profile")
"""Keys of a run's data that say where it lies."""


def keep_description(plan: Plan) -> None:
    """Write what the trial is of; of one that goes on, compare it with the former first.

    Raises:
        ConfigError: the folder holds another trial; what differs is named.
    """
    file, new = plan.out / FILE, _description(plan)
    if file.is_file():
        trees = (yaml.safe_load(file.read_text(encoding="utf-8")), new)
        old, now = (dict(leaves(tree)) for tree in trees)
        changed = [key for key in {**old, **now} if old.get(key) != now.get(key) and key not in FREE]
        if changed:
            words = "; ".join(f"{key} was {_short(old.get(key))} and is {_short(now.get(key))}" for key in changed[:5])
            more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise ConfigError(f"{plan.out} holds another trial ({words}{more}): give another --out")
    plan.out.mkdir(parents=True, exist_ok=True)
    replace_file(file, yaml.safe_dump(new, sort_keys=False, width=110))


def _description(plan: Plan) -> dict[str, Any]:
    first = {run.arm: run for run in reversed(plan.runs)}
    return {
        "trial": plan.config.model_dump(mode="json"),
        "configurations": {
            arm.name: _content(first[arm.name].config.model_dump(mode="json")) for arm in plan.config.arms
        },
        "cases": {case.name: {"patient": case.group, "bytes": bytes_of(case)} for case in plan.cases},
        "rotations": [{"train": list(turn.train), "test": list(turn.test)} for turn in plan.rotations],
    }


def _content(config: dict[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in config["data"].items() if key not in ELSEWHERE}
    return config | {"data": data}


def bytes_of(case: Any) -> int:
    """Size of a case's files, by which other data of the same names is noticed."""
    found = [size_and_time(Path(path)) for path in (*case.images.values(), case.label)]
    return sum(about[0] for about in found if about is not None)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:77]}..."


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Keep other processes out of the trial; yields the lock's file descriptor, for the trainings to inherit.

    The system lifts the lock when the process and all its trainings have ended, however they did.

    Raises:
        ConfigError: another process, or a training that it left behind, is at work here.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 20, 0).decode() or "another process"
            raise ConfigError(
                f"{out}: the trial is running already, as process {holder} or as a training that it left"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield lock
    finally:
        os.close(lock)
