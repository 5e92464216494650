"""nnU-Net: tumour-free hosts of another dataset beside the training cases."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from nnunet_data import MR, make_trainer, seeded

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from synthaug.adapters.nnunet.trainer import nnUNetTrainerSynthAug
from synthaug.config import ConfigError

pytest_plugins = ["nnunet_fixtures"]

PATIENT = "^(patient[0-9]+|free[0-9])"
HOSTS = "Dataset503_PhantomHosts"
CALM = {"prob": 0.0}


@pytest.fixture
def hosts(nnunet, monkeypatch, tmp_path):
    """The MR dataset beside one of its cases without their tumours, preprocessed by the same plans."""
    shutil.copytree(nnunet / "preprocessed" / MR, tmp_path / "preprocessed" / MR)
    folder, own = tmp_path / "preprocessed" / HOSTS, tmp_path / "preprocessed" / MR
    arrays = folder / "nnUNetPlans_3d_fullres"
    arrays.mkdir(parents=True)
    plans = json.loads((own / "nnUNetPlans.json").read_text()) | {"dataset_name": HOSTS}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    source = nnUNetDatasetBlosc2(str(own / arrays.name))
    for number, case in enumerate(["patient0_scan1", "patient1_scan1"]):
        image, label, _, properties = source.load_case(case)
        label = np.minimum(label[:], 0)
        properties["class_locations"] = {key: [] for key in properties["class_locations"]}
        nnUNetDatasetBlosc2.save_case(image[:], label, properties, str(arrays / f"free{number}"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return arrays


def started(trainer):
    seeded(0)
    trainer.on_train_start()
    return trainer


def cases_of(trainer, batches=60):
    return [case for _ in range(batches) for case in next(trainer.dataloader_train)["keys"]]


def test_hosts_are_drawn_by_their_share(hosts, configured):
    options = {"tumour_free": {"dataset": 503, "share": 0.3}, "group_pattern": PATIENT}
    configured(**options, insertion=CALM | {"place": "anywhere"})
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    assert "30% of the patches are of 2 tumour-free hosts of dataset 503" in Path(trainer.log_file).read_text()
    drawn = cases_of(trainer)
    share = sum(case.startswith("free") for case in drawn) / len(drawn)
    assert 0.17 < share < 0.43 and {"free0", "free1"} < {*drawn} == {
        "patient0_scan1",
        "patient1_scan1",
        "free0",
        "free1",
    }
    assert {*next(trainer.dataloader_val)["keys"]} == {"patient2_scan1"}


def test_lesions_go_home_in_hosts_and_the_step_is_taken(hosts, configured, monkeypatch):
    wanted = {"prob": 1.0, "second": 0.0, "scale": [0.4, 0.6], "place": "home", "decay_from": None, "decay_to": None}
    configured(tumour_free={"dataset": HOSTS, "share": 1.0}, group_pattern=PATIENT, insertion=wanted)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    assert {"free0", "free1", "patient0_scan1"} <= {*trainer.host_frames}
    seen = []
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda self, batch: seen.append(batch) or {"loss": np.zeros(1)})
    for _ in range(6):
        batch = next(trainer.dataloader_train)
        assert (batch["target"] <= 0).all() and all(case.startswith("free") for case in batch["keys"])
        trainer.train_step(batch)
    assert any((given["target"][0] > 0).any() for given in seen)
    assert trainer.insertion.engine.report().done > 0


def relabelled(arrays, change):
    """Write the first host again with another label or name."""
    dataset = nnUNetDatasetBlosc2(str(arrays), ["free0"])
    image, label, _, properties = dataset.load_case("free0")
    name, label = change(label[:].copy())
    nnUNetDatasetBlosc2.save_case(image[:], label, properties, str(arrays / name))


def with_lesion(label):
    label[0, 10:14, 10:14, 10:14] = 2
    return "free2", label


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_lesion, "expected hosts without lesions; the label of free2 has some"),
        (lambda label: ("patient0_scan1", label), "patient0_scan1 are called like cases of Dataset501_PhantomMR"),
        (
            lambda label: ("patient2_mirrored", label),
            "patient2_mirrored are of patients of the fold's validation cases",
        ),
    ],
)
def test_hosts_that_do_not_fit_are_named(change, message, hosts, configured):
    relabelled(hosts, change)
    configured(tumour_free={"dataset": 503}, group_pattern=PATIENT, insertion=CALM)
    with pytest.raises(ConfigError, match=re.escape(f"tumour_free: dataset 503: {message}")):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()


def test_hosts_of_other_plans_and_none_at_all_are_named(hosts, configured):
    configured(tumour_free={"dataset": 503}, group_pattern=PATIENT, insertion=CALM)
    file = hosts.parent / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.0, 1.0]
    file.write_text(json.dumps(plans))
    with pytest.raises(ConfigError, match=r"its plans have another spacing than those of .*move_plans"):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()
    configured(tumour_free={"dataset": 777}, group_pattern=PATIENT, insertion=CALM)
    with pytest.raises(ConfigError, match="tumour_free: dataset 777"):
        make_trainer(nnUNetTrainerSynthAug, MR).on_train_start()


def test_the_share_is_checked(hosts, configured):
    with pytest.raises(ConfigError, match=r"tumour_free\.share"):
        configured(tumour_free={"dataset": 503, "share": 1.5})
