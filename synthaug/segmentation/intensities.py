"""Changes of intensity in batches, on the device that the patches are on: noise, blur, bias, contrast, resolution.

What nnU-Net changes, in its order (Isensee et al., 2021, supplement), with a bias field after the blur. MONAI has them
for single samples, with random numbers of the host and a copy of each noise and each field to the device; here the host
decides which channels of which samples change and how, and the device does it for all of them at once. Channels draw
separately. Statistics (least value, mean, spread) are those of the body, the voxels that are not background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.host import scored_tissue
from synthaug.random import Purpose, seeded_noise, stream
from synthaug.transfers import on_device

BLUR_REACH = 4
DEGREE = 3


@dataclass(frozen=True)
class Channels:
    """Channels that one change acts on.

    Attributes:
        values: (N, X, Y, Z) float32.
        body: (N, X, Y, Z) bool, not background.
    """

    values: Tensor
    body: Tensor

    def least(self) -> Tensor:
        """Return the least value in the body, (N, 1, 1, 1); 0 where there is none."""
        low = torch.where(self.body, self.values, torch.inf).amin((1, 2, 3), keepdim=True)
        return torch.where(low.isfinite(), low, 0.0)

    def greatest(self) -> Tensor:
        """Return the greatest value in the body, likewise."""
        high = torch.where(self.body, self.values, -torch.inf).amax((1, 2, 3), keepdim=True)
        return torch.where(high.isfinite(), high, 0.0)

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and standard deviation of `values` over the body, (N, 1, 1, 1)."""
        count = self.body.sum((1, 2, 3), keepdim=True).clamp(min=1)
        mean = torch.where(self.body, values, 0.0).sum((1, 2, 3), keepdim=True) / count
        spread = torch.where(self.body, (values - mean).square(), 0.0).sum((1, 2, 3), keepdim=True) / count
        return mean, spread.sqrt()


Change = Callable[[Channels, np.ndarray], Tensor]
"""Changes channels by numbers drawn uniformly from [0, 1), (N, M): M for each channel."""


def change_intensities(
    image: Tensor, seeds: Sequence[int], changes: Sequence[tuple[float, int, Change]], masked: bool = True
) -> Tensor:
    """Change a batch; each sample is a function of its own seed.

    Args:
        image: (B, C, X, Y, Z) float32, background exactly 0, which stays 0.
        seeds: one for each sample.
        changes: in order, the probability per channel, how many numbers it takes, and the change.
        masked: whether exact 0 is background; else all voxels are body.
    """
    channels = image.shape[1]
    flat = rearrange(image, "b c x y z -> (b c) x y z").clone()
    body = scored_tissue(flat) if masked else torch.ones_like(flat, dtype=torch.bool)
    streams = [stream(seed, Purpose.INTENSITIES) for seed in seeds]
    for prob, numbers, change in changes:
        drawn = np.concatenate([rng.random((channels, 1 + numbers)) for rng in streams])
        chosen = np.flatnonzero(drawn[:, 0] < prob)
        if len(chosen):
            index = on_device(torch.from_numpy(chosen), image.device)
            some = Channels(flat.index_select(0, index), body.index_select(0, index))
            flat.index_copy_(0, index, change(some, drawn[chosen, 1:]))
    return rearrange(flat * body, "(b c) x y z -> b c x y z", c=channels)


def noise(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Add Gaussian noise of up to 0.1 standard deviations."""
    seeds = [int(u * 2**53) for u in numbers[:, 1]]
    added = seeded_noise(seeds, channels.values.shape[1:], channels.values.device)
    return channels.values + _per_channel(0.1 * numbers[:, 0], channels) * added


def blur(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Blur by a Gaussian of 0.5 to 1 voxels; of three numbers, each is of an axis."""
    offset = np.arange(-BLUR_REACH, BLUR_REACH + 1)
    kernel = np.exp(-0.5 * (offset / (0.5 + 0.5 * numbers[:, :, None])) ** 2)
    kernels = on_device((kernel / kernel.sum(2, keepdims=True)).astype(np.float32), channels.values.device)
    values = channels.values
    for axis in (1, 2, 3):
        weights = kernels[:, min(axis, numbers.shape[1]) - 1]
        pad = [0] * 6
        pad[2 * (3 - axis)] = pad[2 * (3 - axis) + 1] = BLUR_REACH
        wide = F.pad(values[None], pad, "replicate")[0]
        size, total = values.shape[axis], torch.zeros_like(values)
        for k in range(2 * BLUR_REACH + 1):
            total.addcmul_(wide.narrow(axis, k, size), weights[:, k, None, None, None])
        values = total
    return values


def bias_field(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Multiply the distance from the least value by a smooth field, the exponential of a polynomial of degree 3.

    The polynomial is a sum of products of Legendre's, each with a coefficient of -0.1 to 0.1.
    """
    coefficients = np.zeros((len(numbers), *(DEGREE + 1,) * 3), np.float32)
    where = np.argwhere(np.indices((DEGREE + 1,) * 3).sum(0) <= DEGREE)
    coefficients[:, *where.T] = 0.2 * numbers - 0.1
    device = channels.values.device
    waves = [
        on_device(np.polynomial.legendre.legvander(np.linspace(-1, 1, n), DEGREE).astype(np.float32), device)
        for n in channels.values.shape[1:]
    ]
    field = torch.einsum("nijk, xi, yj, zk -> nxyz", on_device(coefficients, device), *waves).exp()
    least = channels.least()
    return (channels.values - least) * field + least


def brightness(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Shift by up to 0.3 standard deviations, up or down."""
    return channels.values + _per_channel(0.6 * numbers[:, 0] - 0.3, channels)


def contrast(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Change the contrast about the mean by 0.75 to 1.25, within the range that there is."""
    mean, _ = channels.moments(channels.values)
    changed = (channels.values - mean) * _per_channel(0.75 + 0.5 * numbers[:, 0], channels) + mean
    return torch.minimum(torch.maximum(changed, channels.least()), channels.greatest())


def low_resolution(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Sample down to 0.5 to 1 of the resolution, to the nearest voxel, and up again, linearly.

    Of three numbers, each is of an axis.
    """
    size, low = channels.values.shape[1:], []
    for value, own in zip(channels.values, np.broadcast_to(numbers, (len(numbers), 3)), strict=True):
        small = [max(1, round(n * (0.5 + 0.5 * number))) for n, number in zip(size, own, strict=True)]
        down = F.interpolate(value[None, None], small, mode="nearest-exact")
        low.append(F.interpolate(down, size, mode="trilinear", align_corners=False)[0, 0])
    return torch.stack(low)


def gamma(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Raise the intensities, scaled to 0 to 1, to the power 0.7 to 1.5, and give back their mean and spread."""
    exponent = _per_channel(0.7 + 0.8 * numbers[:, 0], channels)
    least = channels.least()
    span = (channels.greatest() - least).clamp(min=1e-7)
    changed = ((channels.values - least) / span).clamp(0, 1) ** exponent
    (mean, spread), (new_mean, new_spread) = channels.moments(channels.values), channels.moments(changed)
    return (changed - new_mean) / new_spread.clamp(min=1e-7) * spread + mean


def inverted_gamma(channels: Channels, numbers: np.ndarray) -> Tensor:
    """Change the inverse image by `gamma`."""
    return -gamma(Channels(-channels.values, channels.body), numbers)


FIELD_NUMBERS = int((np.indices((DEGREE + 1,) * 3).sum(0) <= DEGREE).sum())
"""Coefficients of a bias field."""


def _per_channel(values: np.ndarray, channels: Channels) -> Tensor:
    return on_device(values.astype(np.float32), channels.values.device)[:, None, None, None]
