"""The command line on phantom cases: banks, and insertion into NIfTI files with everything else kept."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from synthaug import LesionBank
from synthaug.cli.app import app
from synthaug.data import find_cases, load_case, phantom_case
from synthaug.data.writing import write_case


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def bank_file(phantom_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    result = run("bank", "build", phantom_folder, "-o", path)
    assert result.exit_code == 0, result.output
    return path


def test_bank_build_and_show(bank_file, phantom_folder):
    bank = LesionBank.load(bank_file)
    cases = find_cases(phantom_folder)
    labelled = [c for c in cases if load_case(c, ("t1",)).label.any()]
    assert bank.groups == {c.group for c in labelled}
    shown = run("bank", "show", bank_file)
    assert shown.exit_code == 0
    assert all(lesion.name in shown.output for lesion in bank)


@pytest.mark.parametrize("generator", ["paste", "procedural"])
def test_insert_keeps_everything_else(bank_file, phantom_folder, tmp_path, generator):
    case = find_cases(phantom_folder)[-1]
    folder = next(iter(case.images.values())).parent
    result = run(
        "insert", folder, "--out", tmp_path, "--bank", bank_file, "--generator", generator, "--scale", 0.5, 0.8,
        "--swap", "SNFH:ET:1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (row,) = [json.loads(line) for line in (tmp_path / "insertions.jsonl").read_text().splitlines()]
    assert row["case"] == case.name and row["swaps"] == {"ED": "ET"} and row["donor_group"] != case.group
    (again,) = find_cases(tmp_path / case.name)
    before_label = np.asarray(nib.load(case.label).dataobj)
    after_label = nib.load(again.label)
    assert after_label.get_data_dtype() == nib.load(case.label).get_data_dtype()
    changed = np.asarray(after_label.dataobj) != before_label
    assert int(changed.sum()) == sum(row["voxels"].values()) > 0
    for channel, path in case.images.items():
        before, after = nib.load(path), nib.load(again.images[channel])
        assert np.array_equal(before.affine, after.affine)
        assert before.get_data_dtype() == after.get_data_dtype()
        a, b = np.asarray(before.dataobj), np.asarray(after.dataobj)
        assert np.array_equal(a[~changed], b[~changed])
        assert (a[changed] != b[changed]).mean() > 0.8


def test_scale_factors_of_the_header_are_kept(phantom_folder, tmp_path):
    case = find_cases(phantom_folder)[0]
    path = case.images["t2"]
    raw = np.arange(64**3, dtype=np.int16).reshape(64, 64, 64) % 1000
    scaled = nib.Nifti1Image(raw, nib.load(path).affine)
    scaled.header.set_slope_inter(0.25, -3.0)
    source = tmp_path / "source" / path.name
    source.parent.mkdir()
    nib.save(scaled, source)
    one = type(case)(case.name, case.group, {"t2": source}, None)
    image = load_case(one, ("t2",), require_label=False).image[0].copy()
    label = np.zeros(image.shape, np.int16)
    label[5:9, 5:9, 5:9], image[5:9, 5:9, 5:9] = 4, 100.2
    files = write_case(one, {"t2": image}, label, tmp_path / "out")
    back = nib.load(files[0])
    assert (back.dataobj.slope, back.dataobj.inter) == (0.25, -3.0)
    stored = np.asarray(back.dataobj.get_unscaled())
    assert np.array_equal(stored[label == 0], raw[label == 0])
    assert np.abs(np.asarray(back.dataobj)[label == 4] - 100.2).max() <= 0.125
    assert np.array_equal(np.asarray(nib.load(files[1]).dataobj), label)
    assert nib.load(files[1]).get_data_dtype() == np.uint8
    with pytest.raises(ValueError, match="holds the case itself"):
        write_case(one, {"t2": image}, label, source.parent)


def test_errors_are_one_line_and_nothing_is_written(bank_file, phantom_folder, tmp_path):
    cases = {
        ("insert", tmp_path / "nowhere", "--out", tmp_path / "o", "--bank", bank_file): "nowhere",
        ("insert", phantom_folder, "--out", tmp_path / "o", "--bank", bank_file, "--swap", "ED-ET"): "FROM:TO:PROB",
        ("insert", phantom_folder, "--out", tmp_path / "o", "--bank", bank_file, "--classes", "X"): "vocabulary 'X'",
        ("insert", phantom_folder, "--out", tmp_path / "o", "--bank", tmp_path / "no.st"): "no such file",
        ("bank", "build", phantom_folder, "-o", tmp_path / "o" / "b.st", "--channels", "t1,pd"): "pd",
        ("bank", "show", next(phantom_folder.rglob("*.nii.gz"))): "damaged",
    }
    for words, message in cases.items():
        result = run(*words)
        assert result.exit_code != 0
        assert message in result.output, result.output
        assert "Traceback" not in result.output
    assert not (tmp_path / "o").exists()


def test_a_damaged_case_is_named_and_the_others_go_on(bank_file, tmp_path):
    from synthaug.data import write_phantom_dataset

    folder = tmp_path / "cases"
    cases = write_phantom_dataset(folder, count=2, seed=7, size=(48, 48, 48), tumour_free=2)
    cases[0].images["t1"].write_bytes(b"broken")
    result = run("insert", folder, "--out", tmp_path / "out", "--bank", bank_file, "--scale", 0.4, 0.6)
    assert result.exit_code == 1
    assert cases[0].name in result.output and "failed" in result.output
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()] == [cases[1].name]


def test_insert_without_a_bank_draws_shapes(tmp_path):
    volume = phantom_case(3, (64, 64, 64), tumour=False)
    folder = tmp_path / "Brats18_X_1"
    folder.mkdir()
    for channel, values in zip(("flair", "t1", "t1ce", "t2"), volume.image, strict=True):
        nib.save(nib.Nifti1Image(values.astype(np.int16), volume.affine), folder / f"Brats18_X_1_{channel}.nii.gz")
    result = run("insert", folder, "--out", tmp_path / "out", "--diameter-mm", 12, 16, "--unlabelled", "tumour-free")
    assert result.exit_code == 0, result.output
    label = nib.load(tmp_path / "out" / "Brats18_X_1" / "Brats18_X_1_seg.nii.gz")
    assert set(np.unique(np.asarray(label.dataobj))) == {0, 1, 2, 4}
