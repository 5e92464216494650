"""Hosts with a lesion where the donor of a bank lay, for the tests of places in adapters."""

import numpy as np
import torch
from engine import CHANNELS, toy_case, toy_insertion
from torch import Tensor

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.frames import host_frame, place, voxel
from synthaug.lesions.base import center_of

HOST_SIZE = (60, 56, 52)
PATCH = (40, 40, 40)
AFFINE = np.array([[-1.0, 0, 0, 40], [0, 0, 1.0, -20], [0, 1.0, 0, 7], [0, 0, 0, 1]])
"""Right to left, then foot to head, then back to front, unlike the donor's RAS."""


def bank_at(move=(-5, 3, 4)) -> LesionBank:
    """One donor, nested balls, `move` voxels from the middle of a host of 28 voxels."""
    name, group, image, label, spacing = toy_case(0, 12)
    image[:, :3] = image[:, 3:6]  # all is tissue
    moved = np.roll(image, move, (1, 2, 3)), np.roll(label, move, (0, 1, 2))
    return LesionBank.from_arrays([(name, group, *moved, spacing, None, np.eye(4))], BRATS18, CHANNELS)


def at_home(**options) -> TumorInsertion:
    """An insertion that puts the donor exactly where it lay."""
    wanted = {"place": "home", "shift_mm": 0.0, "mirror": False, "halo_mm": 0.0, "scale": (0.7, 0.9)}
    return toy_insertion(lesions=bank_at(), **(wanted | options))


def host_at(seed=0, affine=AFFINE, size=HOST_SIZE) -> tuple[Tensor, Tensor]:
    """A host, image (4, X, Y, Z) and label (1, X, Y, Z), with a ball of class 2 at the donor's place."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.zeros(4, *size)
    inner = tuple(slice(3, n - 3) for n in size)
    image[:, *inner] = 100 + 15 * torch.randn(image[:, *inner].shape, generator=rng)
    bank = bank_at()
    home = voxel(host_frame(image[0].numpy() != 0, affine), center_of(next(iter(bank)), bank.margin_vox))
    away = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1) - home
    label = torch.from_numpy(np.linalg.norm(away, axis=-1) < 5).to(torch.int16)[None] * 2
    return image, label


def middle(mask: Tensor) -> np.ndarray:
    """Mean voxel index of a mask (X, Y, Z)."""
    return np.argwhere(np.asarray(mask)).mean(0)


def lies_at_home(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], within=1.5) -> None:
    """Check that a lesion lies where the ball lay, (X, Y, Z) labels, and that image and label agree."""
    image, label, new_image, new_label = (x.as_subclass(Tensor) for x in (*before, *after))
    lesion = (new_label == 1) | (new_label == 4)
    assert lesion.any(), "nothing was inserted"
    assert np.linalg.norm(middle(lesion) - middle(label == 2)) < within
    written = (new_image != image).any(0)
    assert written[lesion].all() and not (written & (new_label == 0)).any()


def often_where_lesions_lie(rows: list[dict], frames: np.ndarray) -> None:
    """Check that most of many lesions are on the donor's level, or on the other side of it."""
    bank = bank_at()
    home = center_of(next(iter(bank)), bank.margin_vox)
    done = [row for row in rows if row["outcome"] == "done"]
    assert len(done) > 8 and {row["place"] for row in done} == {"like-data"}
    found = np.array([place(frames[row["sample"]], row["center_vox"]) for row in done])
    side = np.where(found[:, :1] < 0.5, found[:, :1], 1 - found[:, :1])
    off = np.concatenate([side, found[:, 1:]], 1) - home
    assert np.abs(off.mean(0)).max() < 0.12
