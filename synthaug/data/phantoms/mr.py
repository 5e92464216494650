"""MR intensities from tissue fractions, for all phantoms, whatever their anatomy.

NumPy throughout: a phantom costs the same one core whatever else the machine's cores are busy with.
"""

from collections.abc import Sequence

import numpy as np

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
    "t2": (1.90, 1.00, 0.78, 0.55, 1.65, 1.46, 1.30),
    "flair": (0.35, 0.98, 0.84, 0.40, 1.10, 1.50, 1.35),
}
_TEXTURE = (0.02, 0.04, 0.03, 0.05, 0.12, 0.08, 0.12)
"""Standard deviation of the slow variation inside a tissue, relative to its mean."""


def band_noise(rng: np.random.Generator, size: Sequence[int], wavelength_vox: float) -> np.ndarray:
    """Draw smooth noise (X, Y, Z) float32 of mean 0 and standard deviation 1, most of it near one wavelength.

    It is made by filtering white noise on a grid of six points a wavelength, and interpolated from there.
    """
    coarse = [max(4, min(n, int(np.ceil(6 * n / wavelength_vox)))) for n in size]
    white = rng.standard_normal(coarse, dtype=np.float32)
    # cycles per voxel of the fine grid
    axes = [np.fft.fftfreq(m) * m / n for m, n in zip(coarse[:2], size[:2], strict=True)]
    axes.append(np.fft.rfftfreq(coarse[2]) * coarse[2] / size[2])
    frequency = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    band = np.exp(-((frequency * wavelength_vox - 1) ** 2) / 0.18).astype(np.float32)
    band[0, 0, 0] = 0
    noise = np.fft.irfftn(np.fft.rfftn(white) * band, s=coarse, axes=(0, 1, 2)).astype(np.float32)
    noise /= noise.std()
    for axis, n in enumerate(size):
        noise = _interpolate(noise, axis, n)
    return noise


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute 1 / (1 + exp(-x)), without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _interpolate(values: np.ndarray, axis: int, n: int) -> np.ndarray:
    """Interpolate linearly along one axis to n points, the first and last of which stay."""
    m = values.shape[axis]
    if m == n:
        return values
    at = np.linspace(0, m - 1, n)
    low = np.minimum(at.astype(int), m - 2)
    weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    below, above = np.take(values, low, axis), np.take(values, low + 1, axis)
    return below + weight * (above - below)


def check_sequences(channels: Sequence[str]) -> tuple[str, ...]:
    """Check the wanted channels, and give their canonical names.

    Raises:
        ValueError: a channel that the phantoms do not have.
    """
    wanted = canonical_channels(channels)
    select_channels(wanted, SEQUENCES, "a phantom")
    return wanted


def acquire(fractions: np.ndarray, brain: np.ndarray, channels: Sequence[str], rng: np.random.Generator) -> np.ndarray:
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
    size = brain.shape
    texture = (band_noise(rng, size, 6) + band_noise(rng, size, 14)) / np.float32(np.sqrt(2))
    image = {}
    for name in SEQUENCES:
        means = np.asarray(_MEANS[name]) * rng.normal(1, 0.04, len(TISSUES)).clip(0.9, 1.1)
        gain, strength, sigma = rng.uniform(300, 700), rng.uniform(0.03, 0.08), rng.uniform(0.02, 0.035)
        bias = np.exp(np.float32(strength) * band_noise(rng, size, 1.2 * max(size)))
        noise = np.float32(sigma) * rng.standard_normal((2, *size), dtype=np.float32)
        if name not in channels:
            continue
        signal = _mix(means, fractions) + texture * _mix(means * _TEXTURE, fractions)
        signal = np.hypot(signal * bias + noise[0], noise[1])  # magnitude images: Rician noise
        image[name] = np.where(brain, np.rint(np.float32(gain) * signal).clip(1), 0).astype(np.float32)
    return np.stack([image[name] for name in channels])


def _mix(values: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Sum value times share over tissues, (X, Y, Z); tissues that are nowhere cost nothing."""
    return sum(np.float32(v) * share for v, share in zip(values, fractions, strict=True) if share.any())
