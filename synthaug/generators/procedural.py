"""The procedural generator: a mean, a spread and a smooth texture per class and channel. No weights, no donor.

z(x) = sum_k m_k(x) mean_k + sqrt(sum_k m_k(x) std_k^2) (sqrt(share) t(x) + sqrt(1 - share) h(x)) + keep * host(x)

in z-scores of host tissue, where m are the classes blurred by one voxel (tissue boundaries are gradual), t a smooth
Gaussian texture in three octaves of unit variance, common to all channels in part as lesions are, h fine noise, and a
small share `keep` of the host's own structure shines through, so that sulci and vessels do not stop dead.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.generators.base import TumorGenerator
from synthaug.lesions.bank import LesionBank
from synthaug.random import seeded_noise
from synthaug.transfers import on_device

Table = Mapping[str, Mapping[str, tuple[float, float]]]

GLIOMA_MRI: Table = {
    "NCR": {"flair": (1.0, 0.9), "t1": (-1.3, 0.6), "t1ce": (-0.6, 0.6), "t2": (1.8, 1.1)},
    "ED": {"flair": (1.9, 0.7), "t1": (-0.6, 0.5), "t1ce": (-0.4, 0.4), "t2": (1.4, 0.7)},
    "ET": {"flair": (1.4, 0.8), "t1": (-0.5, 0.6), "t1ce": (1.8, 0.9), "t2": (1.0, 0.8)},
    "RC": {"flair": (-1.2, 0.6), "t1": (-1.8, 0.5), "t1ce": (-1.3, 0.5), "t2": (3.0, 0.9)},
    "tumour": {"flair": (1.6, 0.8), "t1": (-0.7, 0.6), "t1ce": (0.4, 0.9), "t2": (1.3, 0.8)},
}
"""Class to channel to (mean, standard deviation) in z-scores of host tissue, for glioma on MRI."""

OCTAVES = ((4, 0.65), (8, 0.45), (16, 0.35))
FINE_SHARE = 0.15
SHARED_TEXTURE = 0.5
HOST_KEPT = 0.15


class ProceduralGenerator(TumorGenerator):
    """Paints lesions from intensity statistics per class and channel, with a smooth texture.

    Args:
        table: class to channel to (mean, standard deviation), z-scores of host tissue; by default `GLIOMA_MRI`.

    Raises:
        ValueError: an empty table, classes with unlike channels, or a standard deviation below 0.

    Example:
        >>> generator = ProceduralGenerator({"tumour": {"ct": (2.0, 0.5)}})
        >>> context, mask = torch.zeros(1, 1, 32, 32, 32), torch.ones(1, 1, 32, 32, 32)
        >>> painted = generator.generate(context, mask, seeds=[7])
        >>> painted.shape, 1.0 < float(painted.mean()) < 3.0
        (torch.Size([1, 1, 32, 32, 32]), True)
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]

    def __init__(self, table: Table = GLIOMA_MRI):
        if not table:
            raise ValueError("table: expected at least one class, got none")
        first = next(iter(table.values()))
        for name, row in table.items():
            if set(row) != set(first):
                raise ValueError(f"table: {name} has the channels {sorted(row)}, others {sorted(first)}")
            if any(std < 0 for _, std in row.values()):
                raise ValueError(f"table: expected standard deviations of at least 0 for {name}, got {dict(row)}")
        self.table = table
        self.classes, self.channels = tuple(table), tuple(first)

    @classmethod
    def fit(cls, bank: LesionBank) -> "ProceduralGenerator":
        """Fit a generator: its table is the mean of a bank's lesions, weighted equally.

        Raises:
            ValueError: a class of the bank that is in none of its lesions with 27 voxels or more.
        """
        columns = range(len(bank.channels))
        stats = [bank.class_statistics(lesion.name, columns) for lesion in bank]
        mean = torch.stack([m for m, _ in stats]).mean(0)
        std = torch.stack([s for _, s in stats]).square().mean(0).sqrt()
        absent = [c for c, row in zip(bank.classes, mean, strict=True) if not bool(row.isfinite().all())]
        if absent:
            raise ValueError(f"cannot fit a table: the bank has no voxels of {', '.join(absent)}")
        rows = zip(bank.classes, mean.tolist(), std.tolist(), strict=True)
        return cls({c: dict(zip(bank.channels, zip(m, s, strict=True), strict=True)) for c, m, s in rows})

    def bind(self, channels: tuple[str, ...], classes: tuple[str, ...]) -> "ProceduralGenerator":
        """Bind the generator to these channels and classes in this order; see `TumorGenerator.bind`."""
        super().bind(channels, classes)
        return ProceduralGenerator({k: {c: self.table[k][c] for c in channels} for k in classes})

    def generate(
        self,
        context: Tensor,
        mask: Tensor,
        seeds: Sequence[int],
        donor: Tensor | None = None,
        support: Tensor | None = None,
    ) -> Tensor:
        """Paint the lesions; see `TumorGenerator.generate`."""
        values = [[row[c] for c in self.channels] for row in self.table.values()]
        table = on_device(values, mask.device, torch.float32)
        return torch.stack([self._one(c, m, table, s) for c, m, s in zip(context, mask, seeds, strict=True)])

    @staticmethod
    def _one(context: Tensor, mask: Tensor, table: Tensor, seed: int) -> Tensor:
        soft = F.avg_pool3d(F.pad(mask, (1,) * 6), 3, stride=1)
        # outside the lesion no class is near; the mix of classes is then that of its nearest border
        soft = soft / soft.sum(0).clamp(min=1e-3)
        mean = torch.einsum("kxyz,kc->cxyz", soft, table[..., 0])
        variance = torch.einsum("kxyz,kc->cxyz", soft, table[..., 1].square())
        channels, size = context.shape[0], context.shape[1:]
        return mean + variance.sqrt() * texture(seed, channels, size, context.device) + HOST_KEPT * context


def texture(seed: int, channels: int, size: Sequence[int], device: torch.device) -> Tensor:
    """Draw a texture (C, *size) of about unit variance: smooth, partly common to all channels, a little white noise."""
    total, power = torch.zeros((), device=device), 0.0
    for octave, (divisions, weight) in enumerate(OCTAVES):
        nodes = [max(2, -(-n * divisions // 64) + 1) for n in size]
        noise = seeded_noise([(seed + 1 + octave) % 2**63], (channels + 1, *nodes), device)
        total = total + weight * F.interpolate(noise, size=tuple(size), mode="trilinear", align_corners=True)[0]
        # linear interpolation of white noise keeps (2/3)^3 of its variance on average
        power += weight**2 * (2 / 3) ** 3
    total = total / power**0.5
    smooth = SHARED_TEXTURE**0.5 * total[:1] + (1 - SHARED_TEXTURE) ** 0.5 * total[1:]
    fine = seeded_noise([seed], (channels, *size), device)[0]
    return (1 - FINE_SHARE) ** 0.5 * smooth + FINE_SHARE**0.5 * fine
