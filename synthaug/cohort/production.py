"""Production of a cohort: whole cases in, whole cases out, by any engine, killed and continued at any time."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from random import Random

import torch
from tqdm import tqdm

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.description import description
from synthaug.cohort.engines import Engine, Order, Share, make_engine
from synthaug.cohort.gate import Segmenter
from synthaug.cohort.job import REPORT, SUMMARY
from synthaug.cohort.locks import Locks
from synthaug.cohort.making import CaseMaker
from synthaug.cohort.report import write_cohort_report
from synthaug.cohort.tally import Tally
from synthaug.config import ConfigError
from synthaug.generators.base import TumorGenerator
from synthaug.lesions.bank import LesionBank

LOOK_EVERY_S = 2.0
JOIN_EVERY = 500
"""Cases that a process makes between two looks for parts of the records that are whole."""


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        out: the cohort's place.
        asked: number of synthetic cases asked for.
        written: number of synthetic cases that are there.
        refused: case name to the reason why no lesion could be put in; trying again would not help.
        failed: case name to what it failed with; the same command tries it again.
        made: number of cases that this run made.
        left: number of cases that other shards or launches have to make.
    """

    out: str
    asked: int
    written: int
    refused: dict[str, str]
    failed: dict[str, str]
    made: int
    left: int = 0

    @property
    def complete(self) -> bool:
        """Whether every case that was asked for is there."""
        return self.written == self.asked and not self.failed

    @property
    def sound_so_far(self) -> bool:
        """Whether nothing is missing but what other shards or launches make."""
        return self.left > 0 and not self.failed and not self.refused


def generate(
    config: CohortConfig,
    out: str | os.PathLike,
    *,
    generator: TumorGenerator | None = None,
    segmenter: Segmenter | None = None,
    progress: bool = False,
    engine: str | None = None,
    shard: str | None = None,
    join: bool = False,
    actors: int | None = None,
) -> Summary:
    """Make a cohort, or continue one.

    Case i depends on (seed, i) alone: one process or many, by any engine, in shards, in one go or killed and
    continued, the files and the manifest are the same, byte for byte. A finished cohort is left alone. In a launch of
    several processes all of them call this function, and all get the same summary.

    Args:
        config: the cohort's configuration.
        out: the cohort's folder, in a place that all processes reach.
        generator: used in place of the configuration's.
        segmenter: used by the gate in place of the configuration's; see `Gate`.
        progress: show a progress bar.
        engine: one of `synthaug.cohort.engines.ENGINES`; by default ``"accelerate"`` in a launch of several processes
            and ``"local"`` elsewhere.
        shard: ``"i/n"``: make every n-th case from the i-th on, and describe the cohort where it is whole then.
        join: work beside another launch that makes the same cohort; without it that is refused.
        actors: number of Ray's workers.

    Returns:
        Which cases were made and which were not.

    Raises:
        ConfigError: nothing could be begun: files that are missing or do not fit each other, a folder that holds
            another cohort, cannot be written to or is worked on by another launch, folds that leak.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from synthaug.cohort import verify
        >>> from synthaug.data.phantoms.phantom import write_phantom_dataset
        >>> shapes = {"shapes": {"diameter_mm": (10, 14)}}
        >>> with TemporaryDirectory() as folder:
        ...     hosts, out = Path(folder) / "brats", Path(folder) / "Dataset501_Synthetic"
        ...     cases = write_phantom_dataset(hosts, count=1, size=(48, 48, 48), tumour_free=1)
        ...     known = {"classes": "BRATS18", "lesions": shapes}
        ...     config = CohortConfig(cases=hosts, count=2, layout="nnunet", **known)
        ...     summary, sound = generate(config, out), verify(out).sound
        ...     files = sorted(path.name for path in (out / "labelsTr").iterdir())
        >>> summary.complete, sound, files
        (True, True, ['synth_000000.nii.gz', 'synth_000001.nii.gz'])
    """
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("the report of a cohort needs matplotlib")
    share = Share() if shard is None else Share.read(shard)
    order = Order(config, os.fspath(out), generator, segmenter, actors)
    with _threads(config.threads):
        working = make_engine(engine, order)
        maker = order.maker(working.device)
        return _Production(maker, working, share, join).run(progress)


class _Production:
    """Makes what is missing of a cohort, or a share of it, and describes the whole."""

    def __init__(self, maker: CaseMaker, engine: Engine, share: Share, join: bool):
        self.maker, self.engine, self.share, self.join = maker, engine, share, join
        self.job, self.records, self.locks = maker.job, maker.records, Locks(maker.job.store)

    def run(self, progress: bool) -> Summary:
        """Make what is missing; then the main process writes what describes the whole."""
        with ExitStack() as held:
            done = self.engine.once(lambda: self._begin(held))
            made, failed = self._make(done, progress)
            made, failures = sum(self.engine.joined([made])), self.engine.joined(list(failed.items()))
            summary = self.engine.once(lambda: self._finish(made, dict(sorted(failures))))
        self.engine.leave()
        return summary

    def _begin(self, held: ExitStack) -> int:
        """Check the folder and lock it; returns how many cases are done."""
        maker, shard = self.maker, (self.share.number, self.share.of) if self.share.of > 1 else None
        real = {maker.name(maker.config.total + i) for i in range(len(maker.real))}
        if len(real) < len(maker.real) or (real and any(maker.name(i) in real for i in range(maker.config.total))):
            raise ConfigError(f"include_real: two cases would have one name in the layout {maker.config.layout}")
        self.job.check(maker.identity)
        try:
            self.me = held.enter_context(self.locks.held(shard, self.join))
            self.job.start(maker.identity, alone=not self.locks.others(self.me))
        except OSError as error:
            raise ConfigError(f"{self.job.store.address}: cannot be written to: {error}") from error
        return self.records.count()

    def _make(self, done: int, progress: bool) -> tuple[int, dict[str, str]]:
        """Make the cases of this process's share; returns how many, and what the others failed with."""
        maker, engine = self.maker, self.engine
        share = self.share.split(engine.share.number, engine.share.of)
        made, failed, looked = 0, dict[str, str](), time.monotonic()
        with tqdm(
            total=maker.total,
            initial=done,
            desc=f"cohort, {engine.processes} processes" if engine.processes > 1 else "cohort",
            unit="case",
            smoothing=0,  # the remaining time from the mean of the run, not from the last few cases
            disable=not (progress and engine.is_main),
        ) as bar:
            for index, failure in engine.make(maker, self._missing(share)):
                if failure is not None:
                    failed[maker.name(index)] = failure.message
                    bar.write(f"failed: {maker.name(index)}: {failure.message}")
                made += failure is None
                if engine.processes == 1 and self.share.of == 1 and not self.join:
                    bar.update(1)
                elif bar.disable is False and time.monotonic() - looked > LOOK_EVERY_S:
                    # the others' cases count, too: what is there is what is done
                    bar.update(self.records.count() + len(failed) - bar.n)
                    looked = time.monotonic()
                if made % min(JOIN_EVERY, self.records.part_cases) == 0 and engine.is_main:
                    self.records.join()
        return made, failed

    def _missing(self, share: Share) -> Iterator[int]:
        """List the share's cases that are missing; one that joined begins elsewhere, and asks again before each."""
        if not self.join or self.engine.processes > 1:
            yield from (index for index in self.records.missing() if index in share)
            return
        total = self.maker.total
        start = Random(self.me.id).randrange(total)
        for cases in (range(start, total), range(start)):
            missing = (index for index in self.records.missing() if index in cases and index in share)
            yield from (index for index in missing if not self.records.done([index]))

    def _finish(self, made: int, failed: dict[str, str]) -> Summary:
        """Describe all cases that are done, if nobody else is at work on the rest."""
        self.records.join()
        tally = self.records.tally()
        config, total = self.maker.config, self.maker.total
        left = total - tally.all_written - tally.refused_cases - len(failed)
        # in archives, cases that wait for one that failed are not left to anybody
        others = left > 0 and (self.share.of > 1 or bool(self.locks.others(self.me)))
        if not others:
            self._describe(tally, made > 0)
        return Summary(
            *(self.job.store.address, config.total, tally.written, tally.not_written, failed, made),
            left=left if others else 0,
        )

    def _describe(self, tally: Tally, changed: bool) -> None:
        try:
            self._write_description(tally, changed)
        except OSError as error:
            raise ConfigError(
                f"{self.job.store.address}: {tally.written} cases are done, what describes them cannot be written "
                f"({error}); the same command goes on"
            ) from error

    def _write_description(self, tally: Tally, changed: bool) -> None:
        maker, store = self.maker, self.job.store
        if changed or not self._is_described(tally):
            # without its summary a cohort counts as unfinished, so that none is taken for whole between two files
            store.remove([SUMMARY])
            known = (maker.config, maker.layout, maker.provenance, self.records, tally, maker.splits)
            store.write("description", description(*known))
        if changed or not store.is_there(REPORT):
            bank = maker.bank if isinstance(maker.bank, LesionBank) else None
            write_cohort_report(store, maker.config, maker.layout, maker.provenance, self.records, tally, bank)

    def _is_described(self, tally: Tally) -> bool:
        """Whether the summary is there and is of the cases that are done."""
        try:
            summary = json.loads(self.job.store.read(SUMMARY))
        except FileNotFoundError:
            return False
        return {**summary, **tally.summary(self.maker.config)} == summary


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
