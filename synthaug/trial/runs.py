"""The trainings of a trial, as processes: those that are done are skipped, stopped ones go on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from synthaug.training.artefacts import read_rows
from synthaug.training.launch import trainer_file
from synthaug.training.run import read_metrics
from synthaug.trial.plan import Run, Trial, Unit

LAST_LINES = 5
WAIT_S = 0.2


def finished(run: Run) -> bool:
    """Whether a training has done all its steps, was scored after them, and its model is there."""
    rows = read_metrics(run.folder)
    return bool(rows) and rows[-1]["step"] == run.steps and (run.folder / "model" / "config.json").is_file()


def whole_units(trial: Trial) -> list[Unit]:
    """Rotations and seeds that all arms have done, of the arms that have done any."""
    done = [(run.arm, (run.rotation, run.seed)) for run in trial.runs() if finished(run)]
    arms = {arm for arm, _ in done}
    return [unit for unit in trial.units if len(arms) > 1 and all((arm, unit) in done for arm in arms)]


def scores(run: Run) -> list[dict]:
    """The rows of a run's last validation."""
    return [row for row in read_rows(run.folder) if row["step"] == run.steps]


def perform(
    trial: Trial,
    held: int | None = None,
    say: Callable[[str], None] = print,
    whole: Callable[[int, int], None] = lambda done, planned: None,
) -> list[Run]:
    """Run what is not done yet; returns the trainings that failed, which are named with their last lines.

    Where this process is stopped by Ctrl-C or SIGTERM its trainings are stopped, too.

    Args:
        trial: an opened trial.
        held: file descriptor of its lock, which the trainings inherit.
        say: takes a line about each training that ended.
        whole: called with the number of whole pairs and of those planned, whenever there is one more.
    """
    waiting = [run for run in trial.runs() if not finished(run)]
    count, planned = len(whole_units(trial)), len(trial.units)
    failed: list[Run] = []
    active: dict[subprocess.Popen, tuple[Run, float]] = {}
    with _ended(active):
        while waiting or active:
            while waiting and len(active) < trial.config.workers:
                run = waiting.pop(0)
                active[_start(trial, run, held)] = (run, time.monotonic())
            for process in [p for p in active if p.poll() is not None]:
                run, since = active.pop(process)
                if process.returncode == 0 and finished(run):
                    say(f"{run.name}: done in {time.monotonic() - since:.0f} s; {len(waiting) + len(active)} to do")
                else:
                    failed.append(run)
                    say(f"{run.name}: failed with exit code {process.returncode}\n{last_lines(run.log)}")
                if (now := len(whole_units(trial))) > count:
                    count = now
                    whole(count, planned)
            time.sleep(WAIT_S)
    return failed


def last_lines(log: Path) -> str:
    """Read the end of a log, indented, with the log's name."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return "\n".join(f"    {line}" for line in [*lines, f"({log})"])


def environment(threads: int) -> Mapping[str, str]:
    """Environment of a training: this one, with a number of threads."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _start(trial: Trial, run: Run, held: int | None) -> subprocess.Popen:
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(trainer_file("segmentation")), "--config", str(trial.base), "--out", str(run.folder)]
    with run.log.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *run.overrides],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(trial.config.threads),
            pass_fds=() if held is None else (held,),
        )
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + trial.config.nice)
    os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    return process


@contextmanager
def _ended(active: Mapping[subprocess.Popen, object]) -> Iterator[None]:
    """End all processes at the end of the block, also where SIGTERM ends it."""

    def stop(number, frame):
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in active:
            process.terminate()
        for process in active:
            process.wait()
