"""Whom the lesions and the generator of an insertion have seen."""

from collections.abc import Iterable

from synthaug import LesionBank, LesionSampler, PaintedLesions
from synthaug.data import Case
from synthaug.data.folds import patients_among
from synthaug.generators.patients import generator_patients
from synthaug.lesions.base import LesionSource


def bank_patients(bank: LesionBank | LesionSampler) -> set[str] | None:
    """Find the patients that a bank, or a sampler of masks, has seen: whose lesions it has, or was painted after.

    None where it was painted by a generator that does not say whom it has seen.
    """
    painted = None if isinstance(bank, LesionSampler) else bank.painting
    if painted is None:
        return {*bank.patients}
    taught = painted["taught_on"] if "taught_on" in painted else generator_patients(painted["generator"]["name"])
    return None if taught is None else {*bank.patients, *taught}


def seen_patients(generator: str, lesions: LesionSource, cases: Iterable[Case]) -> list[str]:
    """List those patients of the cases whose looks the generator, or the painter of the bank, has seen in its training.

    Scores on them flatter the insertion. Empty also where it is not known.
    """
    seen = generator_patients(generator) or set()
    donors = lesions.bank if isinstance(lesions, PaintedLesions) else lesions
    if isinstance(donors, (LesionBank, LesionSampler)):
        seen = seen | (bank_patients(donors) or set())
    return patients_among(cases, seen)
