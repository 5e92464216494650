"""What the nnU-Net trainer is told, what it reads off nnU-Net's files, and the bank of a fold."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_data import CT, MR, REGIONS, make_trainer
from nnunet_data import write_settings as settings_file

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")

from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from typer.testing import CliRunner

from synthaug import LesionBank
from synthaug.adapters.nnunet.bank import Preprocessed, build_bank
from synthaug.adapters.nnunet.settings import Settings, read_settings
from synthaug.adapters.nnunet.task import Task
from synthaug.adapters.nnunet.trainer import nnUNetTrainerSynthAug
from synthaug.adapters.nnunet.units import Units
from synthaug.cli.app import app
from synthaug.config import ConfigError
from synthaug.data.dataset_json import label_names

pytest_plugins = ["nnunet_fixtures"]
pytestmark = pytest.mark.usefixtures("nnunet")

SURE = {"prob": 1.0, "second": 0.0, "scale": [0.4, 0.6]}
PATIENT = "^(patient[0-9]+)_"


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


SHAPES = {"lesions": "shapes", "generator": "procedural", "classes": "BRATS23"}


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        (MR, {"insertion": {"prop": 0.5}}, "did you mean prob"),
        (MR, {"insertion": {"place": "like-data"}, **SHAPES}, "this LesionShapes does not"),
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
    settings = read_settings(Path(__file__).parents[2] / "configs" / "nnunet.yaml")
    assert settings.bank_path(3).name == "bank_fold3.safetensors"
    explained = Settings(bank="bank.safetensors")
    assert settings.host == explained.host
    varied = {
        "place": "home",
        "second": 0.2,
        "scale": (0.5, 1.3),
        "shift_mm": 10.0,
        "rotate_deg": 15.0,
        "elastic_mm": 4.0,
    }
    varied |= {"contrast": (0.5, 2.0), "contrast_shift": 0.25}
    assert settings.insertion == explained.insertion.model_copy(update=varied)


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
    assert task.channels == ("flair", "t1", "t1ce", "t2") and not task.rule.avoided
    label = torch.tensor([-1, 0, 1, 3], dtype=torch.int16).reshape(1, 1, 1, 2, 2)
    assert task.view(label).flatten().tolist() == [0, 0, 1, 3] and task.view(label).dtype == torch.int16


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


def test_label_names():
    assert label_names({"background": 0, "a": 2, "b": 1, "ignore": 3}) == {"b": 1, "a": 2}
    assert label_names(REGIONS) == {"tumor core": 1, "whole tumor": 2, "enhancing tumor": 3}
    assert label_names({"background": 0, "whole": [1, 2]}) == {"whole 1": 1, "whole 2": 2}
