"""Spatial and intensity augmentation of patches: MONAI's transforms, each sample a function of its own seed.

Intensities change inside the body only: what was exactly 0, the background of z-scored volumes, is 0 afterwards, so
that background can still be told from tissue. Channels draw their intensity changes separately.
"""

from collections.abc import Hashable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    Rand3DElasticd,
    RandAdjustContrast,
    RandAffined,
    RandBiasField,
    RandFlipd,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandomizableTransform,
    RandScaleIntensityFixedMean,
    RandShiftIntensity,
    RandSimulateLowResolution,
    Transform,
)
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from synthaug.config import Section
from synthaug.geometry import triple
from synthaug.host import scored_tissue
from synthaug.random import stream

Share = Annotated[float, Field(ge=0, le=1)]
REACH = 1.5
"""Side of the region that a turned patch is cut from, in patch sides; beyond it is background."""


class AugmentationConfig(Section):
    """Probabilities per sample (intensities: per channel) and ranges, those of nnU-Net where it has them.

    Attributes:
        affine: probability of rotation and scaling together.
        rotation_deg: greatest rotation about each axis.
        scale: range of the magnification along each axis.
        elastic: probability of an elastic change of shape; it turns and scales as well.
        elastic_vox: about the greatest displacement.
        flip: probability per axis.
        gamma: probability; exponents 0.7 to 1.5, of the image or, in a third of the draws, of its inverse.
        brightness: probability of a shift by up to 0.3 standard deviations.
        contrast: probability of 0.75 to 1.25 times the contrast about the mean.
        noise: probability of Gaussian noise of up to 0.1 standard deviations.
        blur: probability of a Gaussian of 0.5 to 1 voxels.
        bias_field: probability of a smooth factor, a polynomial of degree 3.
        low_resolution: probability of sampling down to 0.5 to 1 of the resolution and up again.
        mixup: alpha of the Beta distribution that mixes pairs of a batch (Zhang et al. 2018); None for no mixup.
    """

    affine: Share = 0.2
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: tuple[PositiveFloat, PositiveFloat] = (0.85, 1.15)
    elastic: Share = 0.1
    elastic_vox: PositiveFloat = 3.0
    flip: Share = 0.5
    gamma: Share = 0.2
    brightness: Share = 0.15
    contrast: Share = 0.15
    noise: Share = 0.1
    blur: Share = 0.1
    bias_field: Share = 0.1
    low_resolution: Share = 0.15
    mixup: PositiveFloat | None = None

    @model_validator(mode="after")
    def _ordered(self):
        if self.scale[0] > self.scale[1] or self.affine + self.elastic > 1:
            raise ValueError("expected scale as (least, greatest), and affine + elastic at most 1")
        return self


class Augmentation:
    """Spatial and intensity augmentation of single patches.

    Args:
        config: probabilities and ranges.
        patch_size: (X, Y, Z) of an augmented patch, in voxels.
    """

    def __init__(self, config: AugmentationConfig, patch_size: tuple[int, int, int]):
        self.config, self.patch_size = config, triple(patch_size)
        self._spatial: dict[str, RandAffined | Rand3DElasticd]
        self._spatial = {"affine": self._affine(), "elastic": self._elastic()}
        keys = ("image", "label")
        self._flips = Compose([RandFlipd(keys, prob=config.flip, spatial_axis=axis) for axis in range(3)])
        self._intensity = Compose(_intensity_transforms(config))

    def spatial(self, seed: int) -> str | None:
        """Draw the spatial transform of a sample: affine, elastic or None."""
        draw = stream(seed, 0).random()
        if draw < self.config.affine:
            return "affine"
        return "elastic" if draw < self.config.affine + self.config.elastic else None

    def region_size(self, seed: int) -> tuple[int, int, int]:
        """Tell the size of the region that a sample's patch is made from."""
        if self.spatial(seed) is None:
            return self.patch_size
        return triple(2 * round(REACH * side / 2) + side % 2 for side in self.patch_size)

    def __call__(self, image: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Augment one sample.

        Args:
            image: (C, X, Y, Z) float32 of `region_size`, background exactly 0.
            label: (X, Y, Z) integer.
            seed: seed of the sample.

        Returns:
            Image (C, x, y, z), label (x, y, z) of the patch size, and the image before its intensities changed.
        """
        kind, seeds = self.spatial(seed), np.random.SeedSequence((seed, 1)).generate_state(3) % 2**31
        data: dict[Hashable, Any] = {"image": image, "label": label[None].float()}
        if kind is not None:
            data = self._spatial[kind].set_random_state(int(seeds[0]))(data)
        data = self._flips.set_random_state(int(seeds[1]))(data)
        turned = _plain(data["image"])
        changed = self._intensities(turned, int(seeds[2]))
        return changed, _plain(data["label"])[0].round().to(label.dtype), turned

    def _intensities(self, image: Tensor, seed: int) -> Tensor:
        self._intensity.set_random_state(seed)
        channels = [_plain(self._intensity(channel[None])) for channel in image]
        return torch.where(scored_tissue(image), torch.cat(channels), 0)

    def _geometry(self) -> dict:
        low, high = self.config.scale
        return {
            "rotate_range": [float(np.deg2rad(self.config.rotation_deg))] * 3,
            # of the sampling grid: 1 / magnification
            "scale_range": [(1 / high - 1, 1 / low - 1)] * 3,
            "mode": ("bilinear", "nearest"),
            "padding_mode": "zeros",
            "prob": 1.0,
        }

    def _affine(self) -> RandAffined:
        return RandAffined(("image", "label"), spatial_size=self.patch_size, **self._geometry())

    def _elastic(self) -> Rand3DElasticd:
        # MONAI smooths uniform noise, which leaves about 1 / 170 of it at sigma 6; 2.5 deviations are the greatest
        magnitude = 170 / 2.5 * self.config.elastic_vox
        return Rand3DElasticd(
            ("image", "label"), (5, 7), (0.3 * magnitude, magnitude), spatial_size=self.patch_size, **self._geometry()
        )


class AboveZero(RandomizableTransform):
    """Applies a transform for positive intensities to z-scores, by way of their distance from the least of them."""

    def __init__(self, transform: RandomizableTransform):
        super().__init__()
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "AboveZero":
        """Seed the transform within."""
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, image: Tensor) -> Tensor:
        """Transform an image of any shape."""
        least = image.min()
        changed = _plain(self.transform(image - least)) + least
        return changed if self.transform._do_transform else image  # there and back again would round


def _intensity_transforms(config: AugmentationConfig) -> list[Transform]:
    """Make the transforms of intensities, in nnU-Net's order, with a bias field after blur."""
    return [
        RandGaussianNoise(config.noise, std=0.1),
        RandGaussianSmooth((0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=config.blur),
        AboveZero(RandBiasField(degree=3, coeff_range=(-0.1, 0.1), prob=config.bias_field)),
        RandShiftIntensity(0.3, prob=config.brightness),
        RandScaleIntensityFixedMean(prob=config.contrast, factors=0.25, preserve_range=True),
        RandSimulateLowResolution(config.low_resolution, zoom_range=(0.5, 1.0)),
        RandAdjustContrast(config.gamma / 3, (0.7, 1.5), invert_image=True, retain_stats=True),
        RandAdjustContrast(config.gamma * 2 / 3, (0.7, 1.5), retain_stats=True),
    ]


def _plain(image: Tensor) -> Tensor:
    """Take MONAI's metadata off a tensor."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image


def mixup(image: Tensor, target: Tensor, alpha: float, seed: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mix each sample of a batch with another one (Zhang et al. 2018); MONAI's `MixUp` keeps its weights on the CPU.

    Args:
        image: (B, C, X, Y, Z).
        target: (B, K, X, Y, Z), encoded.
        alpha: parameter of Beta(alpha, alpha), from which the shares of the first come.
        seed: seed of the shares and the pairs.
    """
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(len(image))).to(image.device)
    share = torch.from_numpy(rng.beta(alpha, alpha, len(image)).astype(np.float32)).to(image.device)
    share = share[:, None, None, None, None]
    return share * image + (1 - share) * image[order], share * target + (1 - share) * target[order]
