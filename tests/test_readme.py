"""The README shows lines of examples that run, and commands that exist."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from synthaug.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"\(`examples/(\w+\.py)`(?:(?!```).)*?```python\n(.*?)```", README, re.S)


def test_every_framework_shows_its_lines():
    assert {name for name, _ in SHOWN} >= {
        "plain_pytorch.py",
        "monai_dict.py",
        "monai_supervised.py",
        "torchio_subjects.py",
        "torchio_batch.py",
        "lightning_module.py",
    }


@pytest.mark.parametrize(("name", "lines"), SHOWN, ids=[name for name, _ in SHOWN])
def test_lines_shown_are_lines_of_the_example(name, lines):
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    for line in (line.strip() for line in lines.splitlines()):
        assert line in example or line in ("", "...", "...,", "def __init__(self):"), f"{name} has no line: {line}"


def test_files_that_the_readme_names_exist():
    named = set(re.findall(r"(?:examples|configs|benchmarks|trainers|tests)/[\w./-]*\.(?:py|yaml|txt|json)", README))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert named and not missing


def test_verbs_that_the_readme_names_exist():
    verbs = {
        verb
        for block in re.findall(r"```bash\n(.*?)```", README, re.S)
        for verb in re.findall(r"synthaug ([a-z-]+)", block)
    }
    known = CliRunner().invoke(app, ["--help"]).stdout
    assert verbs and not [verb for verb in verbs if verb not in known]
