"""Trainers as scripts that stand alone, and what accelerate's launcher is told."""

import ast
import subprocess
import sys

import accelerate.commands.launch
import pytest
from generator_runs import TinyRuns
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from synthaug.training import command
from synthaug.training.gan_config import GANConfig
from synthaug.training.launch import TRAINERS, launch_trainer, load_trainer, trainer_file


@pytest.fixture
def launched(monkeypatch):
    """What the launcher was given; it fails with the exceptions that are put into ``launched.errors``."""

    class Launched(list):
        errors = ()

        def __call__(self, told):
            self.append(told)
            for error in self.errors:
                raise error

    launched = Launched()
    monkeypatch.setattr(accelerate.commands.launch, "launch_command", launched)
    return launched


def test_scripts_import_neither_each_other_nor_bare_modules():
    files = sorted(trainer_file("gan").parent.glob("*.py"))
    assert [file.stem for file in files] == sorted(TRAINERS)
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        tops = {name.partition(".")[0] for name in names}
        known = {"synthaug", "torch", "typer", "accelerate", "diffusers", "numpy"}
        assert tops <= {*known, *sys.stdlib_module_names}, file


def test_a_trainer_is_loaded_once_and_unknown_ones_are_named():
    assert load_trainer("gan") is load_trainer("gan") and callable(load_trainer("gan").train)
    with pytest.raises(ValueError, match="expected one of segmentation, gan, diffusion, thin, got 'gam'"):
        trainer_file("gam")


def test_the_launcher_gets_its_options_and_the_script_the_words(launched):
    assert launch_trainer("gan", ["--config", "x.yaml", "a=1"], ["--num-processes", "2", "--cpu"]) == 0
    told = launched[0]
    assert (told.num_processes, told.cpu, told.training_script) == (2, True, str(trainer_file("gan")))
    assert told.training_script_args == ["--config", "x.yaml", "a=1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["stray"], "expected key=value.*got stray"),
        (["--nprocs=2"], "expected key=value.*got --nprocs=2"),
        (["--num-processes", "two"], "invalid int value: 'two'"),
    ],
)
def test_what_accelerate_does_not_know_is_named(launched, options, words):
    with pytest.raises(ValueError, match=words):
        launch_trainer("gan", [], options)
    assert not launched


def test_the_code_is_that_of_the_script(launched):
    launched.errors = (subprocess.CalledProcessError(2, "gan.py"),)
    assert launch_trainer("gan", []) == 2
    launched.errors = (subprocess.CalledProcessError(-9, "gan.py"),)
    assert launch_trainer("gan", []) == 128 + 9
    launched.errors = (ChildFailedError("gan.py", {1: ProcessFailure(1, 0, 3, "none")}),)
    assert launch_trainer("gan", []) == 3


def test_a_script_says_what_is_wrong_once_and_ends_with_2(monkeypatch, tmp_path, capsys):
    """The first process at once; another waits for it, for the launcher ends all when one has ended."""
    waited = []
    monkeypatch.setattr(command.time, "sleep", waited.append)
    runs = TinyRuns("gan", GANConfig, ())
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        runs.command(tmp_path, "optimizer.step=2", code=2)
        message = capsys.readouterr().err
        assert message == f"error: {runs.file}:\n  optimizer.step: unknown key, did you mean steps?\n"
    assert waited == [command.WAIT_S]
