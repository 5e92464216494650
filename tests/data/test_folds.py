"""Folds by patient: all are held out once, none is on both sides, and they are MONAI's for the same seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import partition_dataset

from synthaug.data.cases import Case
from synthaug.data.folds import patient_folds, patients_among, refuse_shared_patients


@given(st.integers(2, 12), st.integers(2, 6), st.integers(0, 99))
def test_every_patient_is_held_out_once(count, folds, seed):
    patients = [f"p{i}" for i in range(count)]
    if count < folds:
        with pytest.raises(ValueError, match=f"at least {folds} patients for {folds} folds, got {count}"):
            patient_folds(patients, folds, seed)
        return
    made = patient_folds([*patients, *patients], folds, seed)
    assert sorted(name for fold in made for name in fold) == sorted(patients)
    theirs = partition_dataset(sorted(patients), num_partitions=folds, shuffle=True, seed=seed)
    assert made == [{*fold} for fold in theirs]


def test_one_fold_is_none():
    with pytest.raises(ValueError, match="expected 2 folds or more, got 1"):
        patient_folds(["a", "b"], 1, 0)


def test_a_patient_on_both_sides_is_named():
    refuse_shared_patients("the bank b", {"a"}, {"x_1": "x"}, "validation")
    with pytest.raises(
        ValueError,
        match=r"the bank b holds lesions of the patients a, x, who are in validation \(cases x_1, x_2, a_1\)",
    ):
        refuse_shared_patients("the bank b", {"a", "x"}, {"x_1": "x", "x_2": "x", "a_1": "a", "c": "c"}, "validation")


def test_patients_are_found_by_their_own_names_and_by_their_cases():
    cases = [Case(name, group, {}, None) for name, group in (("b_1", "b"), ("b_2", "b"), ("a_1", "a"), ("c_1", "c"))]
    assert patients_among(cases, {"b_2", "a", "elsewhere"}) == ["a", "b"]
    assert patients_among(cases, ()) == []
