"""TorchIO: on the batch
=====================

Tumour insertion into the batches of TorchIO's loader, on the device, on phantoms.

Run it: python examples/torchio_batch.py [--steps 40]

The lines that matter are marked; everything else is the training that you have already.
"""

import argparse

import torch
import torchio
from torch import nn

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.adapters.torchio import InsertTumorsInBatch
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")


def main(steps: int) -> None:
    """Train a small network on phantom patches for a number of steps."""
    volumes = [phantom_case(seed, (64, 64, 64), channels=CHANNELS) for seed in range(4)]
    patients = [f"phantom-{i}" for i in range(len(volumes))]

    samples = [(p, p, v.image, v.label, v.spacing_mm) for p, v in zip(patients, volumes, strict=True)]
    bank = LesionBank.from_arrays(samples, BRATS18, CHANNELS)
    insert = TumorInsertion(bank, "paste", channels=CHANNELS, prob=0.6, second=0.4, scale=(0.3, 0.8))  # <-
    insert_tumors = InsertTumorsInBatch(insert, group_key="patient")  # <-
    subjects = [
        torchio.Subject(
            mri=torchio.ScalarImage(tensor=v.image, affine=v.affine),
            tumour=torchio.LabelMap(tensor=v.label[None], affine=v.affine),
            patient=p,
        )
        for p, v in zip(patients, volumes, strict=True)
    ]
    transform = torchio.RandomFlip(axes=(0,))
    dataset = torchio.SubjectsDataset([subjects[i % 4] for i in range(2 * steps)], transform=transform)
    loader = torchio.SubjectsLoader(dataset, batch_size=2, num_workers=2)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = nn.Sequential(nn.Conv3d(4, 16, 3, 2, 1), nn.ReLU(), nn.Conv3d(16, 32, 3, 1, 1), nn.ReLU())
    network.append(nn.ConvTranspose3d(32, 5, 2, 2)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for step, batch in enumerate(loader):
        for name in ("mri", "tumour"):
            batch[name]["data"] = batch[name]["data"].to(device)
        batch = insert_tumors(batch)  # <- in the training loop only
        image, label = batch["mri"]["data"], batch["tumour"]["data"]
        loss = nn.functional.cross_entropy(network(image / 1000), label[:, 0].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}")
    print(insert.report())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    main(parser.parse_args().steps)
