"""Style: statistics of a lesion's appearance, per class and channel, and a prior of how they vary between patients.

Two tumours of one shape differ most in their first-order statistics: oedema is four host standard deviations above
normal tissue on one patient's FLAIR and one on another's. A network that is not told which is asked for answers with
the mean of all. So these statistics are an input, the *style*: measured on the real lesion while training, drawn from
a Gaussian over patients when lesions are generated.
"""

from typing import cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

STATISTICS = ("mean", "log_std", "log_fine")
"""Of each class and channel: mean, log of the standard deviation, log of the fine texture (see `fine_detail`)."""

FLOOR = 0.02
MIN_VOXELS = 24


def moving_average(image: Tensor, window: int = 3, dilation: int = 1) -> Tensor:
    """Average each cube of `window` voxels, `dilation` apart, one axis after the other; edges are replicated.

    Pooling does the same, many times slower on CPUs.

    Args:
        image: (N, C, X, Y, Z) float.
        window: odd, in voxels.
        dilation: 3 on an average over 3 gives the average over 9.
    """
    half = window // 2 * dilation
    padded = F.pad(image, (half,) * 6, mode="replicate")
    for dim in (2, 3, 4):
        size = image.shape[dim]
        shifted = (padded.narrow(dim, i * dilation, size) for i in range(window))
        padded = cast(Tensor, sum(shifted)) / window  # a window has a voxel or more, so that the sum is no 0
    return padded


def fine_detail(image: Tensor) -> Tensor:
    """Subtract a moving average over 3 voxels from (N, C, X, Y, Z): the finest band of texture is left."""
    return image - moving_average(image)


def class_moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and mean square of `values` over each class.

    Args:
        values: (N, C, X, Y, Z) float.
        mask: (N, K, X, Y, Z), one-hot classes.

    Returns:
        Two tensors (N, K, C); 0 where a class has no voxel.
    """
    count = mask.sum((2, 3, 4)).clamp(min=1)[:, :, None]
    mean = einsum(mask, values, "n k x y z, n c x y z -> n k c") / count
    square = einsum(mask, values.square(), "n k x y z, n c x y z -> n k c") / count
    return mean, square


def lesion_style(image: Tensor, mask: Tensor) -> Tensor:
    """Compute the statistics of a lesion per class and channel.

    Args:
        image: (N, C, X, Y, Z) float, model intensities.
        mask: (N, K, X, Y, Z) float, one-hot classes.

    Returns:
        (N, K, C, 3) in the order of `STATISTICS`. Differentiable. Meaningless for classes without voxels: see
        `present_classes`.
    """
    mean, square = class_moments(image, mask)
    variance = (square - mean.square()).clamp(min=FLOOR**2)
    _, fine = class_moments(fine_detail(image), mask)
    return torch.stack((mean, 0.5 * variance.log(), 0.5 * fine.clamp(min=(FLOOR / 4) ** 2).log()), -1)


def channel_correlations(image: Tensor, mask: Tensor) -> Tensor:
    """Correlate the channels' textures inside each class.

    Args:
        image: (N, C, X, Y, Z) float.
        mask: (N, K, X, Y, Z) float, one-hot classes.

    Returns:
        (N, 2, K, C, C): correlation between channels of the finest band of texture (see `fine_detail`) and of what is
        left without it. Meaningless for classes without voxels: see `present_classes`.
    """
    smooth = moving_average(image)
    count = mask.sum((2, 3, 4)).clamp(min=1)[:, :, None, None]
    found = []
    for band in (image - smooth, smooth):
        mean, _ = class_moments(band, mask)
        product = einsum(mask, band, band, "n k x y z, n c x y z, n d x y z -> n k c d") / count
        covariance = product - mean[..., :, None] * mean[..., None, :]
        spread = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-8).sqrt()
        found.append(covariance / (spread[..., :, None] * spread[..., None, :]))
    return torch.stack(found, 1)


def present_classes(mask: Tensor, least: int = MIN_VOXELS) -> Tensor:
    """Tell which classes have voxels enough for statistics: 1 where they have, (N, K) float."""
    return (mask.sum((2, 3, 4)) >= least).to(mask.dtype)


def style_maps(style: Tensor, mask: Tensor, available: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spread a style over the lesion, as images.

    Args:
        style: (N, K, C, 3) of `lesion_style`.
        mask: (N, K, X, Y, Z) float, one-hot classes.
        available: (N, C) float, 1 for channels that are given and wanted.

    Returns:
        Mean, standard deviation and fine texture of the class at each voxel, (N, C, X, Y, Z) each; 0 outside and in
        channels that are not available.
    """
    linear = torch.cat((style[..., :1], style[..., 1:].exp()), -1) * available[:, None, :, None]
    # as a matrix product whose result lies in memory as it is wanted: maps of large crops are dear to copy
    maps = rearrange(linear, "n k c s -> n (s c) k") @ mask.flatten(2)
    return maps.unflatten(-1, mask.shape[2:]).chunk(3, 1)


class StylePrior(nn.Module):
    """A Gaussian over styles, fitted to patients.

    Args:
        classes: number K of classes.
        channels: number C of channels.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, classes: int, channels: int):
        super().__init__()
        size = classes * channels * len(STATISTICS)
        self.shape = (classes, channels, len(STATISTICS))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("factor", torch.eye(size))

    def fit(self, styles: Tensor, present: Tensor, shrinkage: float = 0.15) -> None:
        """Fit to the styles of patients; classes that a patient lacks take the mean of the others.

        The covariance is shrunk towards its diagonal, since there are often fewer patients than numbers.

        Args:
            styles: (P, K, C, 3) of P patients.
            present: (P, K), 1 where the patient has the class.
            shrinkage: share of the off-diagonal covariance that is dropped, 0 to 1.

        Raises:
            ValueError: fewer than two patients, or a class that no patient has.
        """
        weight = present[:, :, None, None].to(styles)
        if len(styles) < 2 or not bool((weight.sum(0) > 0).all()):
            counts = [int(c) for c in present.sum(0)]
            raise ValueError(
                f"style prior: expected two patients or more and every class in one of them, got {len(styles)} "
                f"patients, of which {counts} have each class"
            )
        mean = (styles * weight).sum(0) / weight.sum(0)
        centred = ((styles - mean) * weight).flatten(1).double()
        covariance = centred.T @ centred / (len(styles) - 1)
        diagonal = torch.diag(covariance.diagonal().clamp(min=1e-4))
        covariance = (1 - shrinkage) * covariance + shrinkage * diagonal
        self.mean.copy_(mean.flatten())
        self.factor.copy_(torch.linalg.cholesky(covariance + 1e-5 * torch.eye(len(covariance), dtype=torch.double)))

    def sample(self, noise: Tensor, truncation: float = 1.0) -> Tensor:
        """Draw styles from standard normal `noise` (N, K * C * 3), each number clipped at 2, scaled by `truncation`."""
        z = noise.clamp(-2, 2) * truncation
        return (self.mean + z @ self.factor.T).unflatten(-1, self.shape)

    def completed(self, style: Tensor, known: Tensor) -> Tensor:
        """Fill in what is not known of a style as it is expected beside what is.

        Args:
            style: (K, C, 3).
            known: (K, C, 3) bool.

        Returns:
            (K, C, 3) float32: the given values where known, elsewhere the Gaussian's conditional mean, at most two
            standard deviations from its mean.
        """
        flat, here = style.flatten().double().cpu(), known.flatten().cpu()
        mean, factor = self.mean.double().cpu(), self.factor.double().cpu()
        covariance = factor @ factor.T
        if here.any():
            given = torch.linalg.solve(covariance[here][:, here], flat[here] - mean[here])
            # an unusual lesion says little of what it does not show
            spread = 2 * covariance.diagonal().sqrt()
            mean = mean + (covariance[:, here] @ given).clamp(-spread, spread)
        return torch.where(here, flat, mean).float().view(self.shape)

    def noise_size(self) -> int:
        """Return how many normal numbers one style takes."""
        return self.mean.numel()
