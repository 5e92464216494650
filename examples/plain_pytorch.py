"""Plain PyTorch
=============

Tumour insertion in a plain PyTorch training loop, on phantoms: python examples/plain_pytorch.py [--steps 40]

The two lines that matter are marked; everything else is the training that you have already.
"""

import argparse

import torch
from torch import nn

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")


def main(steps: int) -> None:
    """Train a small network on phantom patches for a number of steps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    volumes = [phantom_case(seed, (64, 64, 64), channels=CHANNELS) for seed in range(4)]
    images = torch.stack([torch.from_numpy(v.image) for v in volumes])
    labels = torch.stack([torch.from_numpy(v.label)[None] for v in volumes]).long()
    patients = [f"phantom-{i}" for i in range(len(volumes))]

    samples = zip(
        patients, patients, images.numpy(), labels[:, 0].numpy(), [v.spacing_mm for v in volumes], strict=True
    )
    bank = LesionBank.from_arrays(samples, BRATS18, CHANNELS)
    insert = TumorInsertion(bank, "paste", channels=CHANNELS, prob=0.6, second=0.4, scale=(0.3, 0.8))  # <- one

    network = nn.Sequential(nn.Conv3d(4, 16, 3, 2, 1), nn.ReLU(), nn.Conv3d(16, 32, 3, 1, 1), nn.ReLU())
    network.append(nn.ConvTranspose3d(32, 5, 2, 2)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(steps):
        chosen = [step % 4, (step + 1) % 4]
        image, label = images[chosen].to(device), labels[chosen].to(device)
        image, label = insert(image, label, spacing_mm=(1, 1, 1), groups=[patients[i] for i in chosen])  # <- two
        loss = nn.functional.cross_entropy(network(image / 1000), label[:, 0])
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
