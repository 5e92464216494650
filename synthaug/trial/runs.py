"""Doing the trainings of a trial, each in a process of its own, in the background of other work."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from synthaug.files import replace_file
from synthaug.training.launch import trainer_file
from synthaug.trial.config import TrialConfig
from synthaug.trial.plan import Plan, Run

DONE, LOG = "done.json", "log.txt"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
POLL_S = 0.2
ENDING_S = 10.0
LAST_LINES = 5


def is_done(run: Run) -> bool:
    """Whether a training has ended well."""
    return (run.folder / DONE).is_file()


@dataclass
class Training:
    """A training at work."""

    run: Run
    process: subprocess.Popen
    began: float

    @classmethod
    def start(cls, run: Run, plan: Plan, lock: int) -> "Training":
        """Begin, or go on with, a training; its log goes on too."""
        run.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(trainer_file("segmentation")), "--config", str(plan.base)]
        command += ["--out", str(run.folder), *run.overrides]
        threads = dict.fromkeys(THREADS, str(plan.config.threads))
        with (run.folder / LOG).open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | threads,
                pass_fds=(lock,),  # while a training lives the trial is locked, even if this process was killed
                start_new_session=True,  # Ctrl-C is ours to pass on
            )
        _be_nice(process.pid, plan.config)
        return cls(run, process, time.monotonic())

    def end(self) -> None:
        """Stop the training; its latest checkpoint stays."""
        self.process.terminate()
        try:
            self.process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _be_nice(pid: int, config: TrialConfig) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, pid, max(mine, config.nice))


@dataclass
class Progress:
    """What is done, and how long the rest takes.

    Attributes:
        total: number of runs of the trial.
        done: number of runs that are done.
        seconds: wall time of the runs that were done now.
    """

    total: int
    done: int
    seconds: list[float] = field(default_factory=list)

    def line(self, run: Run, seconds: float, workers: int) -> str:
        """Count a run that is done, and write its line."""
        self.done += 1
        self.seconds.append(seconds)
        left = (self.total - self.done) * sum(self.seconds) / len(self.seconds) / workers
        rest = f"; about {duration(left)} left" if self.done < self.total else ""
        return f"[{self.done}/{self.total}] {run.words}: done in {duration(seconds)}{rest}"


def duration(seconds: float) -> str:
    """Write a time in words: ``"40 s"``, ``"12 min"``, ``"3.5 h"``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def do_runs(plan: Plan, lock: int, say: Callable[[str], None], after: Callable[[], None]) -> list[Run]:
    """Do all trainings that are not done, as many at a time as the configuration says.

    Args:
        plan: of the trial.
        lock: file descriptor of the trial's lock.
        say: takes a line for each run.
        after: called after each run that was done.

    Returns:
        The runs that failed; the others go on.
    """
    waiting = [run for run in plan.runs if not is_done(run)]
    progress = Progress(len(plan.runs), len(plan.runs) - len(waiting))
    at_work: list[Training] = []
    failed: list[Run] = []
    try:
        while waiting or at_work:
            while waiting and len(at_work) < plan.config.workers:
                at_work.append(Training.start(waiting.pop(0), plan, lock))
            ended = [training for training in at_work if training.process.poll() is not None]
            for training in ended:
                at_work.remove(training)
                seconds = time.monotonic() - training.began
                if training.process.returncode:
                    failed.append(training.run)
                    say(failure(training.run, training.process.returncode))
                else:
                    replace_file(training.run.folder / DONE, json.dumps({"seconds": round(seconds, 1)}) + "\n")
                    say(progress.line(training.run, seconds, plan.config.workers))
                    after()
            if not ended:
                time.sleep(POLL_S)
    finally:
        for training in at_work:
            training.end()
    return failed


def failure(run: Run, code: int) -> str:
    """Say that a run failed, with the end of its log."""
    lines = [line for line in (run.folder / LOG).read_text(encoding="utf-8").splitlines() if line.strip()]
    last = "\n".join(f"    {line}" for line in lines[-LAST_LINES:])
    return f"failed: {run.words} (exit code {code}), {run.folder / LOG} ends with\n{last}"


def complete_pairs(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """List rotation and seed wherever all arms are done, in order."""
    pairs = dict.fromkeys(run.pair for run in runs)
    return [pair for pair in pairs if all(is_done(run) for run in runs if run.pair == pair)]
