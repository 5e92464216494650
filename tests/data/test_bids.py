"""Reading BIDS data sets: which file is which channel, sessions, derivatives, and what is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synthaug.data import CaseError, find_cases, load_case
from synthaug.data.bids import bids_name

FOUR = {"T1w": "t1", "ce-GADOLINIUM_T1w": "t1ce", "T2w": "t2", "FLAIR": "flair"}


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), value, np.int16), np.eye(4)), path)


def write_subject(folder: Path, subject: str, session: str | None = None, suffixes=tuple(FOUR), label="dseg") -> None:
    name = subject if session is None else f"{subject}_{session}"
    place = Path(subject) if session is None else Path(subject) / session
    for number, suffix in enumerate(suffixes):
        write(folder / place / "anat" / f"{name}_{suffix}.nii.gz", number + 1)
    if label:
        write(folder / "derivatives" / "labels" / place / "anat" / f"{name}_desc-tumor_{label}.nii.gz", 2)


@pytest.mark.parametrize("label", ["dseg", "mask"])
def test_subjects_are_found_with_their_channels_and_label(tmp_path, label):
    write_subject(tmp_path, "sub-02", label=label)
    write_subject(tmp_path, "sub-01", label=label)
    first, second = find_cases(tmp_path)
    assert (first.name, second.name, second.group) == ("sub-01", "sub-02", "sub-02")
    volume = load_case(first, tuple(FOUR.values()))
    assert [int(v.flat[0]) for v in volume.image] == [1, 2, 3, 4]
    assert volume.label.max() == 2


def test_sessions_are_cases_of_one_patient(tmp_path):
    write_subject(tmp_path, "sub-01", "ses-a")
    write_subject(tmp_path, "sub-01", "ses-b", label=None)
    a, b = find_cases(tmp_path, layout="bids")
    assert (a.name, b.name) == ("sub-01_ses-a", "sub-01_ses-b")
    assert a.group == b.group == "sub-01"
    assert a.label is not None and b.label is None


def test_other_files_are_no_images(tmp_path):
    write_subject(tmp_path, "sub-01")
    anat = tmp_path / "sub-01" / "anat"
    write(anat / "sub-01_PDw.nii.gz", 9)
    write(anat / "._sub-01_T2w.nii.gz", 9)
    write(tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz", 9)
    (anat / "sub-01_T1w.json").write_text("{}")
    (case,) = find_cases(tmp_path)
    assert set(case.images) == set(FOUR.values())


def test_two_runs_are_refused_and_a_missing_channel_is_named(tmp_path):
    write_subject(tmp_path, "sub-01", suffixes=("T1w", "FLAIR"))
    (case,) = find_cases(tmp_path)
    with pytest.raises(CaseError, match="no file for t2"):
        load_case(case, ("t1", "t2"))
    write(tmp_path / "sub-01" / "anat" / "sub-01_run-2_T1w.nii.gz", 9)
    with pytest.raises(ValueError, match="two files for t1"):
        find_cases(tmp_path)


def test_names_have_letters_and_digits_only():
    assert bids_name("Brats18_CBICA_AME-1") == "sub-Brats18CBICAAME1"
    with pytest.raises(ValueError, match="letters or digits"):
        bids_name("__")
