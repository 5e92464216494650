"""The diffusion generator's network: the GAN's painter, told the time on the path and the length of the next step."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.learned.convolution import (
    Conv3d,
    activated,
    added,
    drawn_detail,
    joined,
    placed,
    slabs,
    space_to_depth_conv,
)
from synthaug.generators.learned.flow import Scene, preconditioning
from synthaug.generators.learned.painter import Painter, TwoConvolutions, hidden_of
from synthaug.geometry import Box
from synthaug.precision import short_in_fp32

FREQUENCIES = 8
"""Of the sines and cosines that a time is described by."""

HALO_SCALE = 0.2
"""Unit of the network's answer outside the lesion, in model intensities: little changes there."""


class TimedResidual(TwoConvolutions):
    """A residual block whose features are scaled and shifted by what the time says; starts as a plain one."""

    def __init__(self, width: int, embedding: int, hidden: int | None = None):
        super().__init__(width, hidden)
        self.modulation = nn.Linear(embedding, 2 * (hidden or width))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Change x (N, width, X, Y, Z) as embedded (N, embedding) says; of the same shape."""
        scale, shift = self.modulation(embedded)[:, :, None, None, None].to(x.dtype).chunk(2, 1)
        modulated = torch.addcmul(shift, self.first(F.silu(x)), 1 + scale)
        return added(x, self.second(activated(modulated)))


@dataclass(frozen=True)
class Known:
    """A denoiser's intermediate results of a scene, for all states on the path.

    Attributes:
        mean: (N, C, X, Y, Z) the image of a lesion that is its class's mean throughout, in model intensities.
        features: (N, width, X / 2, Y / 2, Z / 2) the stem's answer to all that is not the state.
    """

    mean: Tensor
    features: Tensor


class Denoiser(nn.Module):
    """Predicts a lesion from its noised state: state, context, classes, style, time in, all channels out.

    The architecture is `Painter`'s, without noise of its own: a space-to-depth stem, a U-Net with additive skips at
    half resolution and below, a thin head at full resolution. Beside the time it is given the stride, how far the
    next step goes, as shortcut models are (Frans et al. 2024, arXiv 2410.12557). Two are in use: 0 asks for the mean of
    all lesions that could be behind the state, which is what solvers want; t, which is the jump to the path's end, for
    a single one of them.

    Args:
        channels: number C of image channels.
        classes: number K of classes.
        widths: features at 1/2, 1/4, ... of the resolution.
        head: features of the head; more than 2 C.
        embedding: features of time and stride.
        hidden: features inside each block, as `Painter`'s.
    """

    matrices: Tensor

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int] = (32, 64, 96, 128),
        head: int = 16,
        embedding: int = 64,
        hidden: Sequence[int] | None = None,
    ):
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"widths: expected two levels or more, got {tuple(widths)}")
        if head <= 2 * channels:
            raise ValueError(f"head: expected more than two features a channel, got {head} for {channels}")
        self.channels, self.classes = channels, classes
        self.widths, self.head_width, self.embedding = tuple(widths), head, embedding
        self.hidden = hidden_of(widths, hidden)
        down, up = self.hidden[: len(widths)], self.hidden[len(widths) :]
        self.embed = nn.Sequential(
            nn.Linear(4 * FREQUENCIES, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.stem = Conv3d(8 * (5 * channels + classes + 1), widths[0], 1)
        self.down = nn.ModuleList(Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.encode = nn.ModuleList(TimedResidual(w, embedding, h) for w, h in zip(widths, down, strict=True))
        self.middle = TimedResidual(widths[-1], embedding)
        self.up = nn.ModuleList(Conv3d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.decode = nn.ModuleList(TimedResidual(w, embedding, h) for w, h in zip(widths[:-1], up, strict=True))
        self.to_head = Conv3d(widths[0], head - 2 * channels, 1)
        self.head = Conv3d(head, head, 3, padding=1)
        self.out = Conv3d(head, channels, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.3)
        self.factor = 2 ** len(widths)
        # in three dimensions, for modules lay out whatever has four as images
        self.register_buffer("matrices", torch.eye(channels).repeat(2 * classes, 1, 1))

    @property
    def mixing(self) -> Tensor:
        """(2, K, C, C) of `synthaug.generators.learned.flow.channel_mixing`: of the noise that it was trained with."""
        return self.matrices.unflatten(0, (2, self.classes))

    @short_in_fp32
    def forward(
        self,
        scene: Scene,
        state: Tensor,
        time: Tensor,
        stride: Tensor,
        boxes: Sequence[Box] | None = None,
        known: Known | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the end of the path.

        Args:
            scene: with crops whose sides are multiples of `factor`.
            state: (N, C, X, Y, Z) u_t, whitened, 0 outside the lesion.
            time: (N,) t, 0 to 1.
            stride: (N,) 0 to 1.
            boxes: where an answer is wanted, everywhere if None; elsewhere it is 0.
            known: what `known` made of the scene; made here where not given.

        Returns:
            u_0 or its expectation (N, C, X, Y, Z) float32, meaningful inside the lesion, and the tissue around it as
            the lesion leaves it, (N, C, X, Y, Z) float32 in model intensities, meaningful outside.
        """
        known = known or self.known(scene)
        image = torch.addcmul(known.mean, scene.std, state)
        answer = self._answer(known, image, self.embed(torch.cat((fourier(time), fourier(stride)), 1)), boxes)
        skip, scale = preconditioning(time, stride)
        around = torch.add(scene.context, answer, alpha=HALO_SCALE).mul_(scene.flags)
        return (skip * state).addcmul_(scale, answer), around

    def known(self, scene: Scene) -> Known:
        """Compute what does not depend on the state, most of the stem's work, so that it is done once."""
        flags = scene.flags.expand_as(scene.context)
        parts = (scene.std, scene.fine, flags, scene.mean, scene.mask, scene.lesion)
        return Known(scene.context + scene.mean, self._stem(parts, self.stem.weight[:, self._image :], self.stem.bias))

    @property
    def _image(self) -> int:
        """Number of the stem's first inputs, which are the image's."""
        return 8 * self.channels

    def _stem(self, parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
        return joined([space_to_depth_conv([p[:, :, slab] for p in parts], weight, bias) for slab in slabs(parts[0])])

    def _answer(self, known: Known, image: Tensor, embedded: Tensor, boxes: Sequence[Box] | None) -> Tensor:
        x = added(known.features, self._stem((image,), self.stem.weight[:, : self._image], None))
        skips = []
        for level, block in enumerate(self.encode[:-1]):
            x = block(x if level == 0 else self.down[level - 1](x), embedded)
            skips.append(x)
        x = self.middle(self.encode[-1](self.down[-1](x), embedded), embedded)
        for level in reversed(range(len(self.decode))):
            x = added(skips[level], F.interpolate(self.up[level](x), scale_factor=2, mode="nearest"))
            x = self.decode[level](x, embedded)
        detail = drawn_detail(self.to_head(F.silu(x)), (image, known.mean), self.head, self.out, boxes)
        return placed(detail, torch.zeros_like(image))

    @torch.no_grad()
    def start_from(self, other: "Denoiser | Painter") -> None:
        """Copy trained weights; of a painter, all but those that its noise went through.

        Raises:
            ValueError: a network of another shape; both sides are named.
        """
        names = ["channels", "classes", "widths", "head_width", "hidden"]
        names += ["embedding"] if isinstance(other, Denoiser) else []
        ours, theirs = ({name: getattr(network, name) for name in names} for network in (self, other))
        if ours != theirs:
            raise ValueError(f"expected a network of {ours}, got one of {theirs}")
        if isinstance(other, Denoiser):
            self.load_state_dict(other.state_dict())
            return
        state = {k: v for k, v in other.state_dict().items() if not k.startswith("noise.")}
        # the painter's fifth group of inputs was noise; here it is the class means, which start unseen
        first = 8 * 4 * self.channels
        state["stem.weight"][:, first : first + 8 * self.channels] = 0
        self.load_state_dict(self.state_dict() | state)


def fourier(time: Tensor) -> Tensor:
    """Encode times (N,) in [0, 1] as sines and cosines (N, 2 * FREQUENCIES) of half a turn to 64."""
    turns = math.pi * time[:, None] * 2 ** torch.arange(FREQUENCIES, device=time.device)
    return torch.cat((turns.sin(), turns.cos()), 1)
