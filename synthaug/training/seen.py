"""Whom the lesions and the generator of an insertion have seen."""

from collections.abc import Iterable
from pathlib import Path

from synthaug.data import Case
from synthaug.generators.patients import generator_patients
from synthaug.lesions.registry import resolve_lesions
from synthaug.lesions.sampler import LesionSampler
from synthaug.training.segmentation_config import InsertionConfig


def bank_patients(path: Path) -> set[str] | None:
    """Find the patients that a bank, or a sampler of masks, has seen: whose lesions it has, or was painted after.

    None where it was painted by a generator that does not say whom it has seen.
    """
    bank = resolve_lesions(path)
    painted = None if isinstance(bank, LesionSampler) else bank.painting
    if painted is None:
        return {*bank.patients}
    taught = painted["taught_on"] if "taught_on" in painted else generator_patients(painted["generator"]["name"])
    return None if taught is None else {*bank.patients, *taught}


def seen_patients(options: InsertionConfig, cases: Iterable[Case]) -> list[str]:
    """List those patients of the cases whose looks the generator, or the painter of the bank, has seen in its training.

    Scores on them flatter the insertion. Empty also where it is not known.
    """
    seen = {*(generator_patients(options.generator) or ())}
    for bank in (options.bank, options.painted.bank if options.painted else None):
        seen |= {*((bank_patients(bank) if bank else None) or ())}
    return sorted({case.group for case in cases if {case.name, case.group} & seen})
