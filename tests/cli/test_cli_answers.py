"""Answers of the command line to what users get wrong, or spell in their own way."""

import json

import pytest
from cohort_tools import cohort_config
from engine import toy_gan
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.data import find_cases, write_phantom_dataset
from synthaug.generators.learned.hub import save_generator

SHAPES = ("--classes", "BRATS18", "--diameter-mm", "8", "10", "--seed", "1")


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brains")
    write_phantom_dataset(folder, 1, size=(48, 48, 48))
    return folder


@pytest.mark.parametrize("command", ["insert", "bank"])
def test_a_place_that_cannot_be_written_is_named(brains, tmp_path, command):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "below"
    told = {"insert": ("insert", brains, "--out", out, *SHAPES), "bank": ("bank", "build", brains, "-o", out)}
    result = run(*told[command])
    assert result.exit_code != 0 and str(out) in result.output, result.output
    assert "cannot be written: " in result.output and "Errno" not in result.output


@pytest.mark.parametrize("parent", [True, False])
def test_a_mistyped_folder_of_a_generator_is_no_matter_of_the_network(brains, tmp_path, monkeypatch, parent):
    from huggingface_hub import errors

    def unreachable(*_, **__):
        raise errors.LocalEntryNotFoundError("check your internet connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.chdir(tmp_path)
    if parent:
        (tmp_path / "runs" / "right").mkdir(parents=True)
    result = run("insert", brains, "--generator", "runs/typo", "--out", tmp_path / "out", *SHAPES)
    assert result.exit_code == 2 and "no generator 'runs/typo': no such folder" in result.output
    assert ("those in runs are right" in result.output) == parent


def test_a_run_stands_for_the_generator_that_it_left(brains, tmp_path):
    save_generator(toy_gan(), tmp_path / "run" / "generator")
    result = run("insert", brains, "--generator", tmp_path / "run", "--out", tmp_path / "out", *SHAPES)
    assert result.exit_code == 0, result.output
    (row,) = (json.loads(line) for line in (tmp_path / "out" / "insertions.jsonl").read_text().splitlines())
    assert row["case"] == "Phantom_000_1"


@pytest.mark.parametrize("layout", ["auto", "nnunet"])
def test_channels_that_are_given_do_without_a_dataset_json(tmp_path, layout):
    (case,) = write_phantom_dataset(tmp_path / "in", 1, size=(48, 48, 48))
    for place, source in (("imagesTr/a_0000", case.images["t1"]), ("labelsTr/a", case.label)):
        target = tmp_path / "set" / f"{place}.nii.gz"
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    words = ("bank", "build", tmp_path / "set", "--classes", "BRATS18", "-o", tmp_path / "b", "--layout", layout)
    missing = run(*words)
    assert missing.exit_code == 2 and "channels" in missing.output
    built = run(*words, "--channels", "t1")
    assert built.exit_code == 0 and "from 1 of 1 cases" in built.output, built.output


def test_spaces_around_names_of_channels_mean_nothing(brains, tmp_path):
    result = run("bank", "build", brains, "--classes", "BRATS18", "-o", tmp_path / "b", "--channels", " t1 , flair")
    assert result.exit_code == 0, result.output
    assert "t1, flair" in run("bank", "show", tmp_path / "b").output
    assert len(find_cases(brains, channels=("t1 ", " flair"))) == 1


@pytest.mark.parametrize("bounds", [(200, -100), (5, 5)])
def test_a_range_the_wrong_way_round_is_refused_at_once(brains, bounds):
    with pytest.raises(ValueError, match=r"tissue_range: expected \(low, high\) with low below high"):
        cohort_config(brains, None, hosts={"tissue_range": bounds})
    words = ("cohort", "--cases", brains, "--out", brains / "none", f"hosts.tissue_range=[{bounds[0]},{bounds[1]}]")
    result = run(*words)
    assert result.exit_code == 2 and "hosts.tissue_range: expected (low, high)" in result.output
    assert not (brains / "none").exists()
