"""Random streams: every draw is a function of a seed and of what it is drawn for; the global generators stay untouched.

On the host a stream is named by whole numbers, such as (seed, rank, sample, order), and `stream` is NumPy's generator
of that name. On a device a draw has the seed of its insertion, crop or step; `seed_for` makes of it the seed of one
more draw for the same insertion, and `seeded_noise` draws for each of many seeds by itself.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

SAMPLE_STRIDE = 1_000_003
"""Samples of one seed's sequence before that of the next begins."""

MOST_RANKS = 4096


class Purpose(IntEnum):
    """Uses of a seed that has several; part of a stream's name, or given to `seed_for`."""

    COHORT_HOSTS = 0xC0
    COHORT_COUNTS = 0xC1
    NEUTRAL_HOST = 0x4057
    ELASTIC = 0x5EED
    RECIPES = 0x9A17
    RECIPE_ROUNDS = 0x9A18
    PLACE = 0x9ACE
    HOME = 0x403E
    CARVE = 0xCA2E
    INTENSITIES = 0x1277
    CONTRAST = 0xC047
    OWN = 0x0117
    HEAL = 0x4EA1
    LOOK = 0x100C


def stream(*name: int) -> np.random.Generator:
    """Make the host's generator of this name: the same name, the same numbers.

    Args:
        *name: whole numbers from 0 on; of one purpose always as many, for zeros at a name's end do not count.
    """
    return np.random.default_rng(list(name))


def device_stream(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator of PyTorch on a device, at the beginning of a seed's sequence."""
    return torch.Generator(device).manual_seed(int(seed))


def seed_for(seed: int, purpose: Purpose) -> int:
    """Derive a seed for one more use of what has `seed`."""
    return seed ^ int(purpose)


def sample_stream(seed: int, number: int) -> torch.Generator:
    """Make the generator of one sample of an endless sequence, whoever asks for it and when.

    Args:
        seed: the sequence's seed.
        number: the sample's number; negative ones are free for other uses.
    """
    return device_stream((seed * SAMPLE_STRIDE + number) % 2**63)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Compute the seed of one process's draws in one step of a training."""
    return (seed * SAMPLE_STRIDE + step) * MOST_RANKS + rank


def seeded_noise(seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Tensor:
    """Draw standard normal noise (N, *shape) float32, one generator per seed: no sample depends on another."""
    return torch.stack(
        [torch.randn(tuple(shape), generator=device_stream(seed, device), device=device) for seed in seeds]
    )
