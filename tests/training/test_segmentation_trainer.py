"""The segmentation trainer: what it learns, logs, leaves alone, and how it goes on after a kill."""

import hashlib
import os
import signal
from itertools import pairwise

import numpy as np
import processes
import pytest
import segmentation_runs
import torch
from accelerate import Accelerator
from segmentation_runs import ROOT, STEPS, config_file, segmentation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from synthaug import BRATS18, LesionBank
from synthaug.config import ConfigError, read_config
from synthaug.data import find_cases
from synthaug.precision import has_bf16
from synthaug.segmentation.model import ModelConfig, Segmenter
from synthaug.training.artefacts import read_rows
from synthaug.training.run import read_metrics
from synthaug.training.segmentation_config import SegmentationConfig, open_split
from synthaug.training.segmentation_validation import validate

clean_process, folder = segmentation_runs.clean_process, segmentation_runs.folder
made, run = segmentation_runs.made, segmentation_runs.run


@pytest.mark.parametrize(
    "name", ["segmentation_tiny", "segmentation_brats", "segmentation_brats_cpu", "segmentation_brats_3mm"]
)
def test_shipped_configurations_are_valid(name):
    overrides = ["data.folder=somewhere"] if name != "segmentation_tiny" else []
    config = read_config(ROOT / "configs" / f"{name}.yaml", SegmentationConfig, overrides)
    assert config.insertion is not None and not {*(config.data.train or ())} & {*config.data.validation}


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["segmentation_brats", "segmentation_brats_cpu", "segmentation_brats_3mm"])
def test_the_split_of_the_real_cases(real_data, tmp_path, name):
    overrides = [f"data.folder={real_data / 'brats'}"]
    config = read_config(ROOT / "configs" / f"{name}.yaml", SegmentationConfig, overrides)
    train, validation = open_split(config.data, tmp_path, Accelerator())
    assert len(train) == 8 and {case.group for case in train} == {*config.data.train}
    assert len(validation) == 4 and {case.group for case in validation} == {*config.data.validation}


@pytest.mark.slow
@pytest.mark.real_data
def test_diffusion_paints_real_training_batches(real_data, run):
    rows = run(
        f"data.folder={real_data / 'brats'}",
        "data.channels=[flair,t1,t1ce,t2]",
        "data.train=[CBICA_ALU,TCIA03_265]",
        "data.validation=[CBICA_AQN]",
        "data.spacing_mm=[3,3,3]",
        "data.patch_size=[32,32,32]",
        "insertion.generator=brats-diffusion",
        "insertion.generator_options={steps: 2}",
        "optimizer.steps=2",
        "validation.every=2",
        "inference.overlap=0",
    )
    counts = rows[-1]["insertion"]
    assert counts["done"] > 0 and counts["asked"] == counts["done"] + sum(counts["refused"].values())
    assert np.isfinite(rows[-1]["loss"]) and {*rows[-1]["validation"]["cases"]} == {"Brats18_CBICA_AQN_1"}


def test_loss_falls_and_insertions_are_counted(run, tmp_path):
    rows = run("optimizer.steps=24", "validation.every=24", "checkpoint_every=24", "report=true")
    assert [row["step"] for row in rows] == [0, *range(2, 25, 2)]
    assert rows[0]["samples"] == 48 and rows[0]["expected_insertions"] == pytest.approx(48 * 1.4)
    assert rows[-1]["loss"] < 0.85 * rows[1]["loss"]
    for before, row in pairwise(rows[1:]):
        counts = row["insertion"]
        assert counts["samples"] == 2 * row["step"] and counts["asked"] > before["insertion"]["asked"]
        assert counts["asked"] == counts["done"] + sum(counts["refused"].values())
    assert rows[-1]["insertion"]["done"] > 12
    assert {*rows[-1]["insertion"]["voxels"]} == {"NCR", "ED", "ET"} and sum(rows[-1]["insertion"]["voxels"].values())
    assert {*rows[-1]["validation"]["cases"]} == {"Phantom_002_1"}
    assert "Phantom_002_1" in (tmp_path / "run" / "report.html").read_text()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    for tag, value in {"loss": rows[-1]["loss"], "insertion/done": rows[-1]["insertion"]["done"]}.items():
        event = board.Scalars(tag)[-1]
        assert event.step == 24 and event.value == pytest.approx(value)
    assert board.Scalars("expected_insertions")[0].value == pytest.approx(48 * 1.4)


def test_the_saved_model_gives_the_logged_dice(run, tmp_path, folder):
    rows = run()
    config = read_config(config_file(tmp_path, folder), SegmentationConfig)
    model = Segmenter.load(tmp_path / "run")
    held_out = segmentation.cached([c for c in find_cases(folder) if c.name == "Phantom_002_1"], config.data)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16("cpu")):  # as in training
        scores = validate(model.networks[0], held_out, config, torch.device("cpu"), tmp_path / "again")
    whole = next(row for row in scores if (row["region"], row["size"]) == ("WT", "all"))
    assert whole["dice"] == pytest.approx(rows[-1]["validation"]["dice"]["WT"], abs=0.01)
    kept = read_rows(tmp_path / "run")
    assert {row["step"] for row in kept} == {4, 8}
    logged = next(r for r in kept if (r["step"], r["region"], r["size"]) == (8, "WT", "all"))
    assert logged["dice"] == rows[-1]["validation"]["dice"]["WT"]


def fed_to_the_network(run, monkeypatch, *overrides, out):
    """Hashes of what the network is given while it trains and while it validates."""
    fed = {True: [], False: []}
    make = ModelConfig.make_network

    def watched(config):
        network = make(config)
        digest = lambda x: hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()  # noqa: E731
        network.register_forward_pre_hook(lambda module, inputs: fed[module.training].append(digest(inputs[0])))
        return network

    monkeypatch.setattr(ModelConfig, "make_network", watched)
    run(*overrides, out=out)
    monkeypatch.setattr(ModelConfig, "make_network", make)
    return fed


def test_validation_voxels_are_never_touched(run, monkeypatch, tmp_path, folder):
    cached, held = segmentation.cached, []
    monkeypatch.setattr(segmentation, "cached", lambda *args, **kw: held.append(cached(*args, **kw)) or held[-1])
    with_insertion = fed_to_the_network(run, monkeypatch, out="with")
    without = fed_to_the_network(run, monkeypatch, "insertion=null", out="without")
    assert len(with_insertion[True]) == STEPS and not {*with_insertion[True]} & {*without[True]}
    assert with_insertion[False] and with_insertion[False] == without[False]
    config = read_config(config_file(tmp_path, folder), SegmentationConfig)
    for volumes in held:
        fresh = cached([c for c in find_cases(folder) if c.name in {v.name for v in volumes}], config.data)
        for now, then in zip(volumes, fresh, strict=True):
            assert np.array_equal(now.image, then.image) and np.array_equal(now.label, then.label)


def train_and_die(config, out):
    """A training that is killed after its second state is saved and before the checkpoint has its name."""
    save, calls = Accelerator.save_state, []

    def save_and_die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    Accelerator.save_state = save_and_die
    segmentation.train(config, out)


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(run, tmp_path, folder):
    whole = run(out="whole")
    config = read_config(config_file(tmp_path, folder), SegmentationConfig)
    killed = processes.start(tmp_path / "log", train_and_die, config, tmp_path / "killed", ACCELERATE_USE_CPU="true")
    killed.join()
    assert killed.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"step_00000003", "unfinished_00000006"}
    assert read_metrics(tmp_path / "killed")[-1]["step"] == 6
    continued = run(out="killed")
    assert {path.name for path in checkpoints.iterdir()} == {"step_00000006", "step_00000008"}

    def timeless(rows):
        timed = ("seconds_per_step", "insertion_seconds_per_step", "insertion_share")
        return [{key: value for key, value in row.items() if key not in timed} for row in rows]

    assert timeless(continued) == timeless(whole) and [r["step"] for r in whole] == [0, 2, 4, 6, 8]
    assert same_file("model/weights.safetensors", tmp_path)
    assert same_file("checkpoints/step_00000008/rank_0.json", tmp_path)
    for name in ("pytorch_model.bin", "optimizer.bin", "scheduler.bin", "custom_checkpoint_0.pkl"):
        files = [tmp_path / out / "checkpoints" / "step_00000008" / name for out in ("whole", "killed")]
        assert_same(*(torch.load(file, weights_only=False) for file in files))


def same_file(name, tmp_path) -> bool:
    return (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def assert_same(one, other):
    """Nested values are equal, tensors bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        [assert_same(one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        [assert_same(a, b) for a, b in zip(one, other, strict=True)]
    else:
        assert one == other


def test_a_finished_run_is_not_changed_and_another_configuration_is_refused(run, tmp_path):
    rows = run()
    weights = tmp_path / "run" / "model" / "weights.safetensors"
    before = weights.read_bytes()
    assert run("log_every=1") == rows and weights.read_bytes() == before
    with pytest.raises(ConfigError, match=r"optimizer.lr was 0.01 and is 0.02"):
        run("optimizer.lr=0.02")


def test_donors_are_training_cases(run, made):
    run("optimizer.steps=1")
    assert made[0].groups == {"Phantom_000_1", "Phantom_001_1"}


def test_a_bank_with_validation_patients_is_refused(run, tmp_path, folder):
    path = tmp_path / "all.safetensors"
    LesionBank.from_cases(find_cases(folder), BRATS18, ("flair", "t1ce")).save(path)
    with pytest.raises(ConfigError, match=r"all\.safetensors.*patients Phantom_002_1.*cases Phantom_002_1"):
        run(f"insertion.bank={path}")
    bank = LesionBank.load(path).of_groups(["Phantom_000_1", "Phantom_001_1"])
    bank.save(tmp_path / "train.safetensors")
    assert run(f"insertion.bank={tmp_path / 'train.safetensors'}", "optimizer.steps=1", out="fine")[-1]["step"] == 1


def test_procedural_shapes_need_no_donor(run):
    options = ("lesions=shapes", "generator=procedural", "scale=null", "diameter_mm=[5,9]")
    rows = run("optimizer.steps=4", *(f"insertion.{option}" for option in options))
    assert rows[-1]["insertion"]["done"] > 0


def test_steps_with_gradients_that_are_not_finite_are_skipped_and_counted(run, monkeypatch, tmp_path):
    make, calls = ModelConfig.make_network, []

    def faulty(config):
        network = make(config)
        spoil = lambda grad: grad * float("inf") if calls.append(1) or len(calls) == 3 else grad  # noqa: E731
        network.network.output_block.conv.conv.bias.register_hook(spoil)
        return network

    monkeypatch.setattr(ModelConfig, "make_network", faulty)
    rows = run("optimizer.steps=6", "validation.every=6")
    assert [row["skipped"] for row in rows[1:]] == [0, 1, 0]
    weights = torch.load(tmp_path / "run/checkpoints/step_00000006/custom_checkpoint_0.pkl", weights_only=False)
    assert weights["optimization_step"] == 5 and all(w.isfinite().all() for w in weights["shadow_params"])


def test_a_run_that_failed_before_its_first_checkpoint_may_be_corrected(run):
    with pytest.raises(ConfigError, match="Phantom_009"):
        run("data.validation=[Phantom_009]")
    phantoms = ("data.folder=null", "data.phantom={count: 3, size: [32, 32, 32]}", "optimizer.steps=1")
    assert run(*phantoms)[-1]["step"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.patch_size=[24,24,30]", "multiples of 4 for this DynUNet"),
        ("data.folder=null", r"data.folder=/path/to/cases"),
        ("data.folder=/nowhere/at/all", "nowhere"),
        ("data.validation=[Phantom_009]", "no case or group is called Phantom_009"),
        ("data.validation=[Phantom_000_1, Phantom_001_1, Phantom_002_1]", "no training case is left"),
        ("data.train=[Phantom_002_1]", "Phantom_002_1 is in both"),
        ("insertion.swaps=[[ED, XX, 0.5]]", "insertion: .*XX"),
        ("insertion.diameter_mm=[5, 9]", "insertion: .*diameter_mm"),
        ("insertion.generator=magic", "insertion: .*magic"),
        ("insertion.generator_options={steps: 4}", "insertion: .*steps"),
        ("insertion.generator_options={prob: 1.0}", "generator_options: prob"),
        ("insertion.bank=/nowhere.safetensors", "insertion: .*nowhere.safetensors"),
        ("data.regions.core=[XX]", "XX"),
        ("network.name=ResNet", "network: unknown name; known are DynUNet"),
        ("network.filterz=[4,4,4]", "network.DynUNet.filterz: unknown key, did you mean filters"),
        ("loss.name=dise", "loss.name: .*'dice'"),
        ("optimizer.schedule=step", "optimizer.schedule: .*'plateau'"),
        ("early_stopping={watch: XX}", "one of ET, WT, NCR, ED, got XX"),
        ("postprocessing.min_component_mm3={XX: 3}", "unknown XX; known are ET, WT, NCR, ED"),
        ("augmentation.mixup=0.5 data.batch=1", "data.batch of 2 or more"),
        ("data.folds=3 data.fold=0", "either validation"),
        ("insertion.adaptive={classes: true}", "insertion.adaptive: .*class_mix"),
        ("loss.targets=regions", "region WT: expected one class that no smaller region has, got NCR, ED"),
        ("network.deep_supervision=2", "two fewer"),
    ],
)
def test_bad_input_is_named(run, override, message):
    with pytest.raises(ConfigError, match=message):
        run(*(override.split(" ") if " data." in override else [override]))
