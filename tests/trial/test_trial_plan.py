"""What a trial is told, who trains and is tested in it, and what is refused before it begins."""

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthaug import BRATS18, LesionBank, LesionSampler
from synthaug.cli.app import app
from synthaug.config import ConfigError, read_config
from synthaug.data import find_cases, write_phantom_dataset
from synthaug.generators.patients import generator_patients
from synthaug.shipped import find_config
from synthaug.trial.base import with_profile
from synthaug.trial.config import RotationConfig, TrialConfig
from synthaug.trial.plan import make_plan
from synthaug.trial.rotation import rotations

PATIENTS = [f"Phantom_{i:03d}_1" for i in range(6)]


@pytest.fixture
def trial(tmp_path, folder):
    """A function that plans a trial of the phantoms, with changes of its configuration."""

    def trial(**changes):
        content = {
            "base": "segmentation_tiny",
            "overrides": ["data.phantom=null", "augmentation=null", "optimizer.steps=4", "optimizer.warmup_steps=0"],
            "arms": [{"name": "paste", "overrides": ["insertion={generator: paste}"]}],
            "rotation": {"folds": 2},
            "seeds": [0, 1],
        }
        file = tmp_path / "trial.yaml"
        file.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
        return make_plan(read_config(file, TrialConfig), tmp_path / "out", [f"data.folder={folder}"])

    return trial


def test_a_pair_has_all_arms_before_the_next_begins(trial):
    plan = trial()
    assert [(run.arm, run.pair) for run in plan.runs[:4]] == [
        *(("none", (0, 0)), ("paste", (0, 0))),
        *(("none", (1, 0)), ("paste", (1, 0))),
    ]
    assert len(plan.runs) == 8 and plan.pairs == 4
    assert plan.regions == ("WT", "TC", "ET")
    for run in plan.runs:
        turn = plan.rotations[run.rotation]
        assert run.config.data.train == turn.train and run.config.data.validation == turn.test
        assert (run.config.insertion is None) == (run.arm == "none")
        assert ("insertion.seed=1" in run.overrides) == (run.arm == "paste" and run.seed == 1)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("early_stopping={watch: ET}", "early_stopping"),
        ("optimizer.schedule=plateau", "optimizer.schedule: plateau"),
        ("insertion={adaptive: {}}", "insertion.adaptive"),
    ],
)
def test_trainings_that_follow_the_scores_of_tested_patients_are_refused(trial, override, key):
    with pytest.raises(ConfigError, match=f"arm late: {key} would follow the scores of the patients that are tested"):
        trial(arms=[{"name": "late", "overrides": [override]}])


@given(st.integers(4, 20), st.integers(2, 4), st.integers(0, 5))
def test_folds_test_each_patient_once_and_never_on_its_own_training(count, folds, seed):
    names = [f"p{i}" for i in range(count)]
    turns = rotations(names, RotationConfig(folds=folds, seed=seed))
    assert sorted(name for turn in turns for name in turn.test) == sorted(names)
    assert all(not {*turn.train} & {*turn.test} for turn in turns)


@given(st.integers(3, 14), st.integers(1, 2), st.integers(1, 9), st.integers(1, 14))
def test_few_patients_train_in_turn(count, size, turns, cap):
    names = [f"p{i}" for i in range(count)]
    config = RotationConfig(train_patients=size, rotations=turns, test_patients=cap)
    found = rotations(names, config)
    times = [sum(name in turn.train for turn in found) for name in names]
    assert max(times) - min(times) <= 1 and sum(times) == size * turns
    for turn in found:
        assert len(turn.train) == size and len(turn.test) == min(cap, count - size)
        assert not {*turn.train} & {*turn.test}


@given(st.integers(5, 12), st.booleans())
def test_patients_that_train_always_are_never_tested(count, folds):
    names = [f"p{i}" for i in range(count)]
    drawn = {"folds": 2} if folds else {"train_patients": 1, "rotations": 4}
    turns = rotations(names, RotationConfig(always=("p0", "p3"), **drawn))
    assert all({"p0", "p3"} < {*turn.train} and not {"p0", "p3"} & {*turn.test} for turn in turns)
    assert all({*turn.train} | {*turn.test} == {*names} for turn in turns)
    assert len({turn.train for turn in turns}) > 1


def test_a_patient_to_train_always_who_is_not_there_is_named():
    with pytest.raises(ValueError, match="always: no labelled case is of p9"):
        rotations(["p0", "p1", "p2"], RotationConfig(folds=2, always=("p9",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": []}, "one or more beside the reference"),
        ({"arms": [{"name": "none", "overrides": []}]}, "none is the reference where none is named"),
        ({"arms": [{"name": "a", "reference": True}, {"name": "b", "reference": True}]}, "one reference, got a, b"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "different names, got a twice"),
        ({"arms": [{"name": "a", "overrides": ["data.train=[x]"]}]}, "data.train is the same in all arms"),
        ({"arms": [{"name": "a/b"}]}, "a/b"),
        ({"rotation": {}}, "either folds, or train_patients together with rotations"),
        ({"rotation": {"folds": 2, "rotations": 3}}, "either folds"),
        ({"rotation": {"folds": 2, "test_patients": 3}}, "with folds all patients are tested"),
        ({"rotation": {"folds": 7}}, "at least 7 patients for 7 folds, got 6"),
        ({"rotation": {"train_patients": 6, "rotations": 2}}, "more than train_patients=6 patients, got 6"),
        ({"seeds": [1, 1]}, "seeds: expected different ones"),
        ({"patients": ["nobody"]}, "no labelled case is of nobody"),
        ({"endpoint": {"regions": ["XY"]}}, "some of WT, TC, ET, NCR, ED, got XY"),
        ({"arms": [{"name": "a", "overrides": ["insertion.plaice=home"]}]}, "(?s)arm a: .*plaice"),
        ({"base": "nothing"}, "no configuration nothing"),
    ],
)
def test_what_does_not_fit_is_said(trial, changes, message):
    with pytest.raises(ValueError, match=message):
        trial(**changes)


def arm(**options):
    return {"arms": [{"name": "given", "overrides": [f"insertion={json.dumps(options)}"]}]}


def test_a_bank_that_is_not_there_is_named_with_its_arm(trial, tmp_path):
    with pytest.raises(ConfigError, match=r"arm given: insertion.bank: .*nowhere.safetensors: no such file"):
        trial(**arm(bank=str(tmp_path / "nowhere.safetensors")))


def test_a_bank_painted_after_tested_patients_is_refused(trial, folder, tmp_path):
    bank = LesionBank.from_folder(folder, BRATS18, per="case")
    LesionSampler.fit(bank).painted("procedural", 2).save(tmp_path / "sampled.safetensors")
    assert not LesionBank.load(tmp_path / "sampled.safetensors").groups, "the lesions are of no patient"
    with pytest.raises(ConfigError, match=r"arm given: the bank .* has seen Phantom_00._1"):
        trial(**arm(bank=str(tmp_path / "sampled.safetensors")))


def test_a_bank_painted_by_weights_that_saw_tested_patients_is_refused(trial, folder, tmp_path):
    foreign = LesionBank.from_folder(folder, BRATS18).rows()[0] | {"group": "somebody else"}
    mine = LesionBank.from_folder(folder, BRATS18)
    told = {"generator": {"name": "gan"}, "source": {}, "taught_on": [PATIENTS[0]]}
    mine.of_rows([foreign], told).save(tmp_path / "painted.safetensors")
    with pytest.raises(ConfigError, match=rf"arm given: the bank .* has seen {PATIENTS[0]}"):
        trial(**arm(bank=str(tmp_path / "painted.safetensors")))


def test_a_bank_with_tested_patients_is_refused(trial, folder, tmp_path):
    LesionBank.from_folder(folder, BRATS18).save(tmp_path / "bank.safetensors")
    with pytest.raises(ConfigError, match=r"arm given: the bank .* has seen Phantom_00._1"):
        trial(**arm(bank=str(tmp_path / "bank.safetensors")))


def test_a_generator_that_has_seen_tested_patients_is_refused(trial, tmp_path):
    generator = tmp_path / "run" / "generator"
    generator.mkdir(parents=True)
    assert trial(**arm(generator=str(generator))).unknown == ("given",)
    (generator / "patients.json").write_text(json.dumps([*PATIENTS[:1], "other"]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"arm given: the generator .* has seen Phantom_000_1, tested here"):
        trial(**arm(generator=str(generator)))
    (generator / "patients.json").write_text('["other"]', encoding="utf-8")
    assert trial(**arm(generator=str(generator))).unknown == ()


def test_the_patients_of_a_generator_follow_from_its_run(folder, tmp_path):
    file = tmp_path / "config.yaml"
    data = {"folder": str(folder), "layout": "auto", "channels": ["flair"], "group_pattern": None, "train": None}
    for told, seen in ((data, {*PATIENTS}), (data | {"train": ["a"], "validation": ["b"]}, {"a", "b"})):
        file.write_text(yaml.safe_dump({"data": told}), encoding="utf-8")
        assert generator_patients(str(tmp_path / "generator")) == seen
    assert "TCIA10_637" in generator_patients("brats-gan")


def test_a_generator_beside_a_profile_has_seen_its_patients(folder, tmp_path):
    result = CliRunner().invoke(app, ["fit", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert generator_patients(str(tmp_path / "generator")) == {*PATIENTS}


def test_tumour_free_hosts_are_never_of_tested_patients(trial, folder):
    changed = {"arms": [{"name": "hosts", "overrides": [f"data.tumour_free={{folder: {folder}, share: 0.3}}"]}]}
    plan = trial(**changed)
    for run in plan.runs:
        given = [o for o in run.overrides if o.startswith("data.tumour_free.patients=")]
        if run.arm == "hosts":
            patients = yaml.safe_load(given[0].partition("=")[2])
            assert patients == sorted({*PATIENTS} - {*plan.rotations[run.rotation].test})
        else:
            assert not given


def test_a_profile_brings_its_base(tmp_path):
    config = read_config(find_config("trial_brats"), TrialConfig)
    (tmp_path / "synthaug.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"segmentation.yaml: not there; make it by `synthaug fit`"):
        with_profile(config, None, tmp_path, print)
    (tmp_path / "segmentation.yaml").write_text("", encoding="utf-8")
    lines = []
    changed, told = with_profile(config, None, tmp_path, lines.append)
    assert changed.base == str(tmp_path.resolve() / "segmentation.yaml")
    assert "optimizer.steps=400" in changed.overrides and not [o for o in changed.overrides if o.startswith("data.")]
    assert told == [f"data.profile={tmp_path / 'synthaug.json'}", f"data.folder={tmp_path}"]
    assert "beside the cases" in lines[0]
    assert with_profile(config, None, tmp_path / "elsewhere", print)[0] == config
    (tmp_path / "segmentation_coarse.yaml").write_text("", encoding="utf-8")
    coarse = with_profile(config.model_copy(update={"base": "segmentation_coarse"}), tmp_path, None, print)[0]
    assert coarse.base == str(tmp_path.resolve() / "segmentation_coarse.yaml")


@pytest.mark.parametrize(
    "name, steps", [("trial_brats", 400), ("trial_few", 1200), ("trial_missing", 600), ("trial_learned", 1200)]
)
def test_shipped_trials_can_be_planned(name, steps, folder, tmp_path):
    config = read_config(find_config(name), TrialConfig, ["rotation.always=[]"])  # the folder has other patients
    plan = make_plan(config, tmp_path, [f"data.folder={folder}"])
    assert len(plan.runs) == len(config.arms) * plan.pairs
    assert all(run.config.data.spacing_mm == (3, 3, 3) and run.config.optimizer.steps == steps for run in plan.runs)


def test_a_trial_of_others_takes_the_bank_where_it_is_called(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_config(find_config("trial_others"), TrialConfig, ["rotation={train_patients: 4, rotations: 3}"])
    told = [f"data.folder={folder}"]
    with pytest.raises(ConfigError, match=r"arm others: insertion.bank: .*lesions.safetensors"):
        make_plan(config, tmp_path / "out", told)
    write_phantom_dataset(tmp_path / "elsewhere", 1, 77, (32, 32, 32))
    case = find_cases(tmp_path / "elsewhere")[0]
    LesionBank.from_cases([replace(case, group="Elsewhere")], "BRATS18").save("lesions.safetensors")
    plan = make_plan(config, tmp_path / "out", told)
    assert {len(turn.train) for turn in plan.rotations} == {4} and len(plan.runs) == 9
    LesionBank.from_cases(find_cases(folder)[:1], "BRATS18").save("lesions.safetensors")
    with pytest.raises(ConfigError, match=r"arm others: the bank lesions.safetensors has seen"):
        make_plan(config, tmp_path / "out", told)
