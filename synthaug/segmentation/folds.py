"""Folds of cross-validation, by patient."""

from collections.abc import Sequence

from monai.data.utils import partition_dataset

from synthaug.data import Case


def fold_split(cases: Sequence[Case], folds: int, fold: int, seed: int = 0) -> tuple[list[Case], list[Case]]:
    """Training and validation cases of one fold; the cases of a patient stay together.

    Args:
        cases: labelled.
        folds: how many, 2 or more.
        fold: which is for validation, from 0.
        seed: of the shuffle of the patients.

    Raises:
        ValueError: a fold that there is not, or fewer patients than folds.
    """
    patients = sorted({case.group for case in cases})
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"expected 2 folds or more and a fold from 0 to {max(1, folds - 1)}, got {folds} and {fold}")
    if len(patients) < folds:
        raise ValueError(f"expected at least {folds} patients for {folds} folds, got {len(patients)}")
    held_out = set(partition_dataset(patients, num_partitions=folds, shuffle=True, seed=seed)[fold])
    return [c for c in cases if c.group not in held_out], [c for c in cases if c.group in held_out]
