"""Folds by patient, and the check that no patient is on both sides."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from synthaug.data.cases import Case


def patient_folds(patients: Iterable[str], folds: int, seed: int) -> list[set[str]]:
    """Draw the patients of each fold's validation: shuffled, then dealt out in turn.

    The same folds as those of `monai.data.partition_dataset`, which shuffles in this way.

    Args:
        patients: names of patients, in any order and as often as they like.
        folds: number of folds, 2 or more.
        seed: seed of the shuffle, 0 to 2**32 - 1.

    Raises:
        ValueError: fewer than two folds, or fewer patients than folds.
    """
    names = sorted({*patients})
    if folds < 2:
        raise ValueError(f"expected 2 folds or more, got {folds}")
    if len(names) < folds:
        raise ValueError(f"expected at least {folds} patients for {folds} folds, got {len(names)}")
    order = list(range(len(names)))
    np.random.RandomState(seed).shuffle(order)
    return [{names[i] for i in order[fold::folds]} for fold in range(folds)]


def fold_split(cases: Sequence[Case], folds: int, fold: int, seed: int = 0) -> tuple[list[Case], list[Case]]:
    """Split cases into training and validation of one fold; the cases of a patient stay together.

    Args:
        cases: labelled cases.
        folds: number of folds, 2 or more.
        fold: number of the fold that is for validation, from 0.
        seed: seed of the shuffle of the patients.

    Raises:
        ValueError: a fold that there is not, or fewer patients than folds.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"expected 2 folds or more and a fold from 0 to {max(1, folds - 1)}, got {folds} and {fold}")
    held_out = patient_folds((case.group for case in cases), folds, seed)[fold]
    return [c for c in cases if c.group not in held_out], [c for c in cases if c.group in held_out]


def patients_among(cases: Iterable[Case], seen: Collection[str]) -> list[str]:
    """List, in order of their names, those patients of the cases whom `seen` names, by themselves or by their cases."""
    return sorted({case.group for case in cases if case.group in seen or case.name in seen})


def refuse_shared_patients(what: str, groups: Collection[str], validation: Mapping[str, str], where: str) -> None:
    """Check that none of the patients whose lesions are inserted is validated on.

    Args:
        what: holds the lesions, for the message: ``the bank lesions.safetensors``.
        groups: the patients of the lesions.
        validation: name of each validation case to its patient.
        where: these cases are, for the message: ``validation``.

    Raises:
        ValueError: some are; they and their cases are named.
    """
    shared = {case: group for case, group in validation.items() if group in groups}
    if shared:
        raise ValueError(
            f"{what} holds lesions of the patients {', '.join(sorted({*shared.values()}))}, who are in {where} "
            f"(cases {', '.join(shared)}): donors must be training cases"
        )
