"""Spatial and intensity augmentation of patches, each sample a function of its own seed.

They are two: shapes change where patches are cut, in the loader; intensities change on the training's device, after
tumours went in, so that an inserted lesion has the noise, blur and contrast of its patch and is not the sharpest thing
in it. Intensities change inside the body only: what was exactly 0, the background of z-scored volumes, is 0 afterwards,
so that background can still be told from tissue. Channels draw their intensity changes separately.
"""

from collections.abc import Hashable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from monai.transforms import Compose, Rand3DElasticd, RandAffined, RandFlipd
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from synthaug.config import Section
from synthaug.frames import flipped
from synthaug.geometry import triple
from synthaug.random import stream
from synthaug.segmentation.intensities import (
    FIELD_NUMBERS,
    Change,
    bias_field,
    blur,
    brightness,
    change_intensities,
    contrast,
    gamma,
    inverted_gamma,
    low_resolution,
    noise,
)

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
        carvemix: probability that a lesion of another training patient, with what is around it, replaces what is at
            its place (`synthaug.training.carvemix`).
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
    carvemix: Share = 0.0
    mixup: PositiveFloat | None = None

    @model_validator(mode="after")
    def _ordered(self):
        if self.scale[0] > self.scale[1] or self.affine + self.elastic > 1:
            raise ValueError("expected scale as (least, greatest), and affine + elastic at most 1")
        return self


class SpatialAugmentation:
    """Changes the shapes in single patches.

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

    def __call__(self, image: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
        """Change one sample.

        Args:
            image: (C, X, Y, Z) float32 of `region_size`, background exactly 0.
            label: (X, Y, Z) integer.
            seed: seed of the sample.

        Returns:
            Image (C, x, y, z), label (x, y, z) of the patch size, and the map (3, 4) of the patch's voxel indices to
            those of what was given; it leaves out the bends of an elastic change.
        """
        kind, seeds, matrix = self.spatial(seed), _seeds(seed), np.eye(4)
        data: dict[Hashable, Any] = {"image": image, "label": label[None].float()}
        if kind is not None:
            data = self._spatial[kind].set_random_state(int(seeds[0]))(data)
            matrix = self._matrix(kind, label.shape)
        data = self._flips.set_random_state(int(seeds[1]))(data)
        axes = [axis for axis, flip in enumerate(self._flips.transforms) if flip._do_transform]
        matrix = flipped(matrix[:3], self.patch_size, axes)
        return _plain(data["image"]), _plain(data["label"])[0].round().to(label.dtype), matrix

    def _matrix(self, kind: str, size: Sequence[int]) -> np.ndarray:
        """(4, 4) map of the patch's voxel indices to those of a region of `size`; MONAI's counts from the middles."""
        transform = self._spatial[kind]
        change = transform.rand_affine if isinstance(transform, RandAffined) else transform.rand_3d_elastic
        matrix = np.asarray(change.rand_affine_grid.get_transformation_matrix(), np.float64)
        middle, target = (np.array(size) - 1) / 2, (np.array(self.patch_size) - 1) / 2
        matrix[:3, 3] += middle - matrix[:3, :3] @ target
        return matrix

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


class IntensityAugmentation:
    """Changes the intensities of batches of patches, on the device that they are on.

    Args:
        config: what is done how often.
        masked: whether the background is exactly 0, and is to stay so.
    """

    def __init__(self, config: AugmentationConfig, masked: bool = True):
        self.masked = masked
        self._changes: tuple[tuple[float, int, Change], ...] = (
            (config.noise, 2, noise),
            (config.blur, 1, blur),
            (config.bias_field, FIELD_NUMBERS, bias_field),
            (config.brightness, 1, brightness),
            (config.contrast, 1, contrast),
            (config.low_resolution, 1, low_resolution),
            (config.gamma / 3, 1, inverted_gamma),
            (config.gamma * 2 / 3, 1, gamma),
        )

    def __call__(self, image: Tensor, seeds: Sequence[int]) -> Tensor:
        """Change a batch.

        Args:
            image: (B, C, X, Y, Z) float32, background exactly 0, which stays 0.
            seeds: of the samples, those of their spatial changes.
        """
        return change_intensities(image, seeds, self._changes, self.masked)


def _seeds(seed: int) -> np.ndarray:
    """Draw two seeds of a sample: of its affine or elastic change, and of its flips."""
    return np.random.SeedSequence((seed, 1)).generate_state(2) % 2**31


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
