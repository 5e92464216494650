"""Options of the segmentation trainer: processes, accumulation, folds, schedules, stopping, regions, voxel sizes."""

import json
import runpy
import sys

import processes
import pytest
import segmentation_runs
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from segmentation_runs import config_file, segmentation

from synthaug.config import ConfigError, read_config
from synthaug.data import find_cases, write_phantom_dataset
from synthaug.segmentation.model import Segmenter
from synthaug.training.launch import trainer_file
from synthaug.training.patches import PatchSampler
from synthaug.training.run import read_metrics
from synthaug.training.segmentation_config import InsertionConfig, PatchDataConfig, SegmentationConfig, open_split

clean_process, folder = segmentation_runs.clean_process, segmentation_runs.folder
made, run = segmentation_runs.made, segmentation_runs.run


def by_command(config, out, *options):
    """A run by the trainer's command line."""
    script = str(trainer_file("segmentation"))
    sys.argv = [script, "--config", str(config), "--out", str(out), *options]
    runpy.run_path(script, run_name="__main__")


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path, folder):
    out = tmp_path / "two"
    options = ["optimizer.steps=4", "checkpoint_every=4", "data.validation=[Phantom_001_1, Phantom_002_1]"]
    processes.in_two_processes(tmp_path / "log", by_command, config_file(tmp_path, folder), out, *options)
    rows = read_metrics(out)
    assert [row["step"] for row in rows] == [0, 2, 4] and rows[0]["processes"] == 2
    assert rows[0]["samples"] == rows[-1]["insertion"]["samples"] == 16
    assert {*rows[-1]["validation"]["cases"]} == {"Phantom_001_1", "Phantom_002_1"}
    own = [json.loads((out / f"checkpoints/step_00000004/rank_{r}.json").read_text())["own"] for r in (0, 1)]
    done_by_rank = [o["insertion"]["insert"]["audit"] for o in own]
    assert done_by_rank[0]["samples"] == done_by_rank[1]["samples"] == 8 and done_by_rank[0] != done_by_rank[1]


@pytest.mark.slow
def test_two_processes_and_accumulation_equal_the_doubled_batch(run, tmp_path, folder):
    same = ("insertion=null", "loss.batch_dice=false", "precision=fp32", "optimizer.name=sgd", "optimizer.steps=4")
    one = run(*same, out="one")
    config = read_config(config_file(tmp_path, folder), SegmentationConfig, [*same, "data.batch=1"])
    processes.in_two_processes(tmp_path / "log", segmentation.train, config, tmp_path / "two")
    two = read_metrics(tmp_path / "two")
    accumulated = run(*same, "data.batch=1", "optimizer.accumulate=2", out="accumulated")
    weights = load_file(tmp_path / "one" / "model" / "weights.safetensors")
    for out, rows in (("two", two), ("accumulated", accumulated)):
        assert [r["loss"] for r in rows[1:]] == pytest.approx([r["loss"] for r in one[1:]], rel=1e-4)
        others = load_file(tmp_path / out / "model" / "weights.safetensors")
        assert all(torch.allclose(weights[name], others[name], atol=2e-4) for name in weights)


def test_folds_take_donors_and_patches_from_training_patients_alone(run, made):
    held = set()
    for fold in range(3):
        rows = run("data.validation=[]", "data.folds=3", f"data.fold={fold}", "optimizer.steps=1", out=f"fold{fold}")
        validated = {*rows[-1]["validation"]["cases"]}
        assert len(validated) == 1 and made[-1].groups == {f"Phantom_00{i}_1" for i in range(3)} - validated
        held |= validated
    assert len(held) == 3


def test_the_first_lines_say_how_many_insertions_will_be_asked_for(run, capsys):
    rows = run("insertion.warmup_steps=3", "insertion.decay_from=4", "insertion.decay_to=8", "insertion.prob=0.8")
    schedule = [0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert rows[0]["expected_insertions"] == pytest.approx(2 * 1.4 * sum(schedule))
    first = capsys.readouterr().out.splitlines()[0]
    assert "16 patches of 2 training cases; 1 cases" in first and "about 9 insertions will be asked for" in first


def test_moments_below_1_are_shares_of_the_steps_and_the_end_is_real_by_default(run):
    rows = run("insertion={prob: 1.0, second: 0.0, scale: [0.3, 0.6]}", "optimizer.steps=5")
    assert rows[0]["expected_insertions"] == pytest.approx(2 * 3)  # steps 1 to 3 of 5
    config = InsertionConfig(decay_from=0.25, decay_to=0.5)
    assert [config.schedule(8)(step) for step in (2, 3, 4)] == pytest.approx([0.6, 0.3, 0.0])
    assert InsertionConfig(decay_from=None, decay_to=None).schedule(8)(8) == 0.6
    with pytest.raises(ValueError, match="expected warmup_steps <= decay_from <= decay_to"):
        run("insertion={warmup_steps: 4}", "optimizer.steps=5", out="late")


def test_tumour_free_hosts_get_lesions_and_are_not_of_validation_patients(run, tmp_path, folder, monkeypatch):
    write_phantom_dataset(tmp_path / "free", count=5, seed=20, size=(40, 40, 40), tumour_free=5)
    seen = []
    sample = PatchSampler.__getitem__
    monkeypatch.setattr(PatchSampler, "__getitem__", lambda *args: seen.append(sample(*args)) or seen[-1])
    free = f"data.tumour_free={{folder: {tmp_path / 'free'}, share: 1.0, patients: [Phantom_003_1, Phantom_004_1]}}"
    rows = run(free, "optimizer.steps=2")
    assert {group for batch in seen for group in batch.groups} <= {"Phantom_003_1", "Phantom_004_1"}
    assert not any(batch.label.any() for batch in seen) and rows[-1]["insertion"]["done"] > 0
    with pytest.raises(ConfigError, match=r"data\.tumour_free: .*Phantom_002_1, who are in validation"):
        run(free.replace("Phantom_003_1", "Phantom_002_1"), out="leak")
    with pytest.raises(ConfigError, match=r"data\.tumour_free: no case or patient is called nobody"):
        run(free.replace("Phantom_003_1", "nobody"), out="unknown")
    with pytest.raises(ValueError, match="expected tumour-free volumes, got labels in Phantom_000_1"):
        run(f"data.tumour_free={{folder: {folder}, patients: [Phantom_000_1]}}", out="labelled")


def test_early_stopping_keeps_the_best_model_and_stays_stopped(run, monkeypatch, tmp_path):
    scores = iter([0.3, 0.5, 0.4, 0.45, 0.6])
    monkeypatch.setattr(segmentation, "score_of", lambda validation, config: next(scores))
    options = (
        "optimizer.steps=20",
        "validation.every=2",
        "early_stopping={watch: ET, patience: 2}",
        "optimizer.lr=0.05",
    )
    rows = run(*options)
    assert rows[-1]["step"] == 8 and rows[-1]["best"] == {
        "score": 0.5, "step": 4, "validations_since": 2, "stopped": True
    }  # fmt: skip
    model = (tmp_path / "run/model/weights.safetensors").read_bytes()
    assert run(*options) == rows and (tmp_path / "run/model/weights.safetensors").read_bytes() == model
    best = Segmenter.load(tmp_path / "run").networks[0]
    state = torch.load(tmp_path / "run/checkpoints/step_00000008/custom_checkpoint_0.pkl", weights_only=False)
    assert not all(torch.equal(a, b) for a, b in zip(best.parameters(), state["shadow_params"], strict=True))


def test_regions_mixup_plateau_adaptive_and_postprocessing_run_together(run, tmp_path):
    regions = "data.regions={WT: [NCR, ED, ET], TC: [NCR, ET], ET: [ET]}"
    rows = run(
        *(regions, "loss.targets=regions", "loss.name=dice_focal", "augmentation.mixup=0.4"),
        *("optimizer.schedule=plateau", "optimizer.patience=0", "inference.mirror=[0]"),
        *("insertion.class_mix={NCR: 0.3, ED: 0.4, ET: 0.3}", "insertion.adaptive={strength: 1.0}"),
        *("postprocessing={thresholds: {ET: 0.4}, brain_mask: true, min_component_mm3: {ET: 5}}",),
    )
    validations = [row for row in rows if "validation" in row]
    assert [row["adaptive"]["updates"] for row in validations] == [1, 2]
    assert {*validations[-1]["validation"]["dice"]} == {"WT", "TC", "ET", "NCR", "ED"}
    assert Segmenter.load(tmp_path / "run").targets.names == ("WT", "TC", "ET")


def test_other_voxel_sizes_and_the_cache(run, tmp_path):
    options = ("data.spacing_mm=[1.5, 1.5, 1.5]", f"data.cache={tmp_path / 'cache'}", "optimizer.steps=2")
    rows = run(*options, "data.patch_size=[16,16,16]")
    kept = sorted(path.name[:13] for path in (tmp_path / "cache").iterdir())
    assert kept == ["Phantom_000_1", "Phantom_001_1", "Phantom_002_1"]
    again = run(*options, "data.patch_size=[16,16,16]", out="again")
    assert again[-1]["loss"] == rows[-1]["loss"]
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("split", [{"validation": ["c"]}, {"folds": 3, "fold": 1}])
def test_cases_set_apart_for_tests_are_neither_trained_on_nor_validated(tmp_path, folder, split):
    for case, split_name in zip([*find_cases(folder), find_cases(folder)[0]], ("Tr", "Tr", "Tr", "Ts"), strict=True):
        name = "abc"[len(list((tmp_path / "labelsTr").glob("*")))] if split_name == "Tr" else "test"
        for kind, path in ((f"images{split_name}", case.images["flair"]), (f"labels{split_name}", case.label)):
            ending = "_0000.nii.gz" if kind.startswith("images") else ".nii.gz"
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{name}{ending}").write_bytes(path.read_bytes())
    data = {"folder": tmp_path, "channels": ["flair"], "patch_size": [16, 16, 16]} | split
    train, validation = open_split(PatchDataConfig(classes="BRATS18", **data), tmp_path / "run", Accelerator(cpu=True))
    assert len(validation) == 1 and sorted(c.name for c in (*train, *validation)) == ["a", "b", "c"]
