"""Production of a cohort: whole cases in, whole cases out, split over processes, killed and continued at any time."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from tqdm import tqdm

from synthaug.cohort.case_insertion import CaseInserter, InsertedCase, open_bank, open_generator, open_shapes
from synthaug.cohort.config import CohortConfig
from synthaug.cohort.description import description
from synthaug.cohort.excluded import numbers_left
from synthaug.cohort.gate import Gate, Segmenter
from synthaug.cohort.hosts import Host, described, find_hosts, host_number, read_host
from synthaug.cohort.job import SUMMARY, Job
from synthaug.cohort.layouts import make_layout
from synthaug.cohort.manifest import case_record
from synthaug.cohort.pipeline import Failure, overlapped
from synthaug.cohort.processes import Processes
from synthaug.cohort.provenance import identity, identity_sha256, versions
from synthaug.cohort.report import write_cohort_report
from synthaug.cohort.segmenter import load_segmenter
from synthaug.cohort.splits import Folds, LeakProof, made_folds, read_folds
from synthaug.config import ConfigError
from synthaug.data.cases import Case
from synthaug.data.groups import group_function
from synthaug.generators.base import TumorGenerator
from synthaug.generators.identity import generator_facts
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        out: the cohort's folder.
        asked: number of synthetic cases asked for.
        written: number of synthetic cases that are there.
        refused: case name to the reason why no lesion could be put in; trying again would not help.
        failed: case name to what it failed with; the same command tries it again.
        made: number of cases that this run made.
    """

    out: Path
    asked: int
    written: int
    refused: dict[str, str]
    failed: dict[str, str]
    made: int

    @property
    def complete(self) -> bool:
        """Whether every case that was asked for is there."""
        return self.written == self.asked and not self.failed


def generate(
    config: CohortConfig,
    out: str | os.PathLike,
    *,
    generator: TumorGenerator | None = None,
    segmenter: Segmenter | None = None,
    progress: bool = False,
) -> Summary:
    """Make a cohort, or continue one.

    Case i depends on (seed, i) alone: one process or several, in one go or killed and continued, the files and the
    manifest are the same, byte for byte. A finished cohort is left alone. In a launch of several processes all of them
    call this function, and all get the same summary.

    Args:
        config: the cohort's configuration.
        out: the cohort's folder, on a disk that all processes share.
        generator: used in place of the configuration's.
        segmenter: used by the gate in place of the configuration's; see `Gate`.
        progress: show a progress bar.

    Returns:
        Which cases were made and which were not.

    Raises:
        ConfigError: nothing could be begun: files that are missing or do not fit each other, a folder that holds
            another cohort or cannot be written to, folds that leak.

    Example:
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
    processes = Processes.current()
    with _threads(config.threads):
        return _Production(config, Path(out), generator, segmenter, processes).run(progress)


class _Production:
    """Makes one process's cases of a cohort."""

    def __init__(
        self,
        config: CohortConfig,
        out: Path,
        generator: TumorGenerator | None,
        segmenter: Segmenter | None,
        processes: Processes,
    ):
        if find_spec("matplotlib") is None:
            raise ModuleNotFoundError("the report of a cohort needs matplotlib")
        bank = open_bank(config)
        config = processes.from_main(lambda: described(config, bank))
        self.config, self.processes, self.job, self.layout = config, processes, Job(out), make_layout(config)
        self.lesions = open_shapes(config) if bank is None else bank
        painter = open_generator(config, generator, self.lesions)
        self.hosts = processes.from_main(lambda: find_hosts(config))
        self.splits = _leak_proof(config, self.hosts, self.lesions)
        facts = generator_facts(config.generator_name if generator is None else generator, painter)
        self.identity = identity(config, self.hosts, facts, self.splits and self.splits.folds)
        self.provenance = {
            "generator": facts,
            "versions": versions(),
            "config_sha256": identity_sha256(self.identity),
        }
        gate = _gate(config, self.lesions, segmenter, processes.device)
        self.inserter = CaseInserter(config, self.lesions, painter, gate, processes.device)
        self.real = [case for case in self.hosts if case.label is not None] if config.include_real else []
        self.total = config.total + len(self.real)
        self.numbers = numbers_left(config, self.layout)

    def run(self, progress: bool) -> Summary:
        """Make what is missing; then the main process writes what describes the whole."""
        done = self.processes.from_main(self._begin)
        todo = [i for i in range(self.total) if i not in done]
        failed = self._make(todo, progress) if todo else {}
        failures = dict(sorted(self.processes.gathered(list(failed.items()))))
        written, refused = self.processes.from_main(lambda: self._finish(bool(todo)))
        return Summary(self.job.out, self.config.total, written, refused, failures, len(todo) - len(failures))

    def name(self, index: int) -> str:
        """Name a case; those after the synthetic ones are real."""
        if index < self.config.total:
            return self.layout.synthetic_name(self.numbers[index])
        return self.layout.real_name(self.real[index - self.config.total].name)

    def _begin(self) -> set[int]:
        names = [self.name(i) for i in range(self.total)]
        if len(set(names)) < len(names):
            raise ConfigError(f"include_real: two cases would have one name in the layout {self.config.layout}")
        self.job.start(self.identity)
        return set(self.job.read_records(self.total))

    def _make(self, todo: Sequence[int], progress: bool) -> dict[str, str]:
        mine = todo[self.processes.rank :: self.processes.world]
        failed: dict[str, str] = {}
        with tqdm(
            total=self.total,
            initial=self.total - len(todo),
            desc=f"cohort, {self.processes.world} processes" if self.processes.world > 1 else "cohort",
            unit="case",
            smoothing=0,  # the remaining time from the mean of the run, not from the last few cases
            disable=not (progress and self.processes.is_main),
        ) as bar:
            for index, result in overlapped(mine, self._read, self._insert, self._write, self.config.workers):
                if isinstance(result, Failure):
                    failed[self.name(index)] = result.message
                    bar.write(f"failed: {self.name(index)}: {result.message}")
                # the others' cases count, too: what is on the disk is what is done
                bar.update(self.job.count_records() + len(failed) - bar.n if self.processes.world > 1 else 1)
        return failed

    def _case(self, index: int) -> Case:
        if index >= self.config.total:
            return self.real[index - self.config.total]
        return self.hosts[host_number(self.config.seed, self.numbers[index], len(self.hosts))]

    def _read(self, index: int) -> Host:
        return read_host(self._case(index), self.config)

    def _insert(self, index: int, host: Host) -> tuple[Host, InsertedCase | None]:
        if index >= self.config.total:
            return host, None
        try:
            return host, self.inserter.insert(host, self.numbers[index])
        except ValueError as error:
            raise ValueError(f"{host.case.name}: {error}") from error

    def _write(self, index: int, made: tuple[Host, InsertedCase | None]) -> None:
        (host, inserted), name = made, self.name(index)
        files = {}
        if inserted is None:
            files = self.layout.case_files(name, host, None, None)
        elif inserted.lesions:
            files = self.layout.case_files(name, host, inserted.image, inserted.label)
        about = {p: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for p, c in files.items()}
        kind = None if inserted is None else self.inserter.kind(index)
        record = case_record(index, name, kind, host, inserted, about, self.provenance, self.config.vocabulary)
        if files:
            self.job.write(f"case{index}", files)
        self.job.write_record(record)

    def _finish(self, changed: bool) -> tuple[int, dict[str, str]]:
        """Describe all cases that are done; nothing is written where nothing changed and the description is there."""
        records = [record for _, record in sorted(self.job.read_records(self.total).items())]
        written = sum(bool(r["files"]) and not r["real"] for r in records)
        refused = {r["case"]: r["refused"][-1]["reason"] for r in records if not r["files"]}
        try:
            self._describe(records, changed)
        except OSError as error:
            raise ConfigError(
                f"{self.job.out}: {written} cases are done, what describes them cannot be written ({error}); "
                "the same command goes on"
            ) from error
        return written, refused

    def _describe(self, records: Sequence[dict], changed: bool) -> None:
        files = description(self.config, self.layout, self.provenance, records, self.splits)
        summary = self.job.out / SUMMARY
        if changed or not summary.is_file() or summary.read_bytes() != files[SUMMARY]:
            # without its summary a cohort counts as unfinished, so that none is taken for whole between two files
            summary.unlink(missing_ok=True)
            self.job.write("description", files)
        if changed or not (self.job.out / "report.html").is_file():
            bank = self.lesions if isinstance(self.lesions, LesionBank) else None
            write_cohort_report(self.job.out, self.config, self.layout, self.provenance, records, bank)


def _gate(
    config: CohortConfig, lesions: LesionSource, segmenter: Segmenter | None, device: torch.device
) -> Gate | None:
    if config.gate is None:
        return None
    if segmenter is None and config.gate.segmenter is not None:
        segmenter = load_segmenter(config.gate.segmenter, config.names, device)
    limits = config.space.units.limits(config.names)
    return Gate(config.gate, lesions, config.vocabulary, config.names, segmenter, limits)


def _leak_proof(config: CohortConfig, hosts: Sequence[Case], lesions: LesionSource) -> LeakProof | None:
    """Read or make the folds that synthetic cases join; None where none were asked for."""
    asked = config.splits.folds
    if asked is None:
        return None
    patients = {case.name: case.group for case in hosts}
    folds: Folds = made_folds(patients, asked, config.seed) if isinstance(asked, int) else read_folds(asked)
    splits = LeakProof(folds, patients, group_function(config.hosts.group_pattern), config.splits.outside)
    splits.check((case.group for case in hosts), "hosts")
    if isinstance(lesions, LesionBank):
        splits.check((lesion.group for lesion in lesions if lesion.group is not None), "donors")
    return splits


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
