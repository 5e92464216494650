"""Insertion in a training loop: a small network, patches of the hosts, and the time that each part took."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from synthaug.classes import BRATS18
from synthaug.demo.brains import Brain
from synthaug.host import zscore_host
from synthaug.insertion.insertion import TumorInsertion
from synthaug.memory_format import channels_last
from synthaug.progress import shown

CHANNELS = ("flair", "t1", "t1ce", "t2")
PATCH, BATCH = 56, 2
TUMOUR_CENTRED = 0.5
"""Share of a tumour host's patches that lie around its tumour, as usual against class imbalance."""


def make_insertion(bank: Path, audit: Path, seed: int) -> TumorInsertion:
    """Make the insertion that the training loop calls."""
    return TumorInsertion(
        lesions=bank,
        generator="paste",
        classes=BRATS18,
        channels=CHANNELS,
        prob=0.6,
        second=0.4,
        scale=(0.3, 0.8),
        swaps=[("ED", "ET", 0.7), ("ET", "NCR", 0.7)],
        audit=audit,
        seed=seed,
    )


@dataclass(frozen=True)
class Patch:
    """One sample of the loop before and after; images (C, X, Y, Z), labels (X, Y, Z), as NumPy arrays."""

    step: int
    sample: int
    host: str
    before: np.ndarray
    after: np.ndarray
    label_before: np.ndarray
    label_after: np.ndarray

    @property
    def has_tumour(self) -> bool:
        """Whether a tumour of the host's own is in the patch."""
        return bool(self.label_before.any())

    @property
    def shown(self) -> int:
        """Voxels of new label; beside a tumour of the host's own, how much of both an axial slice can show."""
        new = (self.label_after != self.label_before).sum((0, 1))
        own = (self.label_before != 0).sum((0, 1))
        return int(np.minimum(new, own).max() if self.has_tumour else new.sum())


@dataclass
class Training:
    """Losses, times and patches of a run of the loop; times in seconds, one per step."""

    parameters: int
    losses: list[float] = field(default_factory=list)
    insertion_s: list[float] = field(default_factory=list)
    training_s: list[float] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)

    def keep(self, patch: Patch) -> None:
        """Remember the two patches that show most, and the same of those with a tumour of the host's own."""
        if patch.shown:
            rivals = [p for p in (*self.patches, patch) if p.has_tumour == patch.has_tumour]
            others = [p for p in self.patches if p.has_tumour != patch.has_tumour]
            best = sorted(rivals, key=lambda p: -p.shown)[:2]
            self.patches = sorted([*others, *best], key=lambda p: (p.has_tumour, -p.shown))


def train(hosts: Sequence[Brain], insert: TumorInsertion, steps: int, seed: int) -> Training:
    """Train a small network on patches of the hosts, with tumours inserted into every batch."""
    draw = DemoPatches(hosts, seed)
    network = small_network(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    training = Training(parameters=sum(p.numel() for p in network.parameters()))
    for step in shown(range(steps), "training", "step"):
        real_image, real_label, patients = draw()

        start = time.perf_counter()
        image, label = insert(real_image, real_label, spacing_mm=(1, 1, 1), groups=patients, host_stats=(0, 1))
        inserted = time.perf_counter()

        loss = dice_and_cross_entropy(network(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.training_s.append(time.perf_counter() - inserted)
        training.insertion_s.append(inserted - start)
        training.losses.append(loss.item())

        for b, patient in enumerate(patients):
            arrays = (real_image[b], image[b], real_label[b, 0], label[b, 0])
            training.keep(Patch(step, b, patient, *(x.numpy() for x in arrays)))
    return training


class DemoPatches:
    """Batches of patches around random tissue or tumour voxels of random hosts, in z-scores of each host's tissue."""

    def __init__(self, hosts: Sequence[Brain], seed: int):
        self.hosts = hosts
        self.images = [zscore_host(host.volume.image) for host in hosts]
        self.tissue = [np.argwhere(host.volume.image.any(axis=0)) for host in hosts]
        self.tumour = [np.argwhere(host.volume.label) for host in hosts]
        self.rng = np.random.default_rng(seed)

    def __call__(self) -> tuple[Tensor, Tensor, list[str]]:
        """Draw image (B, C, X, Y, Z) float32, label (B, 1, X, Y, Z) int16 and the patients."""
        samples = [self._patch(int(self.rng.integers(len(self.hosts)))) for _ in range(BATCH)]
        images, labels, patients = zip(*samples, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))[:, None], list(patients)

    def _patch(self, h: int) -> tuple[np.ndarray, np.ndarray, str]:
        image, label = self.images[h], self.hosts[h].volume.label
        tumour = len(self.tumour[h]) and self.rng.random() < TUMOUR_CENTRED
        places = self.tumour[h] if tumour else self.tissue[h]
        center = places[self.rng.integers(len(places))]
        low = np.clip(center - PATCH // 2, 0, np.array(label.shape) - PATCH)
        window = tuple(slice(i, i + PATCH) for i in low)
        return image[(slice(None), *window)], label[window], self.hosts[h].name


def small_network(seed: int) -> nn.Module:
    """Make a network from (B, 4, X, Y, Z) to logits of that shape; it works on blocks of 2 x 2 x 2 voxels."""

    def layer(c_in: int, c_out: int, dilation: int) -> nn.Module:
        convolution = nn.Conv3d(c_in, c_out, 3, padding=dilation, dilation=dilation)
        return nn.Sequential(convolution, nn.GroupNorm(4, c_out), nn.SiLU())

    width, blocks = 24, "b c (x p) (y q) (z r) -> b (c p q r) x y z"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            Rearrange(blocks, p=2, q=2, r=2),
            layer(8 * len(CHANNELS), width, 1),
            layer(width, width, 2),
            layer(width, width, 4),
            nn.Conv3d(width, 8 * (1 + len(BRATS18)), 1),
            Rearrange("b (c p q r) x y z -> b c (x p) (y q) (z r)", p=2, q=2, r=2),
        )
    return channels_last(network)


def dice_and_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Add soft Dice of the tumour classes over the batch to cross-entropy; label (B, 1, X, Y, Z) in BraTS values."""
    order = torch.zeros(1 + max(BRATS18.values.values()), dtype=torch.int64)
    for k, value in enumerate(BRATS18.values.values()):
        order[value] = k + 1
    target = order[label[:, 0].long()]
    one_hot = rearrange(F.one_hot(target, logits.shape[1]), "b x y z k -> k (b x y z)")[1:].float()
    share = rearrange(logits.softmax(1), "b k x y z -> k (b x y z)")[1:]
    dice = (2 * (share * one_hot).sum(1) + 1) / (share.sum(1) + one_hot.sum(1) + 1)
    return 1 - dice.mean() + F.cross_entropy(logits, target)
