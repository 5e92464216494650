"""A trial from its configuration to its page."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthaug.evaluation.summary import csv_text
from synthaug.files import replace_files
from synthaug.trial.folder import keep_description, locked
from synthaug.trial.looks import read_looks, take_look
from synthaug.trial.page import page
from synthaug.trial.plan import Plan
from synthaug.trial.results import pair_rows, read_results
from synthaug.trial.runs import complete_pairs, do_runs

PAGE, TABLE = "trial.html", "trial.csv"


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        failed: number of runs that failed.
        sentence: the recommendation, or why there is none.
        page: its file; None where there is none yet.
    """

    failed: int
    sentence: str
    page: Path | None


def run_trial(plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Do what is left of a trial, and write its page at each look and at the end.

    Args:
        plan: of the trial.
        say: takes a line for each run and each page.

    Raises:
        ConfigError: the folder is of another trial, or in use.
        KeyboardInterrupt: the trial was stopped, by Ctrl-C or SIGTERM; its runs keep their checkpoints.
    """
    with locked(plan.out) as lock, _stopped_as_by_keys():
        keep_description(plan)
        failed = do_runs(plan, lock, say, lambda: _early_page(plan, say))
        sentence, path = write_page(plan)
    return Outcome(len(failed), sentence, path)


def report_trial(plan: Plan) -> Outcome:
    """Write the page of what is done; it is a look, where one is left.

    Raises:
        ConfigError: the folder is of another trial.
        ValueError: no pair is complete.
    """
    keep_description(plan)
    read_results(plan)  # raises where there is nothing
    return Outcome(0, *write_page(plan))


def _early_page(plan: Plan, say: Callable[[str], None]) -> None:
    """Write the page where as many pairs are complete as the next planned look needs."""
    looks, pairs = plan.config.looks, len(complete_pairs(plan.runs))
    taken = len([look for look in read_looks(plan.out) if not look.final])
    if taken < looks - 1 and plan.pairs * (taken + 1) / looks <= pairs < plan.pairs:
        sentence, path = write_page(plan)
        say(f"look {taken + 1} of {looks}: {sentence} {path}")


def write_page(plan: Plan) -> tuple[str, Path | None]:
    """Write page and table of what is done; returns the recommendation and the page's file."""
    try:
        results = read_results(plan)
    except ValueError as error:
        return str(error), None
    config = plan.config
    look = take_look(plan.out, len(results.pairs), plan.pairs, config.looks, config.alpha)
    sentence, text = page(results, look)
    replace_files({plan.out / PAGE: text, plan.out / TABLE: csv_text(pair_rows(results))})
    return sentence, plan.out / PAGE


@contextmanager
def _stopped_as_by_keys() -> Iterator[None]:
    """Let SIGTERM, and the terminal's end, stop the trial as Ctrl-C does, so that its trainings are ended.

    What is ignored, as nohup has it with the terminal's end, stays so.
    """

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
