"""Losses of painters: the critic's hinge, and agreement with the style that was asked for.

Each term is a scalar tensor; below them, the losses of the critic and the painter on a batch of
`synthaug.training.generator_batches.prepare`.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from synthaug.generators.learned.painter import PatchCritic
from synthaug.generators.learned.style import class_moments, lesion_style, moving_average, present_classes
from synthaug.geometry import triple


def region_mean(values: Tensor, region: Tensor) -> Tensor:
    """Average (N, C, x, y, z) values over (N, 1, X, Y, Z) region, brought to their resolution by max-pooling."""
    weight = F.adaptive_max_pool3d(region, values.shape[2:])
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp(min=1)


def critic_hinge(real: Sequence[Tensor], fake: Sequence[Tensor], real_region: Tensor, fake_region: Tensor) -> Tensor:
    """Compute the critic's hinge (Lim & Ye 2017, arXiv 1705.02894), over patches that see lesion, mean of scales."""
    terms = [
        region_mean(F.relu(1 - r.float()), real_region) + region_mean(F.relu(1 + f.float()), fake_region)
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def painter_hinge(fake: Sequence[Tensor], region: Tensor) -> Tensor:
    """Compute the painter's side of the hinge: minus the critic's verdict, mean of scales."""
    return -torch.stack([region_mean(f.float(), region) for f in fake]).mean()


def style_loss(image: Tensor, mask: Tensor, style: Tensor, available: Tensor) -> Tensor:
    """Measure the distance of a painted lesion's statistics from the style asked for.

    The mean is measured in the style's standard deviations, at least 0.3; spread and fine texture as logarithms.

    Args:
        image: (N, C, X, Y, Z) painted crops.
        mask: (N, K, X, Y, Z) float.
        style: (N, K, C, 3) asked for.
        available: (N, C) float.
    """
    got = lesion_style(image, mask)
    scale = style[..., 1:2].exp().clamp(min=0.3)
    distance = torch.cat(((got[..., :1] - style[..., :1]) / scale, got[..., 1:] - style[..., 1:]), -1).abs()
    weight = present_classes(mask)[:, :, None, None] * available[:, None, :, None]
    return (distance * weight).sum() / (weight.sum() * distance.shape[-1]).clamp(min=1)


def band_loss(image: Tensor, real: Tensor, mask: Tensor, available: Tensor) -> Tensor:
    """Compare the log power between averages over 3 and 9 voxels, per class and channel, from the real lesion's.

    The shapes are `style_loss`'s; real is (N, C, X, Y, Z).
    """

    def middle(x: Tensor) -> Tensor:
        smooth = moving_average(x)
        return class_moments(smooth - moving_average(smooth, dilation=3), mask)[1].clamp(min=1e-4).log()

    weight = present_classes(mask)[:, :, None] * available[:, None, :]
    return ((middle(image) - middle(real)).abs() * weight).sum() / weight.sum().clamp(min=1)


def lowpass_l1(image: Tensor, real: Tensor, lesion: Tensor, window: int = 5) -> Tensor:
    """Compute the L1 between moving averages inside the lesion (N, 1, X, Y, Z): the layout, not the texture."""
    smooth = moving_average(image - real, window)
    return (smooth.abs() * lesion).sum() / (lesion.sum() * image.shape[1]).clamp(min=1)


def shell(lesion: Tensor, width: int = 3) -> Tensor:
    """Mark the `width` voxels around a lesion (N, 1, X, Y, Z), lesion excluded."""
    grown = lesion
    for axis in range(3):
        window = [2 * width + 1 if a == axis else 1 for a in range(3)]
        grown = F.max_pool3d(grown, window, stride=1, padding=[w // 2 for w in window])
    return grown - lesion


def feature_loss(fake: Sequence[Tensor], real: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Compare the critic's features, averaged over each class, of a painted and a real lesion of one mask.

    Averages over a class compare textures, not voxels, so they do not punish another draw of the same texture.
    """
    terms = []
    for f, r in zip(fake, real, strict=True):
        weight = F.adaptive_avg_pool3d(mask, triple(f.shape[2:]))
        got, wanted = (class_moments(x.float(), weight)[0] for x in (f, r))
        present = (reduce(weight, "n k x y z -> n k", "sum") > 1).to(got.dtype)[:, :, None]
        terms.append(((got - wanted.detach()).abs() * present).sum() / (present.sum() * f.shape[1]).clamp(min=1))
    return torch.stack(terms).mean()


def masked_l1(image: Tensor, real: Tensor, region: Tensor) -> Tensor:
    """Average the absolute difference inside a region (N, 1, X, Y, Z)."""
    return ((image - real).abs() * region).sum() / (region.sum() * image.shape[1]).clamp(min=1)


def critic_loss(critic: PatchCritic, batch: Mapping[str, Tensor], fake: Tensor) -> Tensor:
    """Compute the critic's hinge on real and painted crops, judged together."""
    images = torch.cat((batch["real_view"], fake.detach()))
    masks = torch.cat((batch["real_mask"], batch["mask"]))
    logits, _ = critic(images, masks, batch["available"].repeat(2, 1))
    real, painted = zip(*(verdict.chunk(2) for verdict in logits), strict=True)
    return critic_hinge(real, painted, batch["real_lesion"], batch["lesion"])


def painter_parts(
    critic: PatchCritic | None, batch: Mapping[str, Tensor], painted: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """Compute the parts of the painter's loss; only a lesion in its own place is compared with the real crop."""
    mask, available, own = batch["mask"], batch["available"], batch["own"]
    whole = batch["context"] + painted * batch["lesion"]
    parts = {
        "style": style_loss(whole, mask, batch["style"], available),
        "band": band_loss(whole, batch["real"], mask * own, available),
        "lowpass": lowpass_l1(whole, batch["real"], batch["lesion"] * own),
        "halo": masked_l1(painted, batch["host"], shell(batch["lesion"])),
    }
    if critic is not None:
        logits, features = critic(fake, mask, available)
        with torch.no_grad():
            _, wanted = critic(batch["real_view"], batch["real_mask"], available)
        parts["adversarial"] = painter_hinge(logits, batch["lesion"])
        parts["features"] = feature_loss(features, wanted, mask * own)
    return parts


def weighted(parts: Mapping[str, Tensor], weights: object) -> Tensor:
    """Sum the parts, each times the attribute of `weights` that has its name."""
    return sum(getattr(weights, name) * value for name, value in parts.items())
