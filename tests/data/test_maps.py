"""Maps beside a case's images, and what comes of them on the command line and in a cohort."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.cohort import generate
from synthaug.cohort.config import CohortConfig
from synthaug.config import read_config
from synthaug.data import find_cases, load_case, write_phantom_dataset
from synthaug.data.cases import CaseError, folder_of
from synthaug.data.maps import read_map


@pytest.fixture
def cases(tmp_path):
    """Two phantoms, each with a host mask of its low half and a prior that wants the second axis' high end."""
    folder = tmp_path / "cases"
    write_phantom_dataset(folder, count=2, seed=3, size=(48, 48, 48))
    for case in find_cases(folder):
        volume = load_case(case, ("t1",))
        low = (volume.image[0] != 0) & (np.arange(48) < 26)[:, None, None]
        nib.save(nib.Nifti1Image(low.astype(np.uint8), volume.affine), folder_of(case) / f"{case.name}_host.nii.gz")
        np.save(folder_of(case) / "prior.npy", np.broadcast_to((np.arange(48) > 22)[:, None], (48, 48, 48)) * 0.5)
    return folder


def test_a_map_is_read_and_fits_its_case(cases):
    case = find_cases(cases)[0]
    volume = load_case(case, ("t1",))
    found = read_map(case, "_host.nii.gz", volume)
    assert found.dtype == np.float32 and found.shape == (48, 48, 48) and not found[26:].any() and found[:26].any()
    assert read_map(case, "prior.npy", volume).max() == 0.5


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda path: None, "cannot read .*bad.npy"),
        (lambda path: np.save(path, np.ones((4, 4, 4))), r"bad.npy has the shape \(4, 4, 4\), but image has"),
        (lambda path: np.save(path, np.full((48, 48, 48), -1.0)), "at least 0"),
        (lambda path: np.save(path, np.full((48, 48, 48), "x")), "expected numbers"),
        (lambda path: path.write_text("no array"), "cannot read .*bad.npy"),
    ],
)
def test_what_does_not_fit_is_named(cases, made, words):
    case = find_cases(cases)[0]
    made(folder_of(case) / "bad.npy")
    with pytest.raises(CaseError, match=f"{case.name}: .*{words}"):
        read_map(case, "bad.npy", load_case(case, ("t1",)))


def test_a_nifti_of_another_affine_does_not_fit(cases):
    case = find_cases(cases)[0]
    nib.save(nib.Nifti1Image(np.ones((48, 48, 48), np.uint8), np.diag([2, 2, 2, 1])), folder_of(case) / "bad.nii")
    with pytest.raises(CaseError, match="affine"):
        read_map(case, "bad.nii", load_case(case, ("t1",)))


MAPS = ("host=_host.nii.gz", "prior=prior.npy")


def test_the_command_line_keeps_to_the_maps(cases, tmp_path):
    words = ["insert", str(cases), *MAPS, "--out", str(tmp_path / "out"), "--diameter-mm", "6", "8"]
    result = CliRunner().invoke(app, [*words, "clearance_mm=1"])
    rows = [json.loads(line) for line in (tmp_path / "out/insertions.jsonl").read_text().splitlines()]
    assert result.exit_code == 0, result.output
    assert len(rows) == 2 and all(row["host_given"] and row["center_vox"][0] < 30 for row in rows)
    assert all(row["center_vox"][1] > 18 for row in rows)
    result = CliRunner().invoke(app, ["insert", str(cases), "prior=nothing.npy", "--out", str(tmp_path / "none")])
    assert result.exit_code == 1 and "nothing.npy" in result.output


def test_a_cohort_keeps_to_the_maps(cases, tmp_path):
    overrides = [f"cases={cases}", "layout=nnunet", "count=2", *(f"lesions.{m}" for m in MAPS)]
    overrides += ["lesions.shapes={diameter_mm: [6, 8]}", "lesions.clearance_mm=1"]
    summary = generate(read_config(None, CohortConfig, overrides), tmp_path / "cohort")
    assert summary.complete
    hosts = {case.name: case for case in find_cases(cases)}
    rows = [json.loads(line) for line in (tmp_path / "cohort/manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        before = load_case(hosts[row["host"]], ("t1",)).label
        after = nib.load(tmp_path / "cohort/labelsTr" / f"{row['case']}.nii.gz").get_fdata()
        new = (after != 0) & (before == 0)
        assert new.any() and not new[26:].any() and new.any((0, 2)).nonzero()[0].max() > 20
