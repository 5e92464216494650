"""MONAI: in the trainer
=====================

Tumour insertion on the device with MONAI's SupervisedTrainer, on phantoms.

Run it: python examples/monai_supervised.py [--steps 40]

The lines that matter are marked; everything else is the training that you have already.
"""

import argparse

import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from torch import nn

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.adapters.monai import PrepareBatchInsertTumor
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")


def main(steps: int) -> None:
    """Train a small network on phantom patches for a number of steps."""
    volumes = [phantom_case(seed, (64, 64, 64), channels=CHANNELS) for seed in range(4)]
    patients = [f"phantom-{i}" for i in range(len(volumes))]

    samples = [(p, p, v.image, v.label, v.spacing_mm) for p, v in zip(patients, volumes, strict=True)]
    bank = LesionBank.from_arrays(samples, BRATS18, CHANNELS)
    insert = TumorInsertion(bank, "paste", channels=CHANNELS, prob=0.6, second=0.4, scale=(0.3, 0.8))  # <-
    cases = [
        {
            "image": MetaTensor(v.image, affine=v.affine),
            "label": MetaTensor(v.label[None], affine=v.affine),
            "patient": p,
        }
        for p, v in zip(patients, volumes, strict=True)
    ]
    dataset = Dataset([cases[i % 4] for i in range(2 * steps)])
    loader = DataLoader(dataset, batch_size=2, num_workers=2)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = nn.Sequential(nn.Conv3d(4, 16, 3, 2, 1), nn.ReLU(), nn.Conv3d(16, 32, 3, 1, 1), nn.ReLU())
    network.append(nn.ConvTranspose3d(32, 5, 2, 2)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    trainer = SupervisedTrainer(
        device=torch.device(device),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        prepare_batch=PrepareBatchInsertTumor(insert, group_key="patient"),  # <- of the trainer, not of the evaluator
    )
    trainer.run()
    print(f"loss {trainer.state.output[0]['loss']:.3f}")
    print(insert.report())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    main(parser.parse_args().steps)
