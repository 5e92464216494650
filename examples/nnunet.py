"""nnU-Net: all of it
==================

Tumour insertion in nnU-Net's training, on phantoms: python examples/nnunet.py [--steps 20]

nnU-Net plans, preprocesses and trains as always; the lines that matter are marked. On a dataset of your own, all of
this is on the command line (README), and the training is nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerSynthAug.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import torch

from synthaug import BRATS23
from synthaug.data import phantom_case

SETTINGS = """
bank: bank_fold{fold}.safetensors
insertion: {prob: 0.6, second: 0.4, scale: [0.4, 0.8]}
"""


def write_dataset(folder: Path) -> None:
    """Five phantom brains in nnU-Net's raw format."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(5):
        volume = phantom_case(i, (48, 48, 48), classes=BRATS23, channels=("flair",))
        nib.save(nib.Nifti1Image(volume.image[0], volume.affine), folder / "imagesTr" / f"phantom{i}_0000.nii.gz")
        nib.save(nib.Nifti1Image(volume.label, volume.affine), folder / "labelsTr" / f"phantom{i}.nii.gz")
    content = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, **BRATS23.values}, "numTraining": 5}
    (folder / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz"}))


def main(steps: int) -> None:
    """Train for one epoch of a number of steps."""
    with tempfile.TemporaryDirectory() as home:
        for kind in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{kind}"] = f"{home}/{kind}"
        os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
        (Path(home) / "settings.yaml").write_text(SETTINGS)
        os.environ["SYNTHAUG_CONFIG"] = f"{home}/settings.yaml"  # <- one
        write_dataset(Path(home) / "raw" / "Dataset501_Phantom")
        programs = Path(sys.executable).parent
        plan = "nnUNetv2_plan_and_preprocess -d 501 -c 3d_fullres -np 1 -npfp 1"
        for command in (plan, "synthaug nnunet-bank 501 --fold 0"):  # <- two
            subprocess.run(f"{programs}/{command}", shell=True, check=True)
        train(Path(home) / "preprocessed" / "Dataset501_Phantom", steps)


def train(dataset: Path, steps: int) -> None:
    """What nnUNetv2_train does, with a network and an epoch for a CPU."""
    from synthaug.adapters.nnunet.trainer import nnUNetTrainerSynthAug  # <- three

    plans = json.loads((dataset / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [8 * 2**i for i in range(network["n_stages"])]
    dataset_json = json.loads((dataset / "dataset.json").read_text())
    trainer = nnUNetTrainerSynthAug(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, steps, 1
    trainer.run_training()
    print(trainer.insertion.engine.report())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    main(parser.parse_args().steps)
