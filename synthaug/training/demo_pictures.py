"""Pictures of painted lesions: the middle slice of fixed crops, each channel a row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from synthaug.generators.learned.painter import Painter
from synthaug.random import seeded_noise

QUANTILES = (0.02, 0.995)


@torch.no_grad()
def demo_picture(painter: Painter, batch: Mapping[str, Tensor], seed: int) -> np.ndarray:
    """Draw panels of painted and real lesions.

    Args:
        painter: network that paints.
        batch: samples of `synthaug.training.lesion_crops.LesionCrops`, collated, with ``lesion`` (N, 1, X, Y, Z).
        seed: seed of the noise.

    Returns:
        (height, width) uint8: for each crop one row a channel, for each row the host with the lesion taken out, the
        lesion from two noises, the real crop and the classes. Grey values run from the 2nd to the 99.5th percentile
        of the crop and channel.
    """
    size, count = batch["host"].shape[2:], len(batch["host"])
    context = batch["host"] * (1 - batch["lesion"])
    panels = [context]
    for offset in range(2):
        seeds = [seed + offset * count + i for i in range(count)]
        noise = [seeded_noise(seeds, s, context.device) for s in painter.noise_shapes(size)]
        painted = painter(context, batch["mask"], batch["style"], batch["available"], noise)
        panels.append(context + painted * batch["lesion"])
    panels.append(batch["real"])
    grid = torch.stack(panels)[..., size[2] // 2]
    low, high = _limits(panels[1:], count)
    grey = ((grid - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
    levels = torch.arange(1, batch["mask"].shape[1] + 1, device=context.device) / batch["mask"].shape[1]
    classes = (batch["mask"] * levels[:, None, None, None]).sum(1, keepdim=True)[..., size[2] // 2]
    grey = torch.cat((grey, classes.expand(grey.shape[1:])[None])) * 255
    return rearrange(grey, "p n c x y -> (n c x) (p y)").to(torch.uint8).cpu().numpy()


def _limits(panels: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Find the darkest and brightest grey value of each crop and channel, (count, C, 1, 1)."""
    values = rearrange(torch.stack(list(panels)), "p n c x y z -> n c (p x y z)")
    low, high = torch.quantile(values[:, :, :: values.shape[2] // 50_000 + 1], torch.tensor(QUANTILES), dim=2)
    return low[..., None, None], high[..., None, None]


def save_picture(picture: np.ndarray, path: str | Path) -> None:
    """Write a (height, width) uint8 picture as PNG."""
    from matplotlib.image import imsave

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    imsave(path, picture, cmap="gray", vmin=0, vmax=255)
