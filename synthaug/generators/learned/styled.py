"""The base of the trained generators: a network with its prior over styles, for any subset of its channels."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.convolution import filled_boxes
from synthaug.generators.learned.flow_painter import FlowPainter
from synthaug.generators.learned.painter import Painter
from synthaug.generators.learned.style import StylePrior, lesion_style, present_classes
from synthaug.geometry import Box
from synthaug.precision import PRECISIONS, resolve_precision
from synthaug.random import seeded_noise
from synthaug.transfers import on_device

CROP_SIZES = tuple(range(32, 129, 16))
"""Each axis has its own: the network has no preferred size, and empty surroundings cost as much as a lesion."""

LOOK_SPREAD = 0.3
"""How far a lesion strays from the look that is asked for, as a share of how far it would stray from the mean's."""


class StyledGenerator(TumorGenerator):
    """Paints lesions by a trained network and its prior over styles.

    Args:
        painter: the network, trained for `channels` and `classes` in this order.
        prior: Gaussian over styles of these channels and classes.
        channels: canonical channel names that the network knows.
        classes: class names that it knows.
        truncation: how far styles stray from the mean patient's, 0 (always the mean) to 1 (as the patients do).
        crop_sizes: sides that the crops may have along each axis, ascending multiples of 16.
        batched: whether crops go through the network together. None: on accelerators, yes; on the CPU, where it saves
            nothing, no. Together, a crop's rounding depends on how many there are; one by one it does not.
        precision: what the network computes in: ``"bf16"``, ``"fp32"``, or ``"auto"``, bf16 where the device has
            instructions for it (see `synthaug.precision`). Painted lesions differ by 0.004 standard deviations of host
            tissue.

    Raises:
        ValueError: an unknown precision, network or prior made for other numbers of channels or classes, or crop sizes
            that do not fit.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    crop_sizes: tuple[int, ...]
    margin_vox = 6
    cubic = False
    needs_support = True

    def __init__(
        self,
        painter: Painter | FlowPainter,
        prior: StylePrior,
        channels: Sequence[str],
        classes: Sequence[str],
        truncation: float = 0.8,
        crop_sizes: Sequence[int] = CROP_SIZES,
        batched: bool | None = None,
        precision: str = "auto",
    ):
        given = (len(classes), len(channels))
        for part, has in (("painter", (painter.classes, painter.channels)), ("style prior", tuple(prior.shape[:2]))):
            if has != given:
                raise ValueError(f"{part}: made for {has} classes and channels, got {given}: {classes}, {channels}")
        if any(s % painter.factor for s in crop_sizes) or list(crop_sizes) != sorted({*crop_sizes}):
            raise ValueError(f"crop_sizes: expected ascending multiples of {painter.factor}, got {list(crop_sizes)}")
        if not 0 <= truncation <= 1.5:
            raise ValueError(f"truncation: expected 0 to 1.5, got {truncation}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
        painter = painter.eval().requires_grad_(False)
        self.painter = painter.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's lack it
        self.prior, self.batched, self.precision = prior, batched, precision
        self.channels, self.classes = tuple(channels), tuple(classes)
        self.truncation, self.crop_sizes = truncation, tuple(crop_sizes)
        self._channel_index = tuple(range(len(self.channels)))
        self._class_index = tuple(range(len(self.classes)))

    def bind(self, channels: tuple[str, ...], classes: tuple[str, ...]) -> "StyledGenerator":
        """Bind the generator to these channels (any subset of its own, in any order) and classes; shares the weights.

        Raises:
            ValueError: a channel or class that it does not know; both sides are named.
        """
        super().bind(channels, classes)
        bound = copy.copy(self)
        bound._channel_index = tuple(self.channels.index(name) for name in channels)
        bound._class_index = tuple(self.classes.index(name) for name in classes)
        return bound

    @torch.no_grad()
    def generate(
        self,
        context: Tensor,
        mask: Tensor,
        seeds: Sequence[int],
        donor: Tensor | None = None,
        support: Tensor | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """Paint N lesions; see `TumorGenerator.generate`. One seed gives one style and one texture.

        Without a `support` the crops are painted throughout. `style`, (N, K, C, 3) of `style_of`, asks for looks, from
        which the lesions stray by `LOOK_SPREAD` of what they would stray from the mean patient's; NaN asks for none.

        Raises:
            ValueError: a crop whose sides are not multiples of the network's factor, or shapes that do not fit.
        """
        self._check(context, mask)
        self._to(context.device)
        # a convolution rounds otherwise for another batch size: where a batch saves nothing, crops go one by one
        together = len(seeds) if self._batched(context.device) else 1
        rows = [slice(i, i + together) for i in range(0, len(seeds), together)]
        # the host may look at voxels where it need not wait for them
        look = support if context.device.type == "cpu" else None
        painted = [
            self._paint(
                context[r].float(),
                mask[r].float(),
                seeds[r],
                None if look is None else filled_boxes(look[r]),
                None if style is None else style[r],
            )
            for r in rows
        ]
        return painted[0] if len(painted) == 1 else torch.cat(painted)

    def style_of(self, image: Tensor, mask: Tensor, prior: StylePrior | None = None) -> Tensor:
        """Measure a lesion's style, to ask for it; what it does not show is as the prior expects it beside the rest.

        Args:
            image: (C, X, Y, Z) model intensities, of the channels that the generator is bound to.
            mask: (K, X, Y, Z) float, one-hot of the classes that it is bound to.
            prior: a copy of its prior on the CPU, where the device is not to be waited for.

        Returns:
            (K', C', 3) of all classes and channels that the network knows.
        """
        full, available = self._full(image[None].float(), self._channel_index, len(self.channels))
        classes, _ = self._full(mask[None].float(), self._class_index, len(self.classes))
        shown = present_classes(classes)[0, :, None, None] * available[0][None, :, None]
        return (prior or self.prior).completed(lesion_style(full, classes)[0], shown.expand(*self.prior.shape) > 0)

    def _paint(
        self,
        context: Tensor,
        mask: Tensor,
        seeds: Sequence[int],
        boxes: Sequence[Box] | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        shapes = self.painter.noise_shapes(context.shape[2:])
        counts = [self.prior.noise_size(), *(torch.Size(shape).numel() for shape in shapes)]
        z, *noise = seeded_noise(seeds, (sum(counts),), context.device).split(counts, 1)
        full, available = self._full(context, self._channel_index, len(self.channels))
        classes, _ = self._full(mask, self._class_index, len(self.classes))
        style = self.prior.sample(z, self.truncation)
        if wanted is not None:
            astray = style - self.prior.sample(torch.zeros_like(z))
            style = torch.where(wanted.isnan(), style, wanted.to(style) + LOOK_SPREAD * astray)
        precision = resolve_precision(self.precision, context.device)
        with torch.autocast(context.device.type, torch.bfloat16, enabled=precision.bf16):
            painted = self.painter(
                full,
                classes,
                style,
                available,
                [n.unflatten(1, shape) for n, shape in zip(noise, shapes, strict=True)],
                boxes,
            )
        if self._channel_index == tuple(range(len(self.channels))):
            return painted.float()
        return painted.index_select(1, on_device(self._channel_index, painted.device)).float()

    def _batched(self, device: torch.device) -> bool:
        return device.type != "cpu" if self.batched is None else self.batched

    def _check(self, context: Tensor, mask: Tensor) -> None:
        expected = (len(self._channel_index), len(self._class_index))
        if (context.shape[1], mask.shape[1]) != expected:
            raise ValueError(f"expected {expected} channels and classes, got {context.shape[1]} and {mask.shape[1]}")
        if wrong := [s for s in context.shape[2:] if s % self.painter.factor]:
            raise ValueError(f"crop sides: expected multiples of {self.painter.factor}, got {wrong}")

    def _to(self, device: torch.device) -> None:
        if self.prior.mean.device != device:
            self.painter.to(device)
            self.prior.to(device)

    @staticmethod
    def _full(x: Tensor, index: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
        """Spread (N, c, ...) over the places `index` of (N, size, ...), zeros elsewhere; and tell which were filled."""
        if tuple(index) == tuple(range(size)):
            return x, x.new_ones((len(x), size))
        place = on_device(index, x.device)
        out = x.new_zeros((len(x), size, *x.shape[2:])).index_copy_(1, place, x)
        return out, x.new_zeros((len(x), size)).index_fill_(1, place, 1)
