"""`synthaug insert` twice into one folder, its output read again, and cases that it does not take."""

import json

from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.data import find_cases, load_case, write_phantom_dataset

WORDS = ("--diameter-mm", "8", "10", "--seed", "1")


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def as_nnunet(cases, folder):
    names = ("t1", "t2")
    for case in cases:
        places = {f"imagesTr/{case.name}_{i:04d}": case.images[name] for i, name in enumerate(names)}
        for place, path in {**places, f"labelsTr/{case.name}": case.label}.items():
            target = folder / f"{place}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 4}
    text = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "numTraining": 9}
    (folder / "dataset.json").write_text(json.dumps(text))


def test_a_second_run_is_refused_or_makes_the_cases_anew(tmp_path):
    write_phantom_dataset(tmp_path / "in", 1, size=(48, 48, 48))
    words = ("insert", tmp_path / "in", "--out", tmp_path / "out", *WORDS)
    assert run(*words).exit_code == 0
    again = run(*words)
    assert again.exit_code == 2 and "an earlier run made Phantom_000_1" in again.output
    assert run(*words, "--overwrite").exit_code == 0
    rows = (tmp_path / "out" / "insertions.jsonl").read_text().splitlines()
    assert [json.loads(row)["case"] for row in rows] == ["Phantom_000_1"]


def test_nnunet_cases_are_written_so_that_they_are_read_again(tmp_path):
    as_nnunet(write_phantom_dataset(tmp_path / "in", 2, size=(48, 48, 48)), tmp_path / "set")
    result = run("insert", tmp_path / "set", "--out", tmp_path / "out", "--channels", "t2", *WORDS)
    assert result.exit_code == 0, result.output
    before, after = find_cases(tmp_path / "set"), find_cases(tmp_path / "out")
    assert [case.name for case in before] == [case.name for case in after]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 2
    old, new = (load_case(cases[0], ("t1", "t2")) for cases in (before, after))
    assert (old.image[0] == new.image[0]).all() and (old.image[1] != new.image[1]).any()
    assert (old.label != new.label).any()
    built = run("bank", "build", tmp_path / "out", "-o", tmp_path / "bank.safetensors")
    assert built.exit_code == 0 and "from 2 of 2 cases" in built.output


def test_a_case_without_label_is_left_out_and_said(tmp_path):
    cases = write_phantom_dataset(tmp_path / "in", 2, size=(48, 48, 48))
    cases[0].label.unlink()
    result = run("insert", tmp_path / "in", "--out", tmp_path / "out", *WORDS)
    assert "left out: 1 of 2 cases without a label map" in result.output
    assert not (tmp_path / "out" / cases[0].name).exists() and (tmp_path / "out" / cases[1].name).is_dir()


def test_a_folder_is_no_bank_file(tmp_path):
    write_phantom_dataset(tmp_path / "in", 1, size=(48, 48, 48))
    result = run("bank", "build", tmp_path / "in", "-o", tmp_path)
    assert result.exit_code == 2 and "expected a file to write, it is a folder" in result.output


def test_the_folder_of_images_stands_for_its_parent(tmp_path):
    as_nnunet(write_phantom_dataset(tmp_path / "in", 1, size=(48, 48, 48)), tmp_path / "set")
    result = run("bank", "build", tmp_path / "set" / "imagesTr", "-o", tmp_path / "b", "--classes", "BRATS18")
    assert result.exit_code == 0 and "1 of 1 cases" in result.output
