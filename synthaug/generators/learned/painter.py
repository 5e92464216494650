"""The GAN's two networks: a painter that works at half resolution, and a patch critic that looks at three scales.

Neither has normalisation layers. Group or instance normalisation makes the strength of a texture depend on how much of
the crop is lesion and on the crop's size; super-resolution GANs dropped it for the like reason (ESRGAN, Wang et al.
2018, arXiv 1809.00219, section 3.1), and on CPUs it costs as much as the convolutions.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from synthaug.generators.learned.convolution import (
    Conv3d,
    activated,
    added,
    drawn_detail,
    enlarged,
    joined,
    placed,
    slabs,
    space_to_depth_conv,
)
from synthaug.generators.learned.style import fine_detail, style_maps
from synthaug.geometry import Box
from synthaug.precision import short_in_fp32

NOISE_LEVELS = 4
"""Noise is injected at full resolution and at 1/2, 1/4 and 1/8 of it."""

COARSE = 0.95
"""Share of a class's standard deviation that the painting starts with, as smooth noise: without it the network paints
the same coarse layout into a mask whatever the noise."""


DETAIL_GAIN = 4.0
"""The critic is shown the finest band of texture at the scale of the image itself."""

FEATURE_GAIN = 2**0.5
"""Undoes what a leaky ReLU takes from the spread of the critic's features."""


class TwoConvolutions(nn.Module):
    """The two 3 x 3 x 3 convolutions of a residual block, the second with small weights at first.

    Args:
        width: number of features in and out.
        hidden: number of features between the convolutions; `width` where not given.
    """

    def __init__(self, width: int, hidden: int | None = None):
        super().__init__()
        self.first = Conv3d(width, hidden or width, 3, padding=1)
        self.second = Conv3d(hidden or width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.3)


class Residual(TwoConvolutions):
    """A residual block; starts as almost the identity."""

    def forward(self, x: Tensor) -> Tensor:
        """Change (N, width, X, Y, Z); of the same shape."""
        return added(x, self.second(activated(self.first(F.silu(x)))))


def hidden_of(widths: Sequence[int], hidden: Sequence[int] | None) -> tuple[int, ...]:
    """List the features inside each block of a U-Net, on the way down, then up; as outside where not given.

    Raises:
        ValueError: another number of blocks.
    """
    found = tuple(hidden or (*widths, *widths[:-1]))
    if len(found) != 2 * len(widths) - 1:
        raise ValueError(f"hidden: expected {2 * len(widths) - 1} numbers, got {found}")
    return found


class NoiseInjection(nn.Module):
    """Adds noise images, mixed into the features (StyleGAN, Karras et al. 2019, arXiv 1812.04948, fig. 1b)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.mix = Conv3d(channels, width, 1, bias=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add noise (N, channels, X, Y, Z) to x (N, width, X, Y, Z)."""
        return added(x, self.mix(noise))


class Painter(nn.Module):
    """Paints a lesion's voxels: context, classes, style and noise in, all channels out.

    A space-to-depth stem brings 2 x 2 x 2 voxels to channels, a U-Net with additive skips works at half resolution and
    below, and a thin head at full resolution, fed by resize-convolution and by the painted start, draws the detail:
    pixel shuffle alone leaves a grid (Odena et al. 2016, distill.pub/2016/deconv-checkerboard).

    The painting starts as smooth noise with the class's mean and spread; the network answers with a change in units
    of the class's standard deviation, so what it must learn has one scale in every channel.

    Args:
        channels: number C of image channels.
        classes: number K of classes.
        widths: features at 1/2, 1/4, ... of the resolution.
        head: features of the head.
        hidden: features between the two convolutions of each block, of those on the way down, then of those on the way
            up, both from the finest level on; as outside them where not given.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int] = (32, 64, 96, 128),
        head: int = 16,
        hidden: Sequence[int] | None = None,
    ):
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"widths: expected two levels or more, got {tuple(widths)}")
        self.channels, self.classes, self.widths, self.head_width = channels, classes, tuple(widths), head
        self.hidden = hidden_of(widths, hidden)
        down, up = self.hidden[: len(widths)], self.hidden[len(widths) :]
        inputs = 5 * channels + classes + 1
        self.stem = Conv3d(8 * inputs, widths[0], 1)
        self.down = nn.ModuleList(Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.encode = nn.ModuleList(Residual(w, h) for w, h in zip(widths, down, strict=True))
        self.middle = Residual(widths[-1])
        self.up = nn.ModuleList(Conv3d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.noise = nn.ModuleList(NoiseInjection(channels, w) for w in widths[:-1][: NOISE_LEVELS - 1])
        self.decode = nn.ModuleList(Residual(w, h) for w, h in zip(widths[:-1], up, strict=True))
        self.to_head = Conv3d(widths[0], head - 2 * channels, 1)
        self.head = Conv3d(head, head, 3, padding=1)
        self.out = Conv3d(head, channels, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.3)
        self.factor = 2 ** len(widths)

    def noise_shapes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """List the shapes of the noise images for a crop of this size: (C, x, y, z), (C, x/2, y/2, z/2), ..."""
        levels = 1 + len(self.noise)
        return [(self.channels, *(s >> level for s in size)) for level in range(levels)]

    @short_in_fp32
    def forward(
        self,
        context: Tensor,
        mask: Tensor,
        style: Tensor,
        available: Tensor,
        noise: Sequence[Tensor],
        boxes: Sequence[Box] | None = None,
    ) -> Tensor:
        """Paint crops.

        Args:
            context: (N, C, X, Y, Z) model intensities, 0 in the lesion and in channels that are not available; sides
                are multiples of `factor`.
            mask: (N, K, X, Y, Z) float, one-hot classes.
            style: (N, K, C, 3) of `synthaug.generators.learned.style.lesion_style`.
            available: (N, C) float, 1 for channels that are given and wanted.
            noise: standard normal, (N, *shape) for each of `noise_shapes`.
            boxes: where the result is wanted, everywhere if None; elsewhere the detail is left out.

        Returns:
            (N, C, X, Y, Z) model intensities; 0 in channels that are not available.
        """
        flags = available[:, :, None, None, None]
        coarse = _coarse(noise[-1], context.shape[2:])
        starts, features = [], []
        for slab in slabs(context):
            grain, classes = noise[0][:, :, slab], mask[:, :, slab]
            mean, std, fine = style_maps(style, classes, available)
            start = context[:, :, slab] + mean + std * coarse[:, :, slab]
            parts = (start, std, fine, flags.expand_as(start), grain * std, classes, classes.sum(1, keepdim=True))
            starts.append(start)
            features.append(space_to_depth_conv(parts, self.stem.weight, self.stem.bias))
        start, x = joined(starts), joined(features)
        skips = []
        for level, block in enumerate(self.encode[:-1]):
            x = block(x if level == 0 else self.down[level - 1](x))
            skips.append(x)
        x = self.middle(self.encode[-1](self.down[-1](x)))
        for level in reversed(range(len(self.decode))):
            x = added(skips[level], F.interpolate(self.up[level](x), scale_factor=2, mode="nearest"))
            if level < len(self.noise):
                x = self.noise[level](x, noise[level + 1])
            x = self.decode[level](x)
        detail = drawn_detail(self.to_head(F.silu(x)), (start, noise[0]), self.head, self.out, boxes)
        painted = [(box, _changed(start[..., *box], d, mask[..., *box], style, available)) for box, d in detail]
        return placed(painted, start) * flags


def _changed(start: Tensor, detail: Tensor, mask: Tensor, style: Tensor, available: Tensor) -> Tensor:
    """Change the painting's start by the network's answer, which is in standard deviations of the class."""
    _, std, _ = style_maps(style, mask, available)
    return start + detail * torch.where(mask.sum(1, keepdim=True) > 0, std, 0.2)


def _coarse(noise: Tensor, size: Sequence[int]) -> Tensor:
    """Make smooth noise of `COARSE` times unit variance: features of 8 and, mostly, 16 voxels.

    Args:
        noise: (N, C, x, y, z), standard normal, at 1/8 of the resolution.
        size: (X, Y, Z) to interpolate to.
    """
    coarser = F.avg_pool3d(noise, 2) * 8**0.5
    gain = 1.345 * COARSE
    return enlarged(0.5 * gain * noise, size).add_(enlarged(0.75**0.5 * gain * coarser, size))


class PatchCritic(nn.Module):
    """Judges whether lesions are real or painted, by patches at 1/2, 1/4 and 1/8 of the resolution, given the classes.

    One trunk with a verdict at each depth sees patches of about 8, 22 and 52 voxels, at the price of one critic.
    Spectral normalisation (Miyato et al. 2018, arXiv 1802.05957) bounds its features without a second backward pass;
    the verdicts are free to grow, or a critic this small would take thousands of steps to be heard.

    Args:
        channels: number C of image channels.
        classes: number K of classes.
        widths: features at 1/2, 1/4 and 1/8 of the resolution.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int] = (32, 64, 96)):
        super().__init__()
        before = (3 * channels + classes, *widths)
        self.down = nn.ModuleList(spectral_norm(nn.Conv3d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(before))
        self.deepen = nn.ModuleList(spectral_norm(nn.Conv3d(w, w, 3, padding=1)) for w in widths)
        self.verdict = nn.ModuleList(nn.Conv3d(w, 1, 1) for w in widths)

    @short_in_fp32
    def forward(self, image: Tensor, mask: Tensor, available: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Judge crops.

        Args:
            image: (N, C, X, Y, Z) model intensities, 0 in channels that are not available.
            mask: (N, K, X, Y, Z) float, one-hot classes.
            available: (N, C) float.

        Returns:
            Logits (N, 1, x, y, z) at each scale, finest first, and the features (N, width, x, y, z) behind them.
        """
        flags = available[:, :, None, None, None].expand_as(image)
        x = torch.cat((image, DETAIL_GAIN * fine_detail(image), mask, flags), 1)
        logits, features = [], []
        for down, deepen, verdict in zip(self.down, self.deepen, self.verdict, strict=True):
            x = FEATURE_GAIN * F.leaky_relu(down(x), 0.2)
            x = FEATURE_GAIN * F.leaky_relu(deepen(x), 0.2)
            logits.append(verdict(x))
            features.append(x)
        return logits, features
