"""Patients that are spelled otherwise than the bank's: known where that is certain, spoken of where it is not."""

import warnings

import numpy as np
import pytest
import torch
from engine import CHANNELS, toy_bank, toy_batch

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.insertion.groups import MANY, GroupWatch, PatientGroupWarning


def brats_bank() -> LesionBank:
    rng, samples = np.random.default_rng(0), []
    for name, group in (("Brats18_2013_11_1", "2013_11"), ("Brats18_CBICA_A_1", "CBICA_A")):
        label = np.zeros((24, 24, 24), np.int16)
        label[8:14, 8:14, 8:14] = 4
        samples.append((name, group, rng.normal(5, 1, (4, 24, 24, 24)).astype(np.float32), label, (1, 1, 1)))
    return LesionBank.from_arrays(samples, BRATS18, CHANNELS)


@pytest.mark.parametrize(
    "given", ["2013_11", "2013_11_1", "Brats18_2013_11_1", "Brats18_2013_11_2", "x/Brats18_2013_11_1/"]
)
def test_case_names_are_their_patients(given):
    bank = brats_bank()
    assert bank.group_of(given) == "2013_11"
    found = bank.candidates(np.random.default_rng(0), given)
    assert {lesion.group for lesion in found.lesions} == {"CBICA_A"}


def test_an_unknown_name_stays():
    bank = brats_bank()
    assert bank.group_of("other") == "other" and len(bank.candidates(np.random.default_rng(0), "other")) == 2


def test_groups_that_never_match_are_spoken_of_once():
    watch = GroupWatch(brats_bank())
    with pytest.warns(PatientGroupWarning, match="'sub-1'.*donors such as '2013_11'"):
        watch.saw(["sub-1"] * MANY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.saw(["sub-1"] * MANY)
        matching = GroupWatch(brats_bank())
        matching.saw(["sub-1"] * (MANY - 1) + ["Brats18_CBICA_A_1"] + ["sub-1"] * MANY)


def test_no_groups_are_spoken_of():
    with pytest.warns(PatientGroupWarning, match="was told its patient"):
        GroupWatch(brats_bank()).saw([None] * MANY)


def test_a_tensor_is_no_group():
    image, label = toy_batch(2)
    insert = TumorInsertion(toy_bank(), "paste", channels=CHANNELS)
    with pytest.raises(TypeError, match=r"groups: expected patients' names, .*got a tensor"):
        insert(image, label, groups=torch.tensor([1, 2]))


def test_a_slip_of_an_option_is_guessed():
    with pytest.raises(TypeError, match="unexpected probability: did you mean prob"):
        TumorInsertion(toy_bank(), "paste", channels=CHANNELS, probability=0.5)
