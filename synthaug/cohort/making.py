"""The making of single cases, by whatever process has their turn: read, insert, write, record."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import torch

from synthaug.cohort.case_insertion import CaseInserter, InsertedCase, open_bank, open_generator, open_shapes
from synthaug.cohort.config import CohortConfig
from synthaug.cohort.excluded import numbers_left
from synthaug.cohort.gate import Gate, Segmenter
from synthaug.cohort.hosts import Host, described, find_hosts, host_number, read_host
from synthaug.cohort.job import Job
from synthaug.cohort.layouts import make_layout
from synthaug.cohort.layouts.webdataset import WebDatasetLayout
from synthaug.cohort.manifest import case_record
from synthaug.cohort.packing import PackedRecords
from synthaug.cohort.pipeline import Failure, overlapped
from synthaug.cohort.provenance import identity, identity_sha256, versions
from synthaug.cohort.records import Records
from synthaug.cohort.segmenter import load_segmenter
from synthaug.cohort.splits import Folds, LeakProof, made_folds, read_folds
from synthaug.cohort.store import Store
from synthaug.data.cases import Case
from synthaug.data.groups import group_function
from synthaug.generators.base import TumorGenerator
from synthaug.generators.identity import generator_facts
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource


class CaseMaker:
    """Makes cases of a cohort; each depends on (seed, its number) alone, so that any process may make it.

    Args:
        config: the cohort's configuration.
        store: of the cohort.
        generator: used in place of the configuration's.
        segmenter: used by the gate in place of the configuration's; see `Gate`.
        device: of the insertion.

    Raises:
        ConfigError: files that are missing or do not fit each other, folds that leak.
    """

    def __init__(
        self,
        config: CohortConfig,
        store: Store,
        generator: TumorGenerator | None,
        segmenter: Segmenter | None,
        device: torch.device,
    ):
        config = config.fetched()
        self.bank = open_bank(config)
        self.config = config = described(config, self.bank)
        self.layout, self.job = make_layout(config), Job(store)
        lesions = open_shapes(config) if self.bank is None else self.bank
        painter = open_generator(config, generator, lesions)
        self.hosts = find_hosts(config)
        self.splits = _leak_proof(config, self.hosts, lesions)
        facts = generator_facts(config.generator_name if generator is None else generator, painter)
        self.identity = identity(config, self.hosts, facts, self.splits and self.splits.folds)
        self.provenance = {
            "generator": facts,
            "versions": versions(),
            "config_sha256": identity_sha256(self.identity),
        }
        gate = _gate(config, lesions, segmenter, device)
        self.inserter = CaseInserter(config, lesions, painter, gate, device)
        self.real = [case for case in self.hosts if case.label is not None] if config.include_real else []
        self.total = config.total + len(self.real)
        self.numbers = numbers_left(config, self.layout)
        self.records = (
            PackedRecords(store, self.total, self.layout)
            if isinstance(self.layout, WebDatasetLayout)
            else Records(store, self.total)
        )

    def name(self, index: int) -> str:
        """Name a case; those after the synthetic ones are real."""
        if index < self.config.total:
            return self.layout.synthetic_name(self.numbers[index])
        return self.layout.real_name(self.real[index - self.config.total].name)

    def make(self, indices: Iterable[int]) -> Iterator[tuple[int, Failure | None]]:
        """Make cases, several at a time; yields each with what it failed with, or None, in order."""
        return overlapped(indices, self._read, self._insert, self._write, self.config.workers)

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
        files: dict[str, bytes] = {}
        if inserted is None:
            files = self.layout.case_files(name, host, None, None)
        elif inserted.lesions:
            files = self.layout.case_files(name, host, inserted.image, inserted.label)
        about = {p: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for p, c in files.items()}
        kind = None if inserted is None else self.inserter.kind(index)
        record = case_record(index, name, kind, host, inserted, about, self.provenance, self.config.vocabulary)
        self.records.write(record, files)


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
