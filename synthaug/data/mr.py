"""From tissue fractions to MR intensities: what the phantoms share, whatever their anatomy."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.channels import canonical_channels, select_channels

TISSUES = ("CSF", "GM", "WM", "vessel", "NCR", "ED", "ET")
"""Tissues of the phantoms, in the order of a fraction map's first axis."""

SEQUENCES = ("flair", "t1", "t1ce", "t2")
"""Sequences that the phantoms have."""

# Relative to white matter in T1. What matters is the order: CSF dark but in T2, WM above GM in T1 and below in T2 and
# FLAIR, oedema bright in FLAIR and T2, an enhancing rim around a dark core in T1ce, vessels that enhance too.
_MEANS = {
    "t1": (0.30, 0.72, 1.00, 0.45, 0.42, 0.68, 0.64),
    "t1ce": (0.32, 0.74, 1.00, 1.35, 0.48, 0.70, 1.45),
    "t2": (1.75, 1.00, 0.78, 0.55, 1.55, 1.35, 1.20),
    "flair": (0.35, 0.98, 0.84, 0.40, 1.10, 1.50, 1.35),
}
_TEXTURE = (0.02, 0.04, 0.03, 0.05, 0.12, 0.08, 0.12)
"""Standard deviation of the slow variation inside a tissue, relative to its mean."""


def band_noise(rng: np.random.Generator, size: Sequence[int], wavelength_vox: float) -> Tensor:
    """Smooth noise (X, Y, Z) float32 of mean 0 and standard deviation 1, most of it near one wavelength.

    It is made by filtering white noise on a grid of six points a wavelength, and interpolated from there.
    """
    coarse = [max(4, min(n, int(np.ceil(6 * n / wavelength_vox)))) for n in size]
    white = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))
    axes = [torch.fft.fftfreq(m) * m / n for m, n in zip(coarse[:2], size[:2], strict=True)]
    axes.append(torch.fft.rfftfreq(coarse[2]) * coarse[2] / size[2])
    frequency = torch.sqrt(sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")))
    band = torch.exp(-((frequency * wavelength_vox - 1) ** 2) / 0.18)
    band[0, 0, 0] = 0
    noise = torch.fft.irfftn(torch.fft.rfftn(white) * band, s=coarse)
    noise = (noise / noise.std()).float()
    if tuple(coarse) == tuple(size):
        return noise
    return F.interpolate(noise[None, None], size=tuple(size), mode="trilinear", align_corners=True)[0, 0]


def check_sequences(channels: Sequence[str]) -> tuple[str, ...]:
    """Canonical names of the wanted channels.

    Raises:
        ValueError: a channel that the phantoms do not have.
    """
    wanted = canonical_channels(channels)
    select_channels(wanted, SEQUENCES, "a phantom")
    return wanted


def acquire(fractions: Tensor, brain: Tensor, channels: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Make the sequences of one patient on one scanner.

    Args:
        fractions: (T, X, Y, Z) float32, the share of each of `TISSUES` in a voxel; they sum to 1 in the brain.
        brain: (X, Y, Z) bool.
        channels: canonical names out of `SEQUENCES`.
        rng: source of the contrast, texture, bias field and noise, which differ from case to case. Every sequence
            is drawn whether wanted or not, so that a channel is the same whichever others are asked for.

    Returns:
        (C, X, Y, Z) float32; whole numbers of at least 1 in the brain, exactly 0 outside it.
    """
    size = tuple(brain.shape)
    slow = [band_noise(rng, size, wavelength) for wavelength in (6, 14)]
    texture = (slow[0] + slow[1]) / np.sqrt(2)
    image = {}
    for name in SEQUENCES:
        means = np.asarray(_MEANS[name]) * rng.normal(1, 0.04, len(TISSUES)).clip(0.9, 1.1)
        gain, strength, sigma = rng.uniform(300, 700), rng.uniform(0.03, 0.08), rng.uniform(0.02, 0.035)
        bias = torch.exp(strength * band_noise(rng, size, 1.2 * max(size)))
        noise = torch.from_numpy(rng.standard_normal((2, *size), dtype=np.float32))
        if name not in channels:
            continue
        mean_map = torch.einsum("t,txyz->xyz", torch.tensor(means, dtype=torch.float32), fractions)
        depth = torch.tensor(means * _TEXTURE, dtype=torch.float32)
        signal = mean_map + texture * torch.einsum("t,txyz->xyz", depth, fractions)
        signal = torch.hypot(signal * bias + sigma * noise[0], sigma * noise[1])  # magnitude images: Rician noise
        image[name] = torch.where(brain, (gain * signal).round_().clamp_(min=1), torch.zeros(()))
    return torch.stack([image[name] for name in channels]).numpy()
