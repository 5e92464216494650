"""The last line of a command says what was written, and the next command, which is one that there is."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.data import write_phantom_dataset

KNOWN = typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("last line")
    write_phantom_dataset(folder / "cases", 2, size=(48, 48, 48))
    return folder


def last_line(place: Path, words: str) -> tuple[str, list[str]]:
    result = CliRunner().invoke(app, [word.format(p=place) for word in words.split()])
    assert result.exit_code == 0, result.output
    found = re.fullmatch(r"written: (.+); next: (?:change it, then )?(.+)", result.stdout.splitlines()[-1])
    assert found, result.stdout
    return found[1], shlex.split(found[2])


@pytest.mark.parametrize(
    ("words", "written", "following"),
    [
        ("bank build {p}/cases -o {p}/bank.safetensors", "bank.safetensors", "insert"),
        ("insert {p}/cases --bank {p}/bank.safetensors --scale 0.3 0.4 --out {p}/inserted", "inserted", "view"),
        (
            "cohort --cases {p}/cases --bank {p}/bank.safetensors --count 1 --layout brats --scale 0.3 0.4 --out {p}/c",
            "c",
            "view",
        ),
        ("configs copy gan_tiny -o {p}/mine.yaml", "mine.yaml", "train"),
        ("configs copy cohort_brats -o {p}/own.yaml", "own.yaml", "cohort"),
    ],
    ids=lambda text: text.split(" ")[0],
)
def test_what_was_written_is_there_and_the_next_command_too(place, words, written, following):
    said, command = last_line(place, words)
    assert said == str(place / written) and Path(said).exists()
    assert command[:2] == ["synthaug", following] and command[1] in KNOWN
