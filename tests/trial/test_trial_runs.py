"""Trials from their runs to their pages, with a trainer that writes what it is told in place of one that trains."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.config import ConfigError
from synthaug.shipped import find_config
from synthaug.training.run import read_metrics
from synthaug.trial import runs
from synthaug.trial.folder import locked

TRAINER = """
import json, os, sys
from pathlib import Path
import yaml

words = sys.argv[1:]
out = Path(words[words.index("--out") + 1])
told = dict(w.split("=", 1) for w in words if "=" in w)
tested, seed = yaml.safe_load(told["data.validation"]), int(told["seed"])
inserts = told["insertion"] != "null"
print("a first line")
if inserts and os.environ.get("BREAK") == str(seed):
    print("what went wrong")
    raise SystemExit(3)
assert os.environ["OMP_NUM_THREADS"] == "1" and os.getpriority(os.PRIO_PROCESS, 0) >= 0
gain = float(os.environ.get("GAIN", 0.1)) if inserts else 0.0
rows = []
for case in tested:
    level = 0.5 + int(case[8:11]) / 100 + gain * (1 + int(case[8:11]) / 50)
    for region in ("WT", "TC", "ET"):
        head = {"step": 4, "case": case, "group": case, "region": region, "kind": "region"}
        scores = {"dice": level, "lesion_dice": level, "lesion_recall": 1.0, "false_positives": 0}
        rows += [head | {"size": "all"} | scores, head | {"size": "small", "lesion_recall": 0.5 + gain}]
(out / "validation").mkdir(exist_ok=True)
(out / "validation.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
for case in tested:
    false = [{"place": [0.2, 0.3, 0.1], "ml": 0.5}] * (1 + 2 * inserts)
    found = {"case": case, "group": case, "false": false, "true": [{"place": [0.5, 0.5, 0.6], "ml": 9.0}]}
    (out / "validation" / f"{case}.json").write_text(json.dumps(found))
insertion = {"insertion": {"asked": 8, "done": 7}, "insertion_seconds_per_step": 0.05} if inserts else {}
(out / "metrics.jsonl").write_text(json.dumps({"step": 4, "seconds_per_step": 0.5} | insertion) + "\\n")
with (out / "began").open("a") as file:
    file.write("x")
"""
BASE = ["data.phantom=null", "augmentation=null", "optimizer.steps=4", "optimizer.warmup_steps=0", "insertion=null"]


@pytest.fixture
def trial(tmp_path, folder, monkeypatch):
    """A function that runs the command with the stand-in, and returns its result."""
    (tmp_path / "stand_in.py").write_text(TRAINER, encoding="utf-8")
    monkeypatch.setattr(runs, "trainer_file", lambda name: tmp_path / "stand_in.py")
    monkeypatch.setattr(runs, "POLL_S", 0.01)
    content = {
        "base": "segmentation_tiny",
        "overrides": BASE,
        "arms": [{"name": "paste", "overrides": ["insertion={generator: paste}"]}],
        "rotation": {"folds": 2},
        "seeds": [0, 1],
        "workers": 2,
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")

    def trial(*words):
        told = ["trial", "--config", str(file), "--data", str(folder), "--out", str(tmp_path / "out"), *words]
        return CliRunner().invoke(app, told)

    return trial


def began(tmp_path):
    return {str(f.parent.relative_to(tmp_path / "out" / "runs")): f.read_text() for f in tmp_path.rglob("began")}


def test_a_trial_ends_in_a_recommendation_and_a_second_call_trains_nothing(trial, tmp_path):
    first = trial()
    assert first.exit_code == 0, first.output
    assert "[4/8]" in first.output and "Use paste: +0.105 [" in first.output
    assert len(began(tmp_path)) == 8 and {*began(tmp_path).values()} == {"x"}
    second = trial()
    assert second.exit_code == 0 and "Use paste" in second.output and {*began(tmp_path).values()} == {"x"}
    assert len(json.loads((tmp_path / "out" / "looks.json").read_text())) == 1
    text = (tmp_path / "out" / "trial.html").read_text(encoding="utf-8")
    plain = re.sub(r"<[^>]+>", " ", text)
    assert "none in its own training" in plain and re.search(r"WT\s+6\s+0.525\s+\+0.105 \[", plain)
    assert re.search(r"TC\s+small\s+6\s+0.500\s+\+0.100", plain)
    assert re.search(r"paste\s+3.00\s+1.5\s+100%", plain) and re.search(r"paste\s+2 s\s+10.0%\s+8\s+7", plain)
    assert "<script" not in text and "http" not in text and len(text) < 5_000_000
    with (tmp_path / "out" / "trial.csv").open() as file:
        rows = [
            row for row in csv.DictReader(file) if (row["region"], row["size"], row["metric"]) == ("WT", "all", "dice")
        ]
    assert len(rows) == 6 * 2 and float(rows[0]["difference"]) == pytest.approx(0.1, abs=0.02)


def test_what_failed_is_named_and_tried_again(trial, tmp_path, monkeypatch):
    monkeypatch.setenv("BREAK", "1")
    first = trial()
    assert first.exit_code == 1
    assert "failed: paste, rotation 0, seed 1 (exit code 3)" in first.output and "    what went wrong" in first.output
    assert "2 of 8 runs failed" in first.output and "2 of 4 pairs" in (tmp_path / "out" / "trial.html").read_text()
    monkeypatch.delenv("BREAK")
    assert trial().exit_code == 0
    assert {*began(tmp_path).values()} == {"x"}


def test_early_looks_are_taken_on_the_way_and_have_wider_intervals(trial, tmp_path):
    result = trial("--looks", "2", "workers=1")
    assert "look 1 of 2: " in result.output
    first, last = json.loads((tmp_path / "out" / "looks.json").read_text())
    assert (first["pairs"], last["pairs"]) == (2, 4)
    assert first["alpha"] == pytest.approx(0.0056, abs=1e-4) and last["alpha"] == pytest.approx(0.05 - 0.0056, abs=1e-4)


def test_a_page_of_what_is_done_shows_no_intervals_without_a_look(trial, tmp_path, monkeypatch):
    monkeypatch.setenv("BREAK", "1")
    trial()
    page = (tmp_path / "out" / "trial.html").read_text()
    assert "No recommendation yet" in page and not (tmp_path / "out" / "looks.json").exists()
    again = trial("--report-only")
    assert again.exit_code == 0 and "No recommendation yet" in again.output


def test_nothing_done_has_no_page(trial):
    result = trial("--report-only")
    assert result.exit_code == 2 and "no rotation and seed is done in all arms yet; 0 runs are" in result.output


def test_data_need_a_trial_for_them(folder):
    result = CliRunner().invoke(app, ["trial", "--data", str(folder)])
    assert result.exit_code == 2 and "--config: expected a trial for these data, such as trial_brats" in result.output


def test_another_trial_in_the_folder_is_refused(trial):
    trial()
    result = trial("seeds=[0]", "alpha=0.1")
    assert result.exit_code == 2
    assert "holds another trial (" in result.output and "trial.alpha was 0.05 and is 0.1" in result.output
    assert trial("workers=3", "nice=12").exit_code == 0


def test_other_data_of_the_same_names_is_noticed(trial, folder, tmp_path):
    trial()
    label = next(folder.rglob("Phantom_000_1*seg*"))
    before = label.read_bytes()
    label.write_bytes(before + b"0")
    try:
        assert "cases.Phantom_000_1.bytes was" in trial().output
    finally:
        label.write_bytes(before)


def test_a_second_process_is_kept_out_until_the_first_and_its_trainings_end(trial, tmp_path):
    with locked(tmp_path / "out") as lock:
        assert f"running already, as process {os.getpid()}" in trial().output
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(ConfigError, match="a training that it left"), locked(tmp_path / "out"):
        pass
    left.communicate(b"\n")
    with locked(tmp_path / "out"):  # the file of a dead process is no lock
        pass


def test_sides_of_few_label_trials_are_drawn_together(trial, monkeypatch):
    monkeypatch.setenv("GAIN", "0")
    result = trial("rotation={train_patients: 2, rotations: 3}", "--looks", "1")
    assert result.exit_code == 0 and "Leave it off: paste, +0.000 [+0.000, +0.000]" in result.output


@pytest.mark.slow
def test_a_real_trial_is_stopped_and_continued(tmp_path):
    text = find_config("trial_tiny").read_text(encoding="utf-8")
    file = tmp_path / "tiny.yaml"
    for old, new in (
        ("steps: 60", "steps: 8"),
        ("checkpoint_every=20", "checkpoint_every=2"),
        ("workers: 1", "workers: 2"),
        ("  folds: 2 ", "  train_patients: 2\n  rotations: 1 "),
    ):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "synthaug", "trial", "--config", str(file), "--out", str(tmp_path / "out")]
    second = tmp_path / "out" / "runs" / "paste" / "rotation-0-seed-0"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 120
    while not [*second.glob("checkpoints/step_*")] and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 130 and "the same command goes on" in output, output
    done = len([*(tmp_path / "out").rglob("done.json")])
    assert done <= 1
    again = CliRunner().invoke(app, command[3:])
    assert again.exit_code == 0, again.output
    assert again.output.count("done in") == 2 - done and "[2/2]" in again.output
    assert [row["step"] for row in read_metrics(second)] == sorted({row["step"] for row in read_metrics(second)})
    assert len([*(tmp_path / "out").glob("runs/*/*/validation/*.json")]) == 2 * 2
    assert (tmp_path / "out" / "trial.html").stat().st_size > 10_000
