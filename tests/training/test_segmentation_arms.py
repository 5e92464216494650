"""The comparison of arms: what it runs, that it can be stopped and continued, and what its tables say."""

import csv
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "compare_arms.py"


@pytest.fixture
def compare(monkeypatch, tmp_path, capsys):
    """A function that calls the script and returns what it printed."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def compare(*options):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--steps", "2", "--out", str(tmp_path / "arms"), *options])
        with mock.patch.dict(os.environ):
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return compare


def test_arms_differ_in_insertion_alone_and_finished_ones_are_not_run_again(compare, tmp_path):
    first = compare("--arms", "paste+swaps")
    assert "none, seed 0: no insertions" in first and "paste+swaps, seed 0: " in first
    runs = [tmp_path / "arms" / arm / "seed0" for arm in ("none", "paste+swaps")]
    texts = [[line for line in (run / "config.yaml").read_text().splitlines() if line] for run in runs]
    insertion = [text.index(next(line for line in text if line.startswith("insertion:"))) for text in texts]
    rest = [text[:at] for text, at in zip(texts, insertion, strict=True)]
    assert rest[0] == rest[1]
    written = [(run / "metrics.jsonl").stat().st_mtime_ns for run in runs]
    second = compare("--arms", "paste+swaps", "--seeds", "2")
    assert [(run / "metrics.jsonl").stat().st_mtime_ns for run in runs] == written
    assert "paste+swaps, seed 1: " in second and "paste+swaps minus none" in second
    with (tmp_path / "arms" / "paste+swaps-minus-none.csv").open() as file:
        rows = list(csv.DictReader(file))
    dice = [row for row in rows if (row["metric"], row["size"]) == ("dice", "all")]
    assert [row["region"] for row in dice] == ["WT", "TC", "ET", "NCR", "ED"] and all(row["n"] == "4" for row in dice)
    assert {row["size"] for row in rows if row["metric"] == "lesion_recall"} > {"all"}


def test_unknown_arms_are_named(compare):
    with pytest.raises(SystemExit, match=r"unknown arms magic; there are none, paste, procedural"):
        compare("--arms", "magic")
