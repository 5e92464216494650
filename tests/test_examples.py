"""Every example runs as it stands and inserts tumours."""

import os
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, monkeypatch, capsys, tmp_path):
    if example.stem == "nnunet":
        pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), "--steps", "5"])
    with mock.patch.dict(os.environ):
        runpy.run_path(str(example), run_name="__main__")
    asked, done = map(int, re.search(r"(\d+) insertions asked, (\d+) done", capsys.readouterr().out).groups())
    assert 0 < done <= asked


def test_there_are_examples():
    assert EXAMPLES
