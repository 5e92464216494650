"""The nnU-Net trainer against nnU-Net itself: planned, preprocessed, loaded and trained by it."""

import hashlib
import re
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from nnunet_data import CT, MR, REGIONS, described, make_trainer, seeded, write_settings

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")

from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from typer.testing import CliRunner
from waits import NoWait

from synthaug.adapters.nnunet import trainer_folder
from synthaug.adapters.nnunet.settings import read_settings
from synthaug.adapters.nnunet.trainer import InsertionMixin, nnUNetTrainerSynthAug
from synthaug.cli.app import app
from synthaug.config import ConfigError
from synthaug.host import host_tissue

pytest_plugins = ["nnunet_fixtures"]
pytestmark = pytest.mark.usefixtures("nnunet")

SURE = {"prob": 1.0, "second": 0.0, "scale": [0.4, 0.6], "decay_from": None, "decay_to": None}
PATIENT = "^(patient[0-9]+)_"


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
    options = {"lesions": "shapes", "bank": None, "generator": "procedural", "classes": "BRATS23"}
    configured(**options, intensities="workers", insertion={"prob": 0.0})
    own = started(make_trainer(nnUNetTrainer, MR, labels, deep))
    ours = started(make_trainer(nnUNetTrainerSynthAug, MR, labels, deep))
    expected = drawn(own.dataloader_train)
    ours.train_step(drawn(ours.dataloader_train))
    assert bits(handed_over[0]) == bits(expected)
    assert [t.dtype for t in described(handed_over[0]).target] == [t.dtype for t in described(expected).target]
    assert bits(drawn(ours.dataloader_val)) == bits(drawn(own.dataloader_val))


@VARIANTS
def test_targets_are_those_of_nnunets_transforms(labels, deep, configured, handed_over):
    configured(classes={"NCR": 1, "ED": 2, "ET": 3}, insertion=SURE, intensities="workers")
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR, labels, deep))
    batch = next(trainer.dataloader_train)
    assert batch["target"].shape == (2, 1, 32, 32, 32)
    trainer.train_step(batch)
    given = described(handed_over[0])
    engine = trainer.insertion.engine
    engine.number = 0
    image, label = trainer.insertion(batch["data"], batch["target"], batch["keys"], trainer.frames(batch))
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


def test_the_last_epochs_are_real_by_default(configured):
    configured(lesions="shapes", bank=None, generator="procedural", classes="BRATS23", insertion={"prob": 0.5})
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    trainer.num_epochs = 5
    started(trainer)
    seen = []
    for trainer.current_epoch in range(5):
        trainer.on_train_epoch_start()
        seen.append(trainer.insertion.engine.prob)
    assert seen == [0.5, 0.5, 0.5, 0.0, 0.0]
    configured(lesions="shapes", bank=None, generator="procedural", classes="BRATS23", insertion={"warmup_steps": 4})
    with pytest.raises(ConfigError, match=r"insertion: expected warmup_steps <= decay_from .* of 5 epochs"):
        late = make_trainer(nnUNetTrainerSynthAug, MR)
        late.num_epochs = 5
        late.on_train_start()


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


def test_a_sampler_that_ships_is_painted_in_the_training(configured):
    named = {"bank": "brats-masks", "generator": "brats-gan", "classes": {"NCR": 1, "ED": 2, "ET": 3}}
    small = {"scale": [0.2, 0.4], "place": "home", "tissue_share": 0.5}
    home = configured().parent
    write_settings(home, **named, group_pattern=PATIENT, insertion=SURE | small)
    trainer = make_trainer(nnUNetTrainerSynthAug, MR)
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    assert "synthaug: masks sampled as 12 patients had them; generator brats-gan" in log
    assert int(re.search(r"insertions asked, (\d+) done", log)[1]) > 0
    write_settings(home, **named | {"generator": "fitted"}, group_pattern=PATIENT, insertion=SURE | small)
    with pytest.raises(ConfigError, match=r"generator: fitted: expected the bank .* got a sampler of masks"):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()
    cut = CliRunner().invoke(app, ["nnunet-bank", "501", "--fold", "0"])
    assert cut.exit_code == 2 and "brats-masks is a sampler of masks that ships" in cut.output


def test_the_continued_sequence_is_that_of_one_run(configured, tmp_path):
    configured(insertion=SURE | {"place": "anywhere"})
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
    configured(insertion=SURE | {"place": "anywhere"})
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
        image, label = trainer.insertion(batch["data"], batch["target"], batch["keys"], trainer.frames(batch))
        trainer.intensities(image, label)
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
    assert (task.classes.names, tuple(task.rule.labels.values()), tuple(task.rule.avoided.values())) == (
        ("tumour",),
        (1,),
        (2, 4),
    )
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


@pytest.mark.parametrize("dataset", [MR, CT])
def test_tissue_is_found_for_chosen_samples_only(dataset, configured, monkeypatch):
    host = {"labels": ["liver"], "range": {"ct": [0, 150]}} if dataset == CT else {}
    classes = ["tumour"] if dataset == CT else {"NCR": 1, "ED": 2, "ET": 3}
    configured(dataset, host=host, classes=classes, insertion=SURE | {"prob": 0.1, "scale": [0.7, 0.9]})
    trainer = started(make_trainer(nnUNetTrainerSynthAug, dataset))
    batch, looked_at = next(trainer.dataloader_train), []
    monkeypatch.setattr("synthaug.host.rule.host_tissue", lambda x: looked_at.append(x) or host_tissue(x))
    insertion = trainer.insertion
    task, engine = insertion.task, insertion.engine
    raw, asked = task.units.raw(batch["data"]), 0
    eager = torch.stack([task.host(*sample) for sample in zip(raw, batch["target"], strict=True)])
    for _ in range(20):
        looked_at.clear()
        number = engine.number
        image, label = insertion(batch["data"], batch["target"], batch["keys"])
        found = len(looked_at)
        engine.number = number
        plan = engine.plan(raw, task.view(batch["target"]), task.spacing_mm, host=eager, groups=batch["keys"])
        rows = [row for row in plan.insertions if row.refused is None]
        assert found == len(rows)
        new_raw, _ = engine.apply(raw, task.view(batch["target"]), plan, host=eager)
        assert torch.equal(image, task.units.written(batch["data"], raw, new_raw))
        untouched = [b for b in range(2) if b not in {row.sample for row in rows}]
        assert torch.equal(image[untouched], batch["data"][untouched])
        assert torch.equal(label[untouched], batch["target"][untouched])
        asked += len(rows)
    assert 0 < asked < 10


def test_known_statistics_go_to_the_engine(configured, monkeypatch):
    configured(host={"statistics": "volume"}, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    batch, seen = next(trainer.dataloader_train), []
    engine = type(trainer.insertion.engine)
    recorded = engine.recorded
    monkeypatch.setattr(engine, "recorded", lambda *a, **k: seen.append(k["host_stats"]) or recorded(*a, **k))
    trainer.insertion(batch["data"], batch["target"], batch["keys"])
    assert seen == [(0.0, 1.0)]


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
