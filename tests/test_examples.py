"""Every example runs as it stands and inserts tumours."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example):
    run = subprocess.run([sys.executable, example, "--steps", "5"], capture_output=True, text=True, check=True)
    asked, done = map(int, re.search(r"(\d+) insertions asked, (\d+) done", run.stdout).groups())
    assert 0 < done <= asked


def test_there_are_examples():
    assert EXAMPLES
