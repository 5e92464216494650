"""The nnU-Net trainer against nnU-Net itself: planned, preprocessed, loaded and trained by it."""

import hashlib
import os
import re
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")

from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunet_data import CT, MR, REGIONS, described, make_trainer, plan_and_preprocess, seeded, split, write_datasets
from nnunet_data import write_settings as settings_file
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from test_no_wait import NoWait

from synthaug import LesionBank
from synthaug.adapters.nnunet import trainer_folder
from synthaug.adapters.nnunet.bank import Preprocessed, build_bank
from synthaug.adapters.nnunet.settings import Settings, read_settings
from synthaug.adapters.nnunet.task import Task, label_names
from synthaug.adapters.nnunet.trainer import InsertionMixin, nnUNetTrainerSynthAug
from synthaug.adapters.nnunet.units import Units
from synthaug.cli import app
from synthaug.config import ConfigError

SURE = {"prob": 1.0, "second": 0.0, "scale": [0.4, 0.6]}
PATIENT = "^(patient[0-9]+)_"


@pytest.fixture(scope="module", autouse=True)
def nnunet(tmp_path_factory):
    """nnU-Net's three folders, two preprocessed datasets in them."""
    home = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("raw", "preprocessed", "results"):
            (home / kind).mkdir()
            patch.setenv(f"nnUNet_{kind}", str(home / kind))
        patch.setenv("nnUNet_compile", "f")
        patch.setenv("nnUNet_n_proc_DA", "1")
        patch.delenv("SYNTHAUG_CONFIG", raising=False)
        write_datasets(home / "raw")
        plan_and_preprocess(home / "raw")
        patch.setenv("nnUNet_n_proc_DA", "0")
        for name in (MR, CT):
            split(home / "preprocessed" / name)
        yield home


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Write settings, name them in the environment and cut the fold's bank with them."""

    def write(dataset: str = MR, **settings):
        path = settings_file(tmp_path, **({"bank": "bank{fold}.safetensors"} | settings))
        monkeypatch.setenv("SYNTHAUG_CONFIG", str(path))
        if settings.get("lesions") != "shapes":
            chosen = read_settings()
            build_bank(Preprocessed.open(dataset), 0, chosen).save(chosen.bank_path(0))
        return path

    return write


@pytest.fixture
def handed_over(monkeypatch):
    """What the parent's training step is given."""
    seen = []
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda self, batch: seen.append(batch) or {"loss": np.zeros(1)})
    return seen


def started(trainer):
    seeded(0)
    trainer.on_train_start()
    return trainer


def drawn(loader):
    """A batch that depends on the seed alone."""
    seeded(7)
    return next(loader)


def bits(batch: dict) -> str:
    found = described(batch)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in (found.data, *found.target))).hexdigest()


VARIANTS = pytest.mark.parametrize(
    ("labels", "deep"), [(None, True), (None, False), (REGIONS, True), (REGIONS, False)], ids=str
)


@VARIANTS
def test_without_insertion_everything_is_nnunets(labels, deep, configured, handed_over):
    configured(lesions="shapes", bank=None, generator="procedural", classes="BRATS23", insertion={"prob": 0.0})
    own = started(make_trainer(nnUNetTrainer, MR, labels, deep))
    ours = started(make_trainer(nnUNetTrainerSynthAug, MR, labels, deep))
    expected = drawn(own.dataloader_train)
    ours.train_step(drawn(ours.dataloader_train))
    assert bits(handed_over[0]) == bits(expected)
    assert [t.dtype for t in described(handed_over[0]).target] == [t.dtype for t in described(expected).target]
    assert bits(drawn(ours.dataloader_val)) == bits(drawn(own.dataloader_val))


@VARIANTS
def test_targets_are_those_of_nnunets_transforms(labels, deep, configured, handed_over):
    configured(classes={"NCR": 1, "ED": 2, "ET": 3}, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR, labels, deep))
    batch = next(trainer.dataloader_train)
    assert batch["target"].shape == (2, 1, 32, 32, 32)
    trainer.train_step(batch)
    given = described(handed_over[0])
    engine = trainer.insertion.engine
    engine.number = 0
    image, label = trainer.insertion(batch["data"], batch["target"], batch["keys"])
    assert torch.equal(given.data, image)
    changed = label != batch["target"]
    assert changed.any() and not torch.equal(image, batch["data"])
    assert torch.equal(image[~changed.expand_as(image)], batch["data"][~changed.expand_as(image)])
    for b in range(2):
        sample = {"segmentation": torch.where(label[b] == -1, 0, label[b])}
        if labels is not None:
            sample = ConvertSegmentationToRegionsTransform([(1, 2, 3), (1, 3), (3,)])(**sample)
        scales = trainer._get_deep_supervision_scales()
        levels = DownsampleSegForDSTransform(scales)(**sample)["segmentation"] if deep else [sample["segmentation"]]
        for level, expected in zip(given.target, levels, strict=True):
            assert torch.equal(level[b], expected) and level.dtype == expected.dtype


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_a_training_logs_its_insertions_and_continues(labels, configured):
    configured(classes={"NCR": 1, "ED": 2, "ET": 3}, group_pattern=PATIENT, insertion=SURE, record=True)
    trainer = make_trainer(nnUNetTrainerSynthAug, MR, labels)
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    assert re.search(r"synthaug: 2 lesions of 2 patients \(2 of them in this fold's training\)", log)
    counts = re.search(r"synthaug: (\d+) samples, (\d+) insertions asked, (\d+) done", log)
    samples, asked, done = map(int, counts.groups())
    assert samples == asked == 4 and 0 < done <= 4
    record = Path(trainer.log_file.replace("training_log", "insertions")).with_suffix("")
    assert len(Path(f"{record}_0.jsonl").read_text().splitlines()) == 4

    again = make_trainer(nnUNetTrainerSynthAug, MR, labels)
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    again.num_epochs = 2
    again.run_training()
    assert again.insertion.engine.number == 8
    report = again.insertion.engine.report()
    assert (report.samples, report.asked) == (8, 8)
    assert "synthaug: 4 samples, 4 insertions asked" in Path(again.log_file).read_text()


def test_the_continued_sequence_is_that_of_one_run(configured, tmp_path):
    configured(insertion=SURE)
    batch = {"data": torch.randn(2, 4, 32, 32, 32), "target": torch.zeros(2, 1, 32, 32, 32, dtype=torch.int16)}
    batch["keys"] = ["patient0_scan1", "patient1_scan1"]
    one = started(make_trainer(nnUNetTrainerSynthAug, MR))
    one.train_step(batch)
    one.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    expected = one.insertion(batch["data"], batch["target"], batch["keys"])
    other = make_trainer(nnUNetTrainerSynthAug, MR)
    other.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    found = started(other).insertion(batch["data"], batch["target"], batch["keys"])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(found[0], batch["data"])


def test_with_fewer_processes_all_go_on_after_the_furthest(configured):
    configured(insertion=SURE)
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    trainer.initialize()
    insertion = trainer.make_insertion(read_settings())
    states = [insertion.engine.state_dict() | {"number": number} for number in (20, 22)]
    trainer._loaded_insertion = {"ranks": states}
    assert trainer.make_insertion(read_settings()).engine.number == 22


def test_a_checkpoint_of_other_classes_is_refused(configured):
    configured(classes=["ED", "NCR"], insertion=SURE)
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    trainer.initialize()
    trainer._loaded_insertion = {"ranks": [trainer.make_insertion(read_settings()).engine.state_dict()]}
    configured(insertion=SURE)
    with pytest.raises(ConfigError, match="checkpoint's insertion does not fit"):
        trainer.make_insertion(read_settings())


def test_little_done_is_said_so(configured, handed_over):
    configured(insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    label = torch.full((2, 1, 32, 32, 32), 2, dtype=torch.int16)
    trainer.train_step({"data": torch.randn(2, 4, 32, 32, 32), "target": label, "keys": ["a", "b"]})
    assert trainer.epoch_summary() == (
        "synthaug: 2 samples, 2 insertions asked, 0 done; refused: no place in host tissue clear of existing labels 2; "
        "WARNING: fewer than half were done"
    )
    assert trainer.epoch_summary() == "synthaug: 0 samples, 0 insertions asked, 0 done"


class NoWaitButFill(NoWait):
    """As `NoWait`; filling a mask with one number, which nnU-Net's transforms do, does not wait either."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().startswith("aten::index_put_") and args[2].numel() == 1:
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("dataset", [MR, CT])
def test_the_device_is_not_waited_for(dataset, configured):
    host = {"labels": ["liver"], "range": {"ct": [0, 150]}} if dataset == CT else {}
    classes = ["tumour"] if dataset == CT else {"NCR": 1, "ED": 2, "ET": 3}
    configured(dataset, host=host, classes=classes, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, dataset, REGIONS if dataset == MR else None))
    batch = next(trainer.dataloader_train)
    with NoWaitButFill() as mode:
        _, label = trainer.insertion(batch["data"], batch["target"], batch["keys"])
        trainer.targets(label)
    assert "aten::index_copy_" in mode.seen


def test_a_checkpoint_without_insertion_is_said_to_be_one(configured, tmp_path):
    configured(insertion=SURE)
    plain = make_trainer(nnUNetTrainer, MR)
    plain.initialize()
    plain.save_checkpoint(str(tmp_path / "plain.pth"))
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    trainer.load_checkpoint(str(tmp_path / "plain.pth"))
    assert "training without insertion" in Path(trainer.log_file).read_text()


def test_the_own_patient_is_no_donor(configured, handed_over):
    configured(group_pattern=PATIENT, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    assert trainer.insertion.engine.lesions.groups == {"patient0", "patient1"}
    batch = next(trainer.dataloader_train)
    groups = [trainer.insertion.group_of(case) for case in batch["keys"]]
    view = trainer.insertion.task.view(batch["target"])
    for _ in range(4):
        plan = trainer.insertion.engine.plan(batch["data"], view, groups=groups)
        assert all(row.donor_group not in (None, groups[row.sample]) for row in plan.insertions)


def test_ct_is_inserted_in_hounsfield_units_into_the_organ(configured, handed_over):
    settings = {"host": {"labels": ["liver"], "range": {"ct": [0, 150]}}, "generator": "fitted"}
    configured(CT, classes=["tumour"], insertion=SURE | {"clearance_mm": 0.0}, **settings)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, CT))
    task = trainer.insertion.task
    assert task.spacing_mm == (2.0, 1.0, 1.0)
    assert (task.classes.names, task.host_values, task.blocked_values) == (("tumour",), (1,), (2, 4))
    done = 0
    for _ in range(3):
        batch = next(trainer.dataloader_train)
        image, label = trainer.insertion(batch["data"], batch["target"], batch["keys"])
        changed = label != batch["target"]
        done += int(changed.any())
        assert (batch["target"][changed] == 1).all() and (label[changed] == 3).all()
        assert torch.equal(image[~changed], batch["data"][~changed])
        low, high = task.units.limits(0)
        inserted = task.units.raw(image)[changed]
        assert not len(inserted) or (inserted.min() >= low - 0.01 and inserted.max() <= high + 0.01)
        trainer.train_step(batch)
    assert done
    assert handed_over[0]["target"][0].max() <= 4 and handed_over[0]["target"][0].min() >= 0


def test_units_are_exact():
    properties = {"mean": 37.3, "std": 21.7, "percentile_00_5": -60.0, "percentile_99_5": 150.0}
    hu = np.random.default_rng(0).uniform(-200, 300, (6, 5, 4)).astype(np.float32)
    image = torch.from_numpy(CTNormalization(intensityproperties=properties).run(hu.copy()))[None, None]
    units = Units.of(["CTNormalization"], {"0": properties})
    raw = units.raw(image)
    assert torch.allclose(raw[0, 0], torch.from_numpy(hu.clip(-60, 150)), atol=1e-4)
    changed = raw.clone()
    changed[..., 0] = torch.from_numpy(hu[..., ::-1].copy())[..., 0]
    written = units.written(image, raw, changed)
    assert torch.equal(written[..., 1:], image[..., 1:])
    expected = CTNormalization(intensityproperties=properties).run(hu[..., ::-1].copy())
    assert np.allclose(written[0, 0, ..., 0], expected[..., 0], rtol=0, atol=1e-6)


def test_z_scores_stay_as_they_are():
    image = torch.randn(2, 1, 3, 3, 3)
    units = Units.of(["ZScoreNormalization"], {"0": {}})
    assert units.raw(image) is image and units.written(image, image, image) is image


def test_known_statistics_go_to_the_engine(configured, monkeypatch):
    configured(host={"statistics": "volume"}, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    batch, seen = next(trainer.dataloader_train), []
    engine = type(trainer.insertion.engine)
    plan = engine.plan
    monkeypatch.setattr(engine, "plan", lambda *a, **k: seen.append(k["host_stats"]) or plan(*a, **k))
    trainer.insertion(batch["data"], batch["target"], batch["keys"])
    assert seen == [(0.0, 1.0)]


def test_label_names():
    assert label_names({"background": 0, "a": 2, "b": 1, "ignore": 3}) == {"b": 1, "a": 2}
    assert label_names(REGIONS) == {"tumor core": 1, "whole tumor": 2, "enhancing tumor": 3}
    assert label_names({"background": 0, "whole": [1, 2]}) == {"whole 1": 1, "whole 2": 2}


def test_nnunet_finds_the_trainer():
    printed = CliRunner().invoke(app, ["nnunet-path"]).stdout.strip()
    assert Path(printed) == trainer_folder()
    options = {"base_folder": printed, "cleanup_imports_from_base_folder": True}
    found = recursive_find_python_class(printed, "nnUNetTrainerSynthAug", None, **options)
    assert found is nnUNetTrainerSynthAug and issubclass(found, nnUNetTrainer)
    assert found.validation_step is nnUNetTrainer.validation_step
    assert found.get_validation_transforms is nnUNetTrainer.get_validation_transforms


def stand_in_class(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (torch.nn.Module,), {})


@pytest.fixture
def importable_variants():
    """nnU-Net looks trainers up by importing all of its own, some of which need timm; ours does not."""
    with mock.patch.dict(sys.modules):
        try:
            import timm.layers  # noqa: F401
        except ImportError:
            for name in ("timm", "timm.layers", "timm.models", "timm.models.eva"):
                stand_in = types.ModuleType(name)
                stand_in.__getattr__ = stand_in_class
                stand_in.__path__, stand_in.__file__ = [], None
                sys.modules[name] = stand_in
        yield


def test_training_and_prediction_find_the_trainer_by_its_name(importable_variants, configured, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(trainer_folder()))
    assert recursive_find_trainer_class_by_name("nnUNetTrainerSynthAug") is nnUNetTrainerSynthAug

    configured(insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    monkeypatch.delenv("SYNTHAUG_CONFIG")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_final.pth")
    assert predictor.trainer_name == "nnUNetTrainerSynthAug"
    weights = predictor.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in trainer.network.state_dict().items())


def test_the_mixin_serves_other_trainers(configured, handed_over):
    configured(insertion=SURE)

    class NoMirroring(nnUNetTrainer):
        def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
            rotation, dummy, size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            return rotation, dummy, size, ()

    class Ours(InsertionMixin, NoMirroring):
        pass

    trainer = started(make_trainer(Ours, MR))
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.insertion.engine.report().asked == 2


def test_workers_load_and_do_not_insert(configured, monkeypatch):
    configured(insertion=SURE)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    trainer.run_training()
    assert trainer.insertion.engine.report().samples == 4
    assert trainer.logger.get_value("train_losses", step=-1) > 0


def test_the_bank_of_a_fold(configured, tmp_path):
    path = settings_file(tmp_path, bank="banks/fold{fold}.safetensors", group_pattern=PATIENT)
    ran = CliRunner().invoke(app, ["nnunet-bank", "501", "--fold", "0", "--config", str(path)])
    assert ran.exit_code == 0, ran.output
    bank = LesionBank.load(tmp_path / "banks" / "fold0.safetensors")
    assert bank.groups == {"patient0", "patient1"} and bank.channels == ("flair", "t1", "t1ce", "t2")
    assert all(lesion.spacing_mm == (1.0, 1.0, 1.0) for lesion in bank)
    assert "2 lesions of 2 patients" in ran.output
    every = CliRunner().invoke(app, ["nnunet-bank", MR, "--fold", "all", "-o", str(tmp_path / "all.safetensors")])
    assert every.exit_code == 0 and len(LesionBank.load(tmp_path / "all.safetensors").groups) == 3


def test_patients_of_the_validation_set_are_left_out_of_the_bank(caplog):
    settings = Settings(lesions="shapes", group_pattern="^(?:patient)?([02]|1)")
    data = Preprocessed.open("501")
    assert build_bank(data, 0, settings).groups == {"0", "1"}
    shared = Settings(lesions="shapes", group_pattern="^patient(?=[02])|^patient1")  # patients 0 and 2 are one
    bank = build_bank(data, 0, shared)
    assert bank.groups == {"patient1"}
    assert any("patient0_scan1" in reason and "validation set of fold 0" in reason for reason in bank.skipped)
    assert "patient0_scan1" in caplog.text


def test_no_settings_is_an_error():
    with pytest.raises(ConfigError, match="SYNTHAUG_CONFIG is not set"):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()


def test_prediction_needs_no_settings():
    assert "SYNTHAUG_CONFIG" not in os.environ
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    arguments = (trainer.plans_manager, trainer.configuration_manager, 4, 4)
    assert nnUNetTrainerSynthAug.build_network_architecture(*arguments, enable_deep_supervision=False) is not None


def test_a_bank_with_validation_patients_is_refused(configured):
    configured(insertion=SURE)
    settings = read_settings()
    build_bank(Preprocessed.open(MR), "all", settings).save(settings.bank_path(0))
    with pytest.raises(ConfigError, match=r"patient2_scan1.*validation set of fold 0"):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()


def test_two_dimensions_and_cascades_are_refused():
    with pytest.raises(ConfigError, match="3-D only"):
        make_trainer(nnUNetTrainerSynthAug, MR, configuration="2d")
    trainer = make_trainer(nnUNetTrainer, MR)
    plans = trainer.plans_manager.plans | {"continue_training": False}
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    with pytest.raises(ConfigError, match="cascade"):
        nnUNetTrainerSynthAug(plans, "3d_cascade_fullres", 0, trainer.dataset_json, torch.device("cpu"))


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        (MR, {"insertion": {"prop": 0.5}}, "did you mean prob"),
        (MR, {"insertion": {"swaps": [["ED", "GM", 0.5]]}}, "GM"),
        (MR, {"classes": ["ED", "edema"]}, "edema"),
        (MR, {"classes": "BRATS18"}, "'ET': 4"),
        (MR, {"channels": ["flair", "t1"]}, "expected 4 names"),
        (MR, {"channels": ["flair", "t1", "t1ce", "pd"], "generator": "procedural"}, "pd"),
        (MR, {"host": {"labels": ["liver"]}}, "liver"),
        (MR, {"host": {"range": {"ct": [0, 1]}}}, "expected channels flair"),
        (MR, {"group_pattern": "^case_(\\d+)"}, "does not match"),
        (MR, {"group_pattern": "("}, "not a regular expression"),
        (MR, {"proportions": {"ED": 1.0}}, "lesions: shapes"),
        (MR, {"bank": None}, "bank"),
        (CT, {"host": {"range": {"ct": [-2000, None]}}}, "nnU-Net clips this channel"),
        (CT, {"host": {"statistics": "volume"}}, "ZScoreNormalization"),
        (CT, {"classes": ["liver"], "host": {"labels": ["liver"]}}, "besides the host's"),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, str) else None,
)
def test_settings_that_do_not_fit_are_named(dataset, settings, message, tmp_path, monkeypatch):
    bank = tmp_path / "bank0.safetensors"
    build_bank(Preprocessed.open(dataset), 0, Settings(lesions="shapes")).save(bank)
    monkeypatch.setenv(
        "SYNTHAUG_CONFIG", str(settings_file(tmp_path, **({"bank": "bank{fold}.safetensors"} | settings)))
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_trainer(nnUNetTrainerSynthAug, dataset).on_train_start()


def test_a_missing_bank_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CONFIG", str(settings_file(tmp_path, bank="none.safetensors")))
    with pytest.raises(ConfigError, match="synthaug nnunet-bank DATASET_ID --fold 0"):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()


def test_the_shipped_settings_are_read():
    settings = read_settings(Path(__file__).parent.parent / "configs" / "nnunet.yaml")
    assert settings.bank_path(3).name == "bank_fold3.safetensors"
    explained = Settings(bank="bank.safetensors")
    assert settings.host == explained.host
    assert settings.insertion == explained.insertion.model_copy(update={"scale": (0.3, 0.8)})


@pytest.mark.parametrize("wrong", ["9", "first"])
def test_unknown_folds_and_datasets_are_named(wrong, tmp_path):
    out = str(tmp_path / "bank.safetensors")
    ran = CliRunner().invoke(app, ["nnunet-bank", "501", "--fold", wrong, "-o", out])
    assert ran.exit_code == 2 and wrong in ran.output
    ran = CliRunner().invoke(app, ["nnunet-bank", "777", "--fold", "0", "-o", out])
    assert ran.exit_code == 2 and "777" in ran.output
    assert not Path(out).exists()


def test_task_without_ignore_or_host():
    trainer = make_trainer(nnUNetTrainer, MR)
    task = Task.of(trainer.plans_manager, "3d_fullres", trainer.dataset_json, Settings(lesions="shapes"))
    assert task.channels == ("flair", "t1", "t1ce", "t2") and task.blocked_values == ()
    label = torch.tensor([-1, 0, 1, 3], dtype=torch.int16).reshape(1, 1, 1, 2, 2)
    assert task.view(label).flatten().tolist() == [0, 0, 1, 3] and task.view(label).dtype == torch.int16
