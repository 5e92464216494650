"""The path between noise and a lesion that the diffusion generator follows.

A lesion is described by how it departs from the statistics asked for: in each voxel and channel u = (x - m) / s, with
m and s the mean and standard deviation of the voxel's class in the lesion's *style*
(`synthaug.generators.learned.style`). In these units the path is the straight one of flow matching (Lipman et al. 2023,
arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003, equation 1),

    u_t = (1 - t) u_0 + t n,        0 <= t <= 1,

from the lesion u_0 to noise n of unit variance. So sampling starts from an *informed prior*, the class's mean and
spread as one patient has them, as PriorGrad (Lee et al. 2022, arXiv 2106.06406) does with the statistics of speech; and
n has the texture of tissue, not of white noise: as much fine detail as the style says, the rest spread evenly over
four octaves, and channels as correlated as in real lesions of the class. Each band of the image is then as strong in
the noise as in the lesion, what is bright on T2 tends to be bright on FLAIR, none of it has to be made from nothing,
and few steps suffice. Tissue outside the lesion is known and never noised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.generators.learned.style import style_maps

OCTAVES = 4
"""Smooth noise is drawn at 1/2, 1/4, 1/8 and 1/16 of the resolution, with equal variances."""

WHITE_DETAIL = (26 / 27) ** 0.5
"""What `fine_detail` leaves of white noise's standard deviation."""

SMOOTH_DETAIL = 0.25
"""What it leaves of the octaves'."""


@dataclass(frozen=True)
class Scene:
    """N crops with all that does not change along the path. Maps are images, 0 outside the lesion.

    Attributes:
        context: (N, C, X, Y, Z) host in model intensities, 0 in the lesion and in channels that are not available.
        mask: (N, K, X, Y, Z) float, one-hot classes.
        lesion: (N, 1, X, Y, Z) float.
        mean: (N, C, X, Y, Z) the style's mean, in model intensities.
        std: (N, C, X, Y, Z) the style's standard deviation, in model intensities.
        fine: (N, C, X, Y, Z) RMS of the finest band of texture, in model intensities.
        flags: (N, C, 1, 1, 1) float, 1 for channels that are available.
    """

    context: Tensor
    mask: Tensor
    lesion: Tensor
    mean: Tensor
    std: Tensor
    fine: Tensor
    flags: Tensor

    @classmethod
    def of(cls, host: Tensor, mask: Tensor, style: Tensor, available: Tensor) -> "Scene":
        """Make the scene of a host crop (N, C, X, Y, Z), mask, style (N, K, C, 3) and availability (N, C)."""
        lesion, flags = mask.sum(1, keepdim=True), available[:, :, None, None, None]
        return cls(host * (1 - lesion) * flags, mask, lesion, *style_maps(style, mask, available), flags)

    def without_classes(self, dropped: Tensor) -> "Scene":
        """Withhold the classes from the samples where `dropped` (N,) is 1; the lesion stays known."""
        kept = (1 - dropped.to(self.mask))[:, None, None, None, None]
        return replace(self, mask=self.mask * kept)

    def image(self, whitened: Tensor) -> Tensor:
        """Convert a lesion in whitened units to crops in model intensities, on the host."""
        return self.context + self.mean + self.std * whitened

    def painted(self, whitened: Tensor, around: Tensor) -> Tensor:
        """Compose crops in model intensities of a lesion in whitened units and the tissue around it."""
        return torch.where(self.lesion > 0, self.image(whitened), around) * self.flags

    def whitened(self, image: Tensor) -> Tensor:
        """Invert `image` inside the lesion; 0 elsewhere and in channels that are not available."""
        return torch.where(self.std > 0, (image - self.mean) / self.std.clamp(min=1e-6), 0.0)

    def noise(self, noise: Sequence[Tensor], mixing: Tensor) -> Tensor:
        """Make noise of unit variance with the style's texture, from standard normal images of `noise_shapes`.

        Args:
            noise: (N, *shape) each.
            mixing: (2, K, C, C) of `channel_mixing`, for the fine detail and the rest.

        Returns:
            (N, C, X, Y, Z), 0 outside the lesion.
        """
        ratio = (self.fine / self.std.clamp(min=1e-6)).square()
        white = ((ratio - SMOOTH_DETAIL**2) / (WHITE_DETAIL**2 - SMOOTH_DETAIL**2)).clamp(0, 1)
        fine, rest = (self._mixed(n, m) for n, m in zip((noise[0], smooth_noise(noise[1:])), mixing, strict=True))
        return white.sqrt() * fine + (1 - white).sqrt() * rest

    def _mixed(self, noise: Tensor, mixing: Tensor) -> Tensor:
        """Mix the channels of each class's voxels by its matrix (K, C, C)."""
        images, mixed = noise.flatten(2), torch.zeros_like(noise).flatten(2)
        for k, matrix in enumerate(mixing):
            mixed.addcmul_(self.mask[:, k : k + 1].flatten(2), matrix @ images)
        return mixed.view_as(noise)


@dataclass(frozen=True)
class Point:
    """Positions of N lesions on their paths: all that the network is given.

    Attributes:
        scene: the N crops.
        state: (N, C, X, Y, Z) u_t, whitened.
        time: (N,) t, 0 to 1.
        stride: (N,) how far the next step goes, 0 to t; see `synthaug.generators.learned.denoiser.Denoiser`.
    """

    scene: Scene
    state: Tensor
    time: Tensor
    stride: Tensor

    @classmethod
    def joined(cls, first: "Point", second: "Point") -> "Point":
        """Concatenate both, one after the other along N."""
        parts = [torch.cat((getattr(first.scene, f.name), getattr(second.scene, f.name))) for f in fields(Scene)]
        rest = [torch.cat((getattr(first, name), getattr(second, name))) for name in ("state", "time", "stride")]
        return cls(Scene(*parts), *rest)


def channel_mixing(correlations: Tensor, present: Tensor, shrinkage: float = 0.1) -> Tensor:
    """Compute matrices that give independent channels the mean correlations of P patients' lesions.

    Args:
        correlations: (P, 2, K, C, C) of `synthaug.generators.learned.style.channel_correlations`.
        present: (P, K), 1 where the patient has the class.
        shrinkage: share of the correlations that is dropped, 0 to 1.

    Returns:
        (2, K, C, C) lower triangular, with rows of unit length; the identity for a class that no patient has.
    """
    weight = present.to(correlations)[:, None, :, None, None]
    identity = torch.eye(correlations.shape[-1], dtype=torch.double)
    mean = (correlations.double() * weight).sum(0) / weight.sum(0).clamp(min=1)
    mean = (1 - shrinkage) * mean + shrinkage * identity
    mean = torch.where(identity > 0, 1.0, mean)
    return torch.linalg.cholesky(mean).float()


def noise_shapes(channels: int, size: Sequence[int]) -> list[tuple[int, ...]]:
    """List the shapes of the noise images for a crop of this size: (C, X, Y, Z), (C, X / 2, Y / 2, Z / 2), ..."""
    return [(channels, *(s >> level for s in size)) for level in range(OCTAVES + 1)]


def smooth_noise(octaves: Sequence[Tensor]) -> Tensor:
    """Make smooth noise of about unit variance from standard normal images at 1/2, 1/4, ... of the resolution.

    Args:
        octaves: (N, C, X / 2, Y / 2, Z / 2), (N, C, X / 4, ...), ...

    Returns:
        (N, C, X, Y, Z).
    """
    total = None
    for level in range(len(octaves), 0, -1):
        octave = octaves[level - 1] / _spread(level)
        total = F.interpolate(octave if total is None else octave + total, scale_factor=2, mode="trilinear")
    return total / len(octaves) ** 0.5


@cache
def _spread(level: int) -> float:
    """Compute the standard deviation of white noise after `level` enlargements to twice its size, linear ones."""
    weights = np.eye(16)
    for _ in range(level):  # each value lies a quarter of the way to one of its neighbours
        left, right = np.roll(weights, 1, axis=1), np.roll(weights, -1, axis=1)
        weights = np.stack((0.75 * weights + 0.25 * left, 0.75 * weights + 0.25 * right), -1).reshape(16, -1)
    return float(np.square(weights).sum(0).mean() ** 1.5)


def on_path(lesion: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Compute u_t = (1 - t) u_0 + t n, for times (N,)."""
    t = time[:, None, None, None, None]
    return (1 - t) * lesion + t * noise


def angle(time: Tensor) -> Tensor:
    """Compute the angle w of times t: u_t / sqrt((1 - t)^2 + t^2) is cos(w) u_0 + sin(w) n, of unit variance."""
    return torch.atan2(time, 1 - time)


def preconditioning(time: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the factors of u_t and the network's answer F in what is found, skip * u_t + scale * F, for times (N,).

    For stride 0 that is the expectation of u_0, and the factors are those of Karras et al. 2022 (arXiv 2206.00364,
    section 5) for unit variances: F then has unit variance at every time, and is the v = du/dw of Salimans & Ho 2022
    (arXiv 2202.00512, appendix D) up to its sign. For a jump it is one Euler step in the angle, w to 0, along that
    v: with F = 0 the noise itself is the lesion, of the texture asked for, and the network says what must change.
    """
    t, jump = (x[:, None, None, None, None] for x in (time, stride > 0))
    root = ((1 - t).square() + t.square()).sqrt()
    return torch.where(jump, 1 / root, (1 - t) / root.square()), torch.where(jump, angle(t), t / root)


def loss_weight(time: Tensor, weighting: str, gamma: float = 5.0) -> Tensor:
    """Weigh the squared error of u_0 at times (N,), with SNR = ((1 - t) / t)^2.

    ``"flow"`` is 1 / t^2, the squared error of the velocity n - u_0 (Lipman et al. 2023, equation 14); ``"min_snr"`` is
    min(SNR, gamma) (Hang et al. 2023, arXiv 2303.09556, equation 6), here plus 1, so that pure noise has a say.

    Raises:
        ValueError: another weighting.
    """
    t = time.clamp(min=1e-3)
    snr = ((1 - t) / t).square()
    weights = {"flow": 1 / t.square(), "min_snr": 1 + snr.clamp(max=gamma)}
    if weighting not in weights:
        raise ValueError(f"weighting: expected one of {', '.join(weights)}, got {weighting!r}")
    return weights[weighting]
