"""Small datasets, planned and preprocessed by nnU-Net itself, and trainers on them."""

import json
import multiprocessing
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from synthaug.data import phantom_case
from synthaug.data.phantoms.phantom import SEQUENCES

SIZE = (48, 52, 44)
KINDS = ("raw", "preprocessed", "results")
MR, CT = "Dataset501_PhantomMR", "Dataset502_PhantomCT"


def write_datasets(raw: Path) -> None:
    """Four-channel MR with three tumour classes, and CT with an organ, a tumour and an ignore label."""
    for i in range(3):
        volume = phantom_case(i, SIZE)
        label = np.where(volume.label == 4, 3, volume.label)
        _write_case(raw / MR, f"patient{i}_scan1", list(volume.image), label, volume.affine)
        ct, organs = _abdomen(i)
        _write_case(raw / CT, f"case_{i}", [ct], organs, np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    _write_json(raw / MR, {str(i): name.upper() for i, name in enumerate(SEQUENCES)}, labels)
    _write_json(raw / CT, {"0": "CT"}, {"background": 0, "liver": 1, "vessel": 2, "tumour": 3, "ignore": 4})


def _write_case(folder: Path, name: str, channels, label: np.ndarray, affine: np.ndarray) -> None:
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for c, voxels in enumerate(channels):
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / "imagesTr" / f"{name}_{c:04d}.nii.gz")
    nib.save(nib.Nifti1Image(label.astype(np.uint8), affine), folder / "labelsTr" / f"{name}.nii.gz")


def _write_json(folder: Path, channels: dict, labels: dict) -> None:
    content = {"channel_names": channels, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def _abdomen(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body of 40 HU in air with a liver of 100 HU, a vessel, a dark tumour of -30 HU and an unannotated corner."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 44, 36)), indexing="ij")
    body, liver = np.hypot(x, y) < 0.95, np.sqrt(x**2 + y**2 + z**2) < 0.75
    label = liver.astype(np.uint8)
    label[np.hypot(x, z) < 0.1] = 2
    label[np.sqrt((x - 0.35) ** 2 + y**2 + z**2) < 0.2] = 3
    label[(y > 0.6) & (z > 0.6)] = 4
    image = np.select([label == 3, label == 2, liver, body], [-30, 160, 100, 40], -1000)
    return image + rng.normal(0, 10, image.shape), label


class _ThreadContext:
    """Pools of threads: nnU-Net's spawned processes would each import everything again."""

    @staticmethod
    def Pool(processes):  # noqa: N802
        return ThreadPool(processes)


def plan_and_preprocess(*datasets: int) -> None:
    """What ``nnUNetv2_plan_and_preprocess -d DATASETS -c 3d_fullres -np 1 -npfp 1`` calls."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments, preprocess

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method=None: _ThreadContext)
        for dataset in datasets:
            extractor = DatasetFingerprintExtractor(dataset, num_processes=1)
            extractor.num_foreground_voxels_for_intensitystats = 1e5  # with 1e8 three small cases take half a minute
            extractor.run()
        plan_experiments([*datasets])
        preprocess([*datasets], configurations=["3d_fullres"], num_processes=[1])


def split(folder: Path) -> None:
    """The last of three cases validates, in every fold's place."""
    arrays = folder / "nnUNetPlans_3d_fullres"
    cases = sorted(p.stem for p in arrays.glob("*.pkl"))
    (folder / "splits_final.json").write_text(json.dumps([{"train": cases[:2], "val": cases[2:]}]))


def make_trainer(kind, name: str, labels: dict | None = None, deep_supervision=True, configuration="3d_fullres"):
    """A trainer with a tiny network, small patches and short epochs; `labels` replaces those of dataset.json."""
    from nnunetv2.paths import nnUNet_preprocessed

    folder = Path(nnUNet_preprocessed) / name
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((folder / "dataset.json").read_text())
    if labels is not None:
        dataset_json |= {"labels": labels, "regions_class_order": [2, 1, 3]}
    chosen = plans["configurations"]["3d_fullres"]
    chosen["patch_size"] = [32, 32, 32]
    network = chosen["architecture"]["arch_kwargs"]
    network["n_stages"] = 3
    network["features_per_stage"] = [4, 4, 4]
    network["n_conv_per_stage"], network["n_conv_per_stage_decoder"] = [1, 1, 1], [1, 1]
    network["kernel_sizes"], network["strides"] = [[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    plans["continue_training"] = False
    trainer = kind(plans, configuration, 0, dataset_json, torch.device("cpu"))
    trainer.enable_deep_supervision = deep_supervision
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch, trainer.num_epochs = 2, 1, 1
    return trainer


def write_settings(folder: Path, **settings) -> Path:
    """A settings file."""
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}


def seeded(seed: int) -> None:
    """Both global states, which nnU-Net's loaders draw from."""
    np.random.seed(seed)
    torch.manual_seed(seed)


def described(batch: dict) -> SimpleNamespace:
    """A loader's batch, its targets always a list."""
    target = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    return SimpleNamespace(data=batch["data"], target=target, keys=list(batch["keys"]))
