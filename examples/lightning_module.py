"""Lightning: inside a module
==========================

Tumour insertion in a Lightning module, on the device, on phantoms.

Run it: python examples/lightning_module.py [--steps 40]

The lines that matter are marked; everything else is the training that you have already.
"""

import argparse

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.adapters.lightning import TumorInsertionMixin
from synthaug.data import phantom_case

CHANNELS = ("flair", "t1", "t1ce", "t2")


class Segmenter(TumorInsertionMixin, lightning.LightningModule):  # <- the mixin comes first
    """A small network that learns from batches with inserted tumours."""

    def __init__(self, insert: TumorInsertion):
        super().__init__()
        self.insert_tumors(insert, spacing_mm=(1, 1, 1), groups="patient")  # <- acts in training only
        self.network = nn.Sequential(nn.Conv3d(4, 16, 3, 2, 1), nn.ReLU(), nn.Conv3d(16, 32, 3, 1, 1), nn.ReLU())
        self.network.append(nn.ConvTranspose3d(32, 5, 2, 2))

    def training_step(self, batch: dict, index: int) -> torch.Tensor:
        """Cross entropy of a batch."""
        loss = nn.functional.cross_entropy(self.network(batch["image"] / 1000), batch["label"][:, 0].long())
        if index % 10 == 0:
            print(f"step {index}: loss {loss.item():.3f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The same as in the other examples."""
        return torch.optim.AdamW(self.parameters(), 3e-3)


def main(steps: int) -> None:
    """Train a small network on phantom patches for a number of steps."""
    volumes = [phantom_case(seed, (64, 64, 64), channels=CHANNELS) for seed in range(4)]
    patients = [f"phantom-{i}" for i in range(len(volumes))]

    samples = [(p, p, v.image, v.label, v.spacing_mm) for p, v in zip(patients, volumes, strict=True)]
    bank = LesionBank.from_arrays(samples, BRATS18, CHANNELS)
    insert = TumorInsertion(bank, "paste", channels=CHANNELS, prob=0.6, second=0.4, scale=(0.3, 0.8))  # <-
    cases = [{"image": v.image, "label": v.label[None], "patient": p} for p, v in zip(patients, volumes, strict=True)]
    loader = DataLoader([cases[i % 4] for i in range(2 * steps)], batch_size=2, num_workers=2)
    trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(Segmenter(insert), loader)
    print(insert.report())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    main(parser.parse_args().steps)
