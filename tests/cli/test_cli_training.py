"""``synthaug train`` and ``synthaug configs``, and both from an installed wheel."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from synthaug.cli import train
from synthaug.cli.app import app
from synthaug.shipped import find_config, shipped_configs
from synthaug.training.run import read_metrics

ROOT = Path(__file__).parents[2]
TINY = (
    *("optimizer.steps=2", "threads=1", "data.phantom.count=3", "data.phantom.size=[48,48,48]", "data.validation=[]"),
    *("painter.widths=[8,8,8,16]", "critic.widths=[8,8,8]", "demo.count=1"),
)


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def real(*words, cwd, path=ROOT):
    """The command in a process of its own, which finds synthaug in `path`."""
    environment = os.environ | {"PYTHONPATH": str(path), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "synthaug", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


# --------------------------------------------------------------------------------------------------- configs


def test_configs_are_listed_shown_and_copied(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    listed = run("configs", "list").output.splitlines()
    assert [line.split()[0] for line in listed] == [*shipped_configs()]
    assert "The GAN generator on procedural phantoms" in next(line for line in listed if line.startswith("gan_tiny"))
    assert run("configs", "show", "gan_tiny").output == find_config("gan_tiny").read_text()
    assert run("configs", "copy", "gan_tiny").exit_code == 0
    assert run("configs", "copy", "gan_tiny", "-o", "folder/mine.yaml").exit_code == 0
    for copy in (tmp_path / "gan_tiny.yaml", tmp_path / "folder" / "mine.yaml"):
        assert copy.read_bytes() == shipped_configs()["gan_tiny"].read_bytes()


def test_a_copy_replaces_nothing_and_unknown_names_are_answered(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nnunet.yaml").write_text("mine")
    for words, message in (
        (("copy", "nnunet", "-o", "nnunet.yaml"), "is there already"),
        (("show", "no_such"), "gan_tiny"),
        (("copy", "no_such"), "gan_tiny"),
    ):
        result = run("configs", *words)
        assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert (tmp_path / "nnunet.yaml").read_text() == "mine"


# ----------------------------------------------------------------------------------------------------- train


@pytest.fixture
def told(monkeypatch):
    """What the launcher is told, in place of trainings; they end with the code of the last item of ``told.codes``."""
    calls = []

    def launch(*args):
        calls.append(args)
        return codes[-1]

    codes = [0]
    monkeypatch.setattr(train, "launch_trainer", launch)
    return calls, codes


def test_words_go_to_the_script_and_options_to_accelerate(told):
    calls, _ = told
    words = ("--num-processes", 2, "optimizer.steps=5", "--gpu-ids=0,1", "--out", "x", "seed=1", "--cpu")
    assert run("train", "gan", *words).exit_code == 0
    config = str(shipped_configs()["gan_tiny"])
    expected = ["--config", config, "--out", "x", "optimizer.steps=5", "seed=1"]
    assert calls == [("gan", expected, ["--num-processes", "2", "--gpu-ids=0,1", "--cpu"])]
    assert run("train", "thin", "--config", "thin_brats_cpu").exit_code == 0
    assert calls[-1] == ("thin", ["--config", str(shipped_configs()["thin_brats_cpu"])], [])


def test_a_failed_training_is_a_failed_command(told):
    calls, codes = told
    codes.append(2)
    assert run("train", "segmentation").exit_code == 2
    codes.append(128 + 9)
    killed = run("train", "segmentation")
    assert killed.exit_code == 137 and "signal 9" in killed.output
    calls.clear()
    unknown = run("train", "segmentation", "--config", "no_such")
    assert unknown.exit_code == 2 and "segmentation_tiny" in unknown.output and not calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.phantom=null", "data.folder=nowhere"],
            "data: expected a folder of cases, got nowhere, which is not there",
        ),
        (
            ["--multi-gpu", "--num-processes", "2", "optimizer.step=2"],
            "{config}:\n  optimizer.step: unknown key, did you mean steps?",
        ),
    ],
)
def test_a_configuration_error_is_one_message(tmp_path, words, message):
    """Nothing of either of accelerate's launchers beside it, found as the training begins or before."""
    done = real("train", "gan", *words, cwd=tmp_path)
    assert done.stderr == f"error: {message.format(config=shipped_configs()['gan_tiny'])}\n"
    assert done.returncode == 2 and done.stdout == ""


# ---------------------------------------------------------------------------------------------- from a wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder where the wheel of this clone is installed."""
    if not all(map(importlib.util.find_spec, ("hatchling", "hatch_fancy_pypi_readme"))):
        pytest.skip("hatchling and hatch-fancy-pypi-readme are not installed, which build the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # a wheel without scripts is installed by unpacking it
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_trains_without_a_clone(installed, tmp_path):
    assert {file.stem for file in (installed / "synthaug" / "configs").glob("*.yaml")} == {*shipped_configs()}
    done = real("train", "gan", "--config", "gan_tiny", "--cpu", *TINY, cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "gan_tiny"
    assert read_metrics(out)[-1]["step"] == 2 and (out / "generator" / "config.json").exists()
    assert yaml.safe_load((out / "config.yaml").read_text())["optimizer"]["steps"] == 2
    wrong = real("train", "gan", "optimizer.step=2", cwd=tmp_path, path=installed)
    assert wrong.stderr.startswith(f"error: {installed / 'synthaug/configs/gan_tiny.yaml'}:\n"), "not the clone's"
