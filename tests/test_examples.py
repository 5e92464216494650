"""Every example runs as it stands and inserts tumours."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from nnunet_data import plan_and_preprocess
from typer.testing import CliRunner

from synthaug.cli.app import app

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


RUN = subprocess.run


def in_this_process(command: str | list[str], **options):
    """What the example's commands do, without their time to start and with fewer voxels for nnU-Net's statistics."""
    if not isinstance(command, str):  # one of nnU-Net's own
        return RUN(command, **options)
    words = command.split()
    if (program := Path(words[0]).name) == "nnUNetv2_plan_and_preprocess":
        assert words[1:] == ["-d", "501", "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
        plan_and_preprocess(501)
    else:
        assert program == "synthaug"
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, monkeypatch, capsys, tmp_path):
    if example.stem == "nnunet":
        pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), "--steps", "5"])
    if example.stem == "nnunet":
        monkeypatch.setattr(subprocess, "run", in_this_process)
    with mock.patch.dict(os.environ):
        runpy.run_path(str(example), run_name="__main__")
    asked, done = map(int, re.search(r"(\d+) insertions asked, (\d+) done", capsys.readouterr().out).groups())
    assert 0 < done <= asked


def test_there_are_examples():
    assert EXAMPLES
