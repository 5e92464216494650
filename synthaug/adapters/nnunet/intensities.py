"""nnU-Net's changes of intensity and resolution, in batches on the device, so that they come after the insertion.

Which samples and channels change, and by how much, is drawn as nnU-Net's transforms draw it, from the global states.
Statistics are those of the whole patch, as nnU-Net has them, background included.
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

from synthaug.segmentation.intensities import Channels, blur, low_resolution
from synthaug.transfers import on_device

FIRST = (Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform)
"""Transforms that come before those of intensity."""

ORDERLESS = (MirrorTransform, Rot90Transform, TransposeAxesTransform, MaskImageTransform)
"""Transforms that may as well come before those of intensity."""

Values = np.ndarray
"""Drawn for some channels, (N, 1), or (N, 3) where the axes differ."""

Change = Callable[[Tensor, Values], Tensor]
"""Changes channels (N, X, Y, Z), which it may overwrite, by values."""

EPSILON = 1e-7
EACH = (1, 2, 3)


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
    change: Change

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
                flat.index_copy_(0, index, one.change(flat.index_select(0, index), values).to(flat.dtype))
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


Parts = tuple[Callable[[], Sequence[float]], Change] | None


def _noise(transform: Any) -> Parts:
    # what nnU-Net calls variance is its standard deviation
    return lambda: [sample_scalar(transform.noise_variance)], noise


def _blur(transform: Any) -> Parts:
    axes = 1 if transform.synchronize_axes else 3
    return lambda: [sample_scalar(transform.blur_sigma) for _ in range(axes)], _by_numbers(blur)


def _brightness(transform: Any) -> Parts:
    return lambda: [sample_scalar(transform.multiplier_range)], multiplied


def _contrast(transform: Any) -> Parts:
    return (lambda: [sample_scalar(transform.contrast_range)], contrast) if transform.preserve_range else None


def _low_resolution(transform: Any) -> Parts:
    if transform.allowed_channels is not None:
        return None
    still = () if transform.ignore_axes is None else tuple(transform.ignore_axes)

    def draw() -> list[float]:
        first = sample_scalar(transform.scale)
        scales = [first if transform.synchronize_axes or not a else sample_scalar(transform.scale) for a in range(3)]
        return [1.0 if axis in still else scale for axis, scale in enumerate(scales)]

    return draw, _by_numbers(low_resolution)


def _gamma(transform: Any) -> Parts:
    if transform.p_retain_stats != 1 or transform.p_invert_image not in (0, 1):
        return None
    return lambda: [sample_scalar(transform.gamma)], inverted_gamma if transform.p_invert_image else gamma


def _by_numbers(change: Callable[[Channels, np.ndarray], Tensor]) -> Change:
    """Make a change that takes 0.5 to 1 by numbers from 0 to 1, and does not look at the body, take the values."""
    return lambda flat, values: change(Channels(flat, flat), 2 * values - 1)


def noise(flat: Tensor, values: Values) -> Tensor:
    """Add Gaussian noise of these standard deviations."""
    return flat.add_(torch.randn_like(flat).mul_(_column(values, flat)))


def multiplied(flat: Tensor, values: Values) -> Tensor:
    """Multiply by these factors."""
    return flat.mul_(_column(values, flat))


def contrast(flat: Tensor, values: Values) -> Tensor:
    """Multiply the distance from the mean by these factors, within the range that there is."""
    mean, low, high = flat.mean(EACH, True), flat.amin(EACH, True), flat.amax(EACH, True)
    changed = flat.sub_(mean).mul_(_column(values, flat)).add_(mean)
    return torch.minimum(torch.maximum(changed, low), high)


def gamma(flat: Tensor, values: Values) -> Tensor:
    """Raise the intensities, scaled to 0 to 1, to these powers, and give back their mean and spread."""
    mean = flat.mean(EACH, True)
    flat = flat.sub_(mean)
    # lengths in place of standard deviations, which torch takes forty times as long for
    length, low = _length(flat), flat.amin(EACH, True)
    size = (flat.amax(EACH, True) - low).clamp(min=EPSILON)
    # the logarithm's way to a power is the shorter one where powers differ
    changed = flat.sub_(low).div_(size).log_().mul_(_column(values, flat)).exp_()
    changed = changed.sub_(changed.mean(EACH, True))
    return changed.mul_(length / _length(changed).clamp(min=EPSILON)).add_(mean)


def _length(flat: Tensor) -> Tensor:
    return torch.linalg.vector_norm(flat, dim=EACH, keepdim=True)


def inverted_gamma(flat: Tensor, values: Values) -> Tensor:
    """Change the inverse image by `gamma`."""
    return gamma(flat.neg_(), values).neg_()


def _column(values: Values, flat: Tensor) -> Tensor:
    return on_device(values.astype(np.float32), flat.device)[:, :, None, None]


_KINDS: dict[type, Callable[[Any], Parts]] = {
    GaussianNoiseTransform: _noise,
    GaussianBlurTransform: _blur,
    MultiplicativeBrightnessTransform: _brightness,
    ContrastTransform: _contrast,
    SimulateLowResolutionTransform: _low_resolution,
    GammaTransform: _gamma,
}
