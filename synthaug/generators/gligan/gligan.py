"""Released GliGAN weights as a generator: one SwinUNETR per MRI channel, each painting a lesion into a 96^3 crop.

GliGAN: Ferreira et al., "How we won BraTS 2023 Adult Glioma challenge? Just faking it!", arXiv:2402.17317, weights at
doi.org/10.5281/zenodo.14001262. A channel's network was trained to restore a crop x, scaled to [-1, 1] by its own
minimum and maximum with the background at -1, from the crop with noise in place of the lesion and the lesion's regions:

    x = G([scaled(where(lesion, n, x)), regions]),  n ~ N(0, 1),  scaled(v) = 2 (v - min v) / (max' v - min v) - 1

where max' is the second largest of the values of v, as in the authors' inference (the largest then lies just above 1),
and the regions overlap, in the order tumour core, whole tumour, enhancing tumour and, from 2024, resection cavity.
Here the crops come as z-scores of host tissue with nothing in the lesion, so minimum and maximum are those of the
surroundings, and the output goes back by the very same two numbers. The authors instead fit a line through the crop's
border voxels, which needs host tissue there and changes the surroundings; and their training, but not their inference,
scatters some noise around the lesion too.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from einops import einsum
from torch import Tensor

from synthaug.channels import canonical_channels
from synthaug.generators.base import TumorGenerator
from synthaug.generators.gligan.checkpoint import fill, find_checkpoint, read_state
from synthaug.generators.gligan.legacy_swin import legacy_swin_unetr
from synthaug.geometry import opened
from synthaug.host import background_values
from synthaug.random import seeded_noise
from synthaug.transfers import on_device

CHANNELS = ("t1ce", "t1", "t2", "flair")
"""Canonical names of the channels that GliGAN was trained for."""

REGIONS: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    4: {"TC": ("NCR", "ET"), "WT": ("NCR", "ED", "ET"), "ET": ("ET",)},
    5: {"TC": ("NCR", "ET"), "WT": ("NCR", "ED", "ET"), "ET": ("ET",), "RC": ("RC",)},
    2: {"GTV": ("tumour",)},
}
"""Input channels of the network to its regions, in order, and their classes: BraTS 2023 and GoAT 2024 glioma; BraTS
2024 post-treatment glioma; BraTS 2024 meningioma, whose one class is called as in `synthaug.single`."""

STEM = "swinViT.patch_embed.proj.weight"


class GliGAN(TumorGenerator):
    """Paints lesions by the networks of the GliGAN release, one per channel.

    Crops go through the networks one by one: a 96^3 crop keeps a device busy by itself, and so a result cannot
    depend on who else is in the batch. Surroundings are scaled by the crop alone, and regions of one constant value
    (background, and what of the crop lies outside the volume) are set to -1 whatever their value.

    Args:
        folder: with the checkpoints where the release has them, ``t1ce/weights/generator_400000.pt`` and so on (the
            highest number is taken), or as ``t1ce/generator_400000.pt``, ``generator_t1ce.pt`` or ``t1ce.pt``; also
            ``.pth`` and ``.safetensors``, and BraTS 2023's names of the channels. Pickles are read as weights only.
        channels: which of t1ce, t1, t2 and flair to load; by default those that the folder has.
        regions: the label channels in order, each with the classes that it unites; by default the ones of `REGIONS`
            for the network's number of input channels.
        feature_size: features of the networks' first level.
        crop_sizes: sides of the crops in voxels, multiples of 32 from 64 on; the weights were trained at 96.

    Raises:
        FileNotFoundError: no folder, no checkpoint in it, or none of a channel that was asked for.
        ValueError: a damaged checkpoint, or one of another architecture (both are named); unknown channels; regions
            that do not fit the network; impossible crop sizes.
        ImportError: MONAI is not installed.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    crop_sizes: tuple[int, ...]

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        channels: Sequence[str] | None = None,
        regions: Mapping[str, Sequence[str]] | None = None,
        feature_size: int = 48,
        crop_sizes: Sequence[int] = (96,),
    ):
        self.crop_sizes = _checked_sizes(crop_sizes)
        files = _find_channels(Path(folder), channels)
        states = {channel: read_state(path) for channel, path in files.items()}
        stems = {channel: _stem(state, files[channel], feature_size) for channel, state in states.items()}
        if len(set(stems.values())) > 1:
            raise ValueError(f"{folder}: expected networks of one kind, got input channels {stems}")
        in_channels = next(iter(stems.values()))
        self.regions = _checked_regions(regions, in_channels, folder)
        self.channels = tuple(files)
        self.classes = tuple(dict.fromkeys(name for members in self.regions.values() for name in members))
        self._folder, self._networks = Path(folder), {}
        for channel, state in states.items():
            network = legacy_swin_unetr(in_channels, feature_size)
            fill(network, state, files[channel], f"SwinUNETR with {in_channels} input channels")
            self._networks[channel] = network

    def bind(self, channels: tuple[str, ...], classes: tuple[str, ...]) -> "GliGAN":
        """Bind the generator to these channels and classes; the networks are shared. See `TumorGenerator.bind`.

        Raises:
            ValueError: a channel or class that it does not know; both sides and the folder are named.
        """
        try:
            super().bind(channels, classes)
        except ValueError as error:
            raise ValueError(f"{error} (weights in {self._folder})") from error
        bound = copy.copy(self)
        bound.channels, bound.classes = tuple(channels), tuple(classes)
        bound._networks = {channel: self._networks[channel] for channel in channels}
        return bound

    @torch.no_grad()
    def generate(
        self,
        context: Tensor,
        mask: Tensor,
        seeds: Sequence[int],
        donor: Tensor | None = None,
        support: Tensor | None = None,
    ) -> Tensor:
        """Paint the lesions; see `TumorGenerator.generate`.

        Raises:
            ValueError: crops of other channels, classes or sizes than the generator's.
        """
        shapes = [(context.shape[1], *context.shape[2:]), (mask.shape[1], *mask.shape[2:])]
        side = context.shape[-1]
        expected = [(len(self.channels), side, side, side), (len(self.classes), side, side, side)]
        if shapes != expected or side not in self.crop_sizes:
            sizes = " or ".join(map(str, self.crop_sizes))
            raise ValueError(
                f"GliGAN: expected crops of {len(self.channels)} channels, {len(self.classes)} classes and side "
                f"{sizes}, got context {tuple(context.shape)} and mask {tuple(mask.shape)}"
            )
        for network in self._networks.values():
            network.to(context.device)
        return torch.stack([self._one(c, m, s) for c, m, s in zip(context, mask, seeds, strict=True)])

    def _one(self, context: Tensor, mask: Tensor, seed: int) -> Tensor:
        """Paint one crop (C, X, Y, Z) with its classes (K, X, Y, Z)."""
        lesion = mask.amax(0) > 0
        # drawn for every channel, so that a channel looks the same whichever others are there
        noise = seeded_noise([seed], (len(CHANNELS), *mask.shape[1:]), context.device)[0]
        noise = torch.stack([noise[CHANNELS.index(channel)] for channel in self.channels])
        unit, low, high = to_unit(context, lesion, noise)
        regions = self._united(mask)
        painted = []
        for channel, noisy in zip(self.channels, rescaled(torch.where(lesion, noise, unit)), strict=True):
            painted.append(self._networks[channel](torch.cat([noisy[None], regions])[None])[0, 0])
        return low + (torch.stack(painted).clamp(-1, 1) + 1) / 2 * (high - low)

    def _united(self, mask: Tensor) -> Tensor:
        """Unite classes (K, X, Y, Z) to regions (R, X, Y, Z)."""
        table = [[float(name in members) for name in self.classes] for members in self.regions.values()]
        return einsum(mask, on_device(table, mask.device, mask.dtype), "k x y z, r k -> r x y z").clamp(max=1)


def to_unit(context: Tensor, lesion: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale a crop to [-1, 1] by the minimum and maximum of its surroundings, with the background at -1.

    Args:
        context: (C, X, Y, Z) float32.
        lesion: (X, Y, Z) bool, left out.
        noise: (C, X, Y, Z), stands in where a constant value must not be taken for background.

    Returns:
        the scaled crop (C, X, Y, Z), minimum and maximum (C, 1, 1, 1); both 0 where there are no surroundings.
    """
    around = ~lesion
    low = torch.where(around, context, torch.inf).amin((1, 2, 3), keepdim=True)
    high = torch.where(around, context, -torch.inf).amax((1, 2, 3), keepdim=True)
    low, high = (torch.where(bound.isfinite(), bound, 0) for bound in (low, high))
    span = torch.where(high > low, high - low, 1)
    unit = (context - low) / span * 2 - 1
    return torch.where(_background(context, lesion, noise), -1.0, unit), low, high


def _background(context: Tensor, lesion: Tensor, noise: Tensor) -> Tensor:
    """Find where each channel is constant over a region, (C, X, Y, Z): background, and outside the volume."""
    known = lesion.expand_as(context)
    found = torch.zeros_like(known)
    # two values at most: the background's own, and that of voxels outside the volume where it is another
    for _ in range(2):
        value, constant = background_values(torch.where(known | found, noise, context))
        flat = opened((context == value[:, None, None, None]) & ~known)
        found = found | (flat & ~constant[:, None, None, None])
    return found


def rescaled(noisy: Tensor) -> Tensor:
    """Scale channels (C, X, Y, Z) so that their minimum is -1 and their second largest value 1."""
    low, high = noisy.amin((1, 2, 3), keepdim=True), noisy.amax((1, 2, 3), keepdim=True)
    second = torch.where(noisy < high, noisy, -torch.inf).amax((1, 2, 3), keepdim=True)
    span = torch.where(second > low, second - low, 1)
    return (noisy - low) / span * 2 - 1


def _find_channels(folder: Path, channels: Sequence[str] | None) -> dict[str, Path]:
    """Find the checkpoint of every channel wanted."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected the one with GliGAN's checkpoints")
    wanted = CHANNELS if channels is None else canonical_channels(channels)
    if unknown := [name for name in wanted if name not in CHANNELS]:
        raise ValueError(f"GliGAN knows the channels {', '.join(CHANNELS)}; got {', '.join(unknown)}")
    found = {name: path for name in wanted if (path := find_checkpoint(folder, name))}
    missing = [name for name in wanted if name not in found]
    if not found or (channels is not None and missing):
        name = missing[0]
        raise FileNotFoundError(
            f"{folder}: no checkpoint of {', '.join(missing)}; expected for example {name}/weights/generator_400000.pt "
            f"or {name}.safetensors"
        )
    return found


def _stem(state: Mapping[str, Tensor], path: Path, feature_size: int) -> int:
    """Count the input channels of a state's network, after a check that it is a SwinUNETR of that size."""
    stem = state.get(STEM)
    if stem is None or stem.ndim != 5:
        keys = ", ".join(sorted(state)[:3]) or "none"
        raise ValueError(f"{path}: expected the weights of a SwinUNETR with {STEM}, got the weights {keys}, ...")
    if stem.shape[0] != feature_size:
        raise ValueError(f"{path}: expected a SwinUNETR of feature_size {feature_size}, got {stem.shape[0]}")
    return stem.shape[1]


def _checked_regions(
    regions: Mapping[str, Sequence[str]] | None, in_channels: int, folder: str | os.PathLike
) -> dict[str, tuple[str, ...]]:
    if regions is None and in_channels not in REGIONS:
        known = ", ".join(f"{n} ({', '.join(r)})" for n, r in REGIONS.items())
        raise ValueError(
            f"{folder}: expected networks with input channels {known}, got {in_channels}; give their regions"
        )
    chosen = {name: tuple(members) for name, members in (regions or REGIONS[in_channels]).items()}
    if len(chosen) != in_channels - 1:
        raise ValueError(
            f"regions: expected {in_channels - 1} for networks of {in_channels} input channels, got {', '.join(chosen)}"
        )
    return chosen


def _checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if not sizes or any(size < 64 or size % 32 for size in sizes) or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"crop_sizes: expected ascending multiples of 32 from 64 on, got {tuple(sizes)}")
    return tuple(sizes)
