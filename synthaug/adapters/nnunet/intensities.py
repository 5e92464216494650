"""nnU-Net's changes of intensity and resolution, in batches on the device, so that they come after the insertion.

Which samples and channels change, and by how much, is drawn as nnU-Net's transforms draw it, from numpy's global state;
the changes are those of `synthaug.segmentation.intensities`, with statistics of the whole patch as nnU-Net has them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import sample_scalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from einops import rearrange
from torch import Tensor

from synthaug.segmentation.intensities import Channels, blur, contrast, gamma, inverted_gamma, low_resolution, noise
from synthaug.transfers import on_device

FIRST = (Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform)
"""Transforms that come before those of intensity."""

ORDERLESS = (MirrorTransform, Rot90Transform, TransposeAxesTransform, MaskImageTransform)
"""Transforms that may as well come before those of intensity."""

Values = np.ndarray
"""Drawn for some channels, (N, 1), or (N, 3) where the axes differ."""


@dataclass(frozen=True)
class BatchChange:
    """One of nnU-Net's transforms, for batches.

    Attributes:
        prob: of a sample.
        per_channel: probability of each of its channels.
        together: whether one value serves all channels of a sample.
        draw: draws a channel's values.
        change: changes channels by values.
    """

    prob: float
    per_channel: float
    together: bool
    draw: Callable[[], Sequence[float]]
    change: Callable[[Channels, Values], Tensor]

    def chosen(self, samples: int, channels: int) -> tuple[np.ndarray, Values]:
        """Draw which of the samples' channels change, (N,), and their values (N, M)."""
        rows, values = [], []
        for sample in np.flatnonzero(np.random.uniform(size=samples) < self.prob):
            some = np.flatnonzero(np.random.uniform(size=channels) < self.per_channel)
            shared = self.draw() if self.together else None
            rows += [sample * channels + channel for channel in some]
            values += [self.draw() if shared is None else shared for _ in some]
        return np.array(rows, int), np.array(values)


class DeviceIntensities:
    """Applies nnU-Net's changes of intensity to batches.

    Args:
        changes: in order.
        masked: channels that are set to `outside` where the label is below 0, afterwards.
    """

    def __init__(self, changes: Sequence[BatchChange], masked: Sequence[int] = (), outside: float = 0.0):
        self.changes, self.masked, self.outside = tuple(changes), tuple(masked), outside

    @torch.no_grad()
    def __call__(self, image: Tensor, label: Tensor) -> Tensor:
        """Change a batch.

        Args:
            image: (B, C, X, Y, Z) float.
            label: (B, 1, X, Y, Z), below 0 outside nnU-Net's non-zero region.
        """
        samples, channels = image.shape[:2]
        flat = rearrange(image, "b c x y z -> (b c) x y z").clone()
        for one in self.changes:
            rows, values = one.chosen(samples, channels)
            if len(rows):
                index = on_device(torch.from_numpy(rows), image.device)
                some = flat.index_select(0, index)
                everywhere = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=image.device).expand_as(some)
                flat.index_copy_(0, index, one.change(Channels(some, everywhere), values).to(flat.dtype))
        new = rearrange(flat, "(b c) x y z -> b c x y z", c=channels)
        for channel in self.masked:
            new[:, channel].masked_fill_(label[:, 0] < 0, self.outside)
        return new


def split(transforms: Sequence[BasicTransform]) -> tuple[list[BasicTransform], DeviceIntensities]:
    """Divide training transforms into those of the workers and those that can wait for the device.

    Raises:
        ValueError: a transform whose place in the order is not known; it is named.
    """
    kept, changes, masked, outside = [], [], (), 0.0
    for transform in transforms:
        if isinstance(transform, RandomTransform) and (change := _translated(transform)) is not None:
            changes.append(change)
            continue
        if (name := _misplaced(transform, bool(changes))) is not None:
            raise ValueError(name)
        kept.append(transform)
        if isinstance(transform, MaskImageTransform):
            # in the workers too, so that insertion sees the background that the hosts have
            masked, outside = tuple(transform.apply_to_channels), transform.set_outside_to
    return kept, DeviceIntensities(changes, masked, outside)


def _misplaced(transform: BasicTransform, late: bool) -> str | None:
    """Name a transform that has to stay among those of intensity, or None."""
    inner = transform
    while isinstance(inner, RandomTransform):
        inner = inner.transform
    fits = isinstance(inner, ORDERLESS) or (not late and isinstance(inner, FIRST))
    return None if fits else type(inner).__name__


def _translated(random: RandomTransform) -> BatchChange | None:
    """Translate one of nnU-Net's transforms of intensity; None for what is not one that is known."""
    transform: Any = random.transform
    known = _KINDS.get(type(transform))
    parts = None if known is None else known(transform)
    if parts is None:
        return None
    return BatchChange(
        random.apply_probability, transform.p_per_channel, transform.synchronize_channels, parts[0], parts[1]
    )


Parts = tuple[Callable[[], Sequence[float]], Callable[[Channels, Values], Tensor]] | None


def _noise(transform: Any) -> Parts:
    # what nnU-Net calls variance is its standard deviation
    return lambda: [sample_scalar(transform.noise_variance)], _scaled(_seeded, 0.0, 0.1)


def _seeded(channels: Channels, numbers: np.ndarray) -> Tensor:
    return noise(channels, np.concatenate([numbers, np.random.uniform(size=(len(numbers), 1))], 1))


def _blur(transform: Any) -> Parts:
    axes = 1 if transform.synchronize_axes else 3
    return lambda: [sample_scalar(transform.blur_sigma) for _ in range(axes)], _scaled(blur, 0.5, 0.5)


def _brightness(transform: Any) -> Parts:
    return lambda: [sample_scalar(transform.multiplier_range)], _multiplied


def _multiplied(channels: Channels, values: Values) -> Tensor:
    factors = on_device(values.astype(np.float32), channels.values.device)
    return channels.values * factors[:, :, None, None]


def _contrast(transform: Any) -> Parts:
    if not transform.preserve_range:
        return None
    return lambda: [sample_scalar(transform.contrast_range)], _scaled(contrast, 0.75, 0.5)


def _low_resolution(transform: Any) -> Parts:
    if transform.allowed_channels is not None:
        return None
    still = () if transform.ignore_axes is None else tuple(transform.ignore_axes)

    def draw() -> list[float]:
        first = sample_scalar(transform.scale)
        scales = [first if transform.synchronize_axes or not a else sample_scalar(transform.scale) for a in range(3)]
        return [1.0 if axis in still else scale for axis, scale in enumerate(scales)]

    return draw, _scaled(low_resolution, 0.5, 0.5)


def _gamma(transform: Any) -> Parts:
    if transform.p_retain_stats != 1 or transform.p_invert_image not in (0, 1):
        return None
    change = inverted_gamma if transform.p_invert_image else gamma
    return lambda: [sample_scalar(transform.gamma)], _scaled(change, 0.7, 0.8)


def _scaled(change: Callable[[Channels, np.ndarray], Tensor], low: float, width: float) -> Callable:
    """Make a change take values in place of the numbers in [0, 1) that it takes `low` to `low` + `width` by."""
    return lambda channels, values: change(channels, (values - low) / width)


_KINDS: dict[type, Callable[[Any], Parts]] = {
    GaussianNoiseTransform: _noise,
    GaussianBlurTransform: _blur,
    MultiplicativeBrightnessTransform: _brightness,
    ContrastTransform: _contrast,
    SimulateLowResolutionTransform: _low_resolution,
    GammaTransform: _gamma,
}
