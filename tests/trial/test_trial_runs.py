"""The plan of a trial, what it runs and what it refuses; trainings are stood in for by files."""

import json
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.config import ConfigError, read_config
from synthaug.data import find_cases, write_phantom_dataset
from synthaug.shipped import find_config
from synthaug.training.segmentation_config import SegmentationConfig
from synthaug.trial import runs as trial_runs
from synthaug.trial.config import TrialConfig, read_trial
from synthaug.trial.lock import locked
from synthaug.trial.looks import looks_of
from synthaug.trial.page import write_page
from synthaug.trial.plan import load_trial, open_trial
from synthaug.trial.results import look_at
from synthaug.trial.rotation import rotations
from synthaug.trial.runs import finished, perform, whole_units

ARMS = ({"name": "none", "reference": True}, {"name": "paste"})


def described(**changes):
    return TrialConfig(**({"base": "segmentation_tiny", "arms": ARMS} | changes))


# ------------------------------------------------------------------------------------------------ rotations


@given(patients=st.integers(3, 30), folds=st.integers(2, 10), seed=st.integers(0, 99))
def test_folds_test_every_patient_once(patients, folds, seed):
    names = [f"p{i}" for i in range(patients)]
    config = described(folds=min(folds, patients), rotation_seed=seed)
    drawn = rotations(names, config)
    assert sorted(name for rotation in drawn for name in rotation.test) == sorted(names)
    assert all(not {*r.train} & {*r.test} and {*r.train} | {*r.test} == {*names} for r in drawn)


@given(patients=st.integers(3, 20), count=st.integers(1, 6), number=st.integers(1, 12), seed=st.integers(0, 99))
def test_training_sets_take_all_patients_equally_often(patients, count, number, seed):
    names = [f"p{i}" for i in range(patients)]
    count = min(count, patients - 1)
    drawn = rotations(names, described(train_patients=count, rotations=number, rotation_seed=seed))
    assert len(drawn) == number and all(len({*r.train}) == count for r in drawn)
    assert all(not {*r.train} & {*r.test} and {*r.train} | {*r.test} == {*names} for r in drawn)
    used = Counter(dict.fromkeys(names, 0) | Counter(name for r in drawn for name in r.train))
    assert max(used.values()) - min(used.values()) <= 1
    assert count * number < patients or min(used.values()) >= 1


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="expected fewer than the 2 labelled patients, got 2"):
        rotations(["a", "b"], described(train_patients=2, rotations=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "expected either folds, or train_patients and rotations"),
        ({"folds": 2, "train_patients": 2, "rotations": 2}, "expected either folds"),
        ({"train_patients": 2}, "expected either folds"),
        ({"folds": 2, "arms": ({"name": "a"}, {"name": "b"})}, "one with reference: true, got none"),
        ({"folds": 2, "arms": (ARMS[0], ARMS[0])}, "none is given twice"),
        ({"folds": 2, "seeds": (1, 1)}, "expected different ones"),
    ],
)
def test_descriptions_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        described(**changes)


@pytest.mark.parametrize("name", ["trial_tiny", "trial_brats", "trial_few"])
def test_shipped_trials_are_valid(name, tmp_path):
    config, base = read_trial(name, ["seeds=[7]", "optimizer.steps=3"])
    assert config.seeds == (7,) and config.overrides[-1] == "optimizer.steps=3"
    for arm in config.arms:
        split = ["data.folder=somewhere", "data.phantom=null", "data.train=null", "data.validation=[one]"]
        settings = read_config(base, SegmentationConfig, [*config.overrides, *arm.overrides, *split])
        assert settings.optimizer.steps == 3 and (settings.insertion is None) == (arm.name in ("none", "carvemix"))


# ------------------------------------------------------------------------------------------------ what is run


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    write_phantom_dataset(folder, 4, size=(40, 40, 40), tumour_free=0)
    return folder


@pytest.fixture
def opened(tmp_path, cases):
    """A function that opens a trial of two folds, with changes."""

    def opened(*changes, out=tmp_path / "trial"):
        config, base = read_trial("trial_tiny", list(changes))
        return open_trial(config, base, out, cases)

    return opened


def train(run, dice):
    """Write what a training leaves."""
    (run.folder / "model").mkdir(parents=True)
    (run.folder / "model" / "config.json").write_text("{}")
    step = {"step": run.steps, "seconds_per_step": 0.5}
    (run.folder / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    tested = next(o for o in run.overrides if o.startswith("data.validation="))
    rows = []
    for i, case in enumerate(json.loads(tested.partition("=")[2])):
        head = {"step": run.steps, "case": case, "group": case, "region": "WT", "kind": "region"}
        rows += [head | {"size": "all", "dice": dice + 0.01 * i, "lesion_recall": 1.0, "false_positives": 2}]
    (run.folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pairs_are_whole_first_and_no_patient_is_in_its_own_training(opened, cases):
    trial = opened("seeds=[0,1]")
    assert [(r.arm, r.rotation, r.seed) for r in trial.runs()][:4] == [
        *(("none", 0, 0), ("paste", 0, 0)),
        *(("none", 1, 0), ("paste", 1, 0)),
    ]
    names = {case.name for case in find_cases(cases)}
    for run in trial.runs():
        settings = read_config(trial.base, SegmentationConfig, run.overrides)
        assert {*settings.data.train} | {*settings.data.validation} == names
        assert not {*settings.data.train} & {*settings.data.validation}
        assert settings.seed == run.seed and (settings.insertion is None or settings.insertion.seed == run.seed)


def test_done_runs_are_skipped_and_failures_are_named(opened, monkeypatch):
    trial, started, said = opened(), [], []
    runs = trial.runs()
    train(runs[0], 0.5)

    def start(trial, run, held):
        started.append(run.name)
        if run.name == runs[2].name:
            run.folder.parent.mkdir(parents=True, exist_ok=True)
            run.log.write_text("first\nerror: no memory\n")
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        train(run, 0.6)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(trial_runs, "_start", start)
    assert [run.name for run in perform(trial, say=said.append)] == [runs[2].name]
    assert started == [run.name for run in runs[1:]]
    assert any("none, rotation 1, seed 0: failed with exit code 3" in s and "error: no memory" in s for s in said)
    assert whole_units(trial) == [(0, 0)] and finished(runs[3]) and not finished(runs[2])


def test_a_trial_that_is_done_starts_nothing(opened, monkeypatch):
    trial = opened()
    for run in trial.runs():
        train(run, 0.5)
    monkeypatch.setattr(trial_runs, "_start", lambda *_: pytest.fail("started"))
    assert perform(opened()) == []


def test_a_run_without_its_model_or_last_step_is_not_done(opened):
    trial = opened()
    run = trial.runs()[0]
    train(run, 0.5)
    assert finished(run)
    (run.folder / "metrics.jsonl").write_text(json.dumps({"step": run.steps - 1}) + "\n")
    assert not finished(run)


def test_another_description_in_the_same_folder_says_what_differs(opened):
    opened()
    opened("workers=2", "nice=0")
    with pytest.raises(ConfigError, match=r"trial.alpha was 0.05 and is 0.1.*give another --out"):
        opened("alpha=0.1")
    with pytest.raises(ConfigError, match=r"arms.none.optimizer.steps was 120 and is 7"):
        opened("optimizer.steps=7")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("early_stopping={watch: ET}", "early_stopping"),
        ("optimizer.schedule=plateau", "optimizer.schedule"),
    ],
)
def test_trainings_that_follow_the_tested_patients_are_refused(opened, change, key):
    with pytest.raises(ConfigError, match=f"arm none: {key}.*would follow"):
        opened(change)


def test_an_endpoint_that_is_not_scored_is_refused_before_anything_is_trained(opened):
    with pytest.raises(ConfigError, match="endpoint: expected some of WT, TC, ET, NCR, ED, got CT"):
        opened("endpoint=[WT, CT]")


def test_patients_can_be_chosen(opened):
    trial = opened("patients=[Phantom_000_1, Phantom_001_1, Phantom_003_1]")
    assert [*trial.patients] == ["Phantom_000_1", "Phantom_001_1", "Phantom_003_1"]
    with pytest.raises(ConfigError, match="no labelled case or patient is called x"):
        opened("patients=[Phantom_000_1, Phantom_001_1, x]")


# ------------------------------------------------------------------------------------------------------ lock


def test_a_second_launch_is_refused_and_the_lock_of_a_dead_one_is_not(tmp_path):
    code = "import sys, time\nfrom pathlib import Path\nfrom synthaug.trial.lock import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {process.pid}, or a training"), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text().strip().isdigit()


def test_trainings_that_a_dead_launch_left_hold_its_lock(tmp_path):
    with locked(tmp_path) as held:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(held,))
    try:
        with pytest.raises(ConfigError, match="a training that it left behind"), locked(tmp_path):
            pass
    finally:
        left.kill()
        left.wait()
    with locked(tmp_path):
        pass


# ------------------------------------------------------------------------------------------------------ page


def test_the_page_says_what_was_found_and_two_looks_at_the_same_pairs_are_one(opened):
    trial = opened()
    assert look_at(trial) is None
    for run in trial.runs():
        train(run, 0.5 if run.arm == "none" else 0.55 + 0.01 * run.rotation)
    results = look_at(load_trial(trial.out))
    text = write_page(trial, results).read_text()
    assert results.arms["paste"].found.mean == pytest.approx(0.055)
    assert "Use paste: it gains, +0.055" in text and "Places were not kept" in text
    assert len((trial.out / "trial.csv").read_text().splitlines()) == 1 + 4
    again = look_at(trial)
    assert again.arms["paste"].found == results.arms["paste"].found and len(looks_of(trial.out)) == 1


def test_an_early_look_is_wider_and_an_arm_without_runs_is_named(opened):
    arms = "arms=[{name: none, reference: true}, {name: paste}, {name: late, overrides: [insertion.prob=1.0]}]"
    trial = opened(arms, "seeds=[0,1,2]")
    for run in trial.runs()[:6]:
        if run.arm != "late":
            train(run, 0.5 if run.arm == "none" else 0.55 + 0.03 * run.rotation)
    results = look_at(trial)
    assert results.missing == ("late",) and "late" in write_page(trial, results).read_text()
    assert results.look.level < 0.002 and results.arms["paste"].advice.verdict == "undecided"


# --------------------------------------------------------------------------------------------------- the command


def test_errors_of_the_command_are_one_line(tmp_path):
    def said(*words):
        result = CliRunner().invoke(app, ["trial", *map(str, words)])
        assert result.exit_code == 2
        return result.output

    assert "error: expected --config" in said()
    assert "there is none" in said("--report-only", "--out", tmp_path)
    assert "no configuration nothing" in said("--config", "nothing", "--out", tmp_path)
    assert "stepz: unknown key" in said("--config", "trial_tiny", "--out", tmp_path, "optimizer.stepz=1")


@pytest.mark.slow
def test_a_trial_of_phantoms_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    words = ["trial", "--config", "trial_tiny", "--out", str(tmp_path / "t"), "optimizer.steps=4", "nice=0"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0 and "4 trainings: 2 pairs of none, paste" in first.output, first.output
    page = (tmp_path / "t" / "trial.html").read_text()
    assert "Where false regions lie" in page and "Places were not kept" not in page
    kept = yaml.safe_load((tmp_path / "t" / "trial.yaml").read_text())
    assert [*kept["arms"]] == ["none", "paste"] and len(kept["patients"]) == 4
    began = time.monotonic()
    second = CliRunner().invoke(app, words)
    assert second.exit_code == 0 and "done in" not in second.output and time.monotonic() - began < 30
    assert find_config("trial_tiny").is_file()
