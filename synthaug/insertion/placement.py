"""Search for a lesion's place: in host tissue, clear of what is there, by its own shape.

Two steps, both on the device and without the host waiting. On a coarse grid the overlap of the lesion with existing
labels and its share in tissue are known for every place at once (a correlation by FFT); a random order, weighted by the
location prior where one is given, picks a few places among those that fit. At full resolution these few are then
checked voxel by voxel, and the first that holds is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.geometry import Window
from synthaug.random import Purpose, device_stream, seed_for
from synthaug.transfers import on_device

CANDIDATES = 8
LARGE_CROP = 80**3


class Site:
    """Tissue and occupied voxels of one sample, worked out once for all of its lesions.

    Args:
        tissue: (X, Y, Z) bool, host tissue.
        occupied: (X, Y, Z) bool, existing labels.
        prior: (X, Y, Z) float weights of the lesion's centre, or None.
    """

    def __init__(self, tissue: Tensor, occupied: Tensor, prior: Tensor | None = None):
        self.tissue, self.prior = tissue, prior
        # written to in place by flat addresses, whatever layout the masks came in
        self.state = (tissue.to(torch.uint8) + 2 * occupied.to(torch.uint8)).contiguous()

    @property
    def occupied(self) -> Tensor:
        """(X, Y, Z) bool, existing labels and lesions placed so far."""
        return self.state >= 2

    @cached_property
    def has_tissue(self) -> Tensor:
        """() bool, whether there is any host tissue."""
        return self.tissue.any()

    @cached_property
    def coarse_tissue(self) -> Tensor:
        """Share of tissue in each cell of the coarse grid."""
        return _pooled(self.tissue, _coarse_step(self.tissue.shape), F.avg_pool3d)

    def occupy(self, window: Window, lesion: Tensor) -> None:
        """Mark a placed lesion, (x, y, z) bool, as occupied."""
        window.write(self.state, window.read(self.state) | 2 * lesion.to(torch.uint8))


@dataclass(frozen=True)
class Placement:
    """The place found for a lesion, as tensors on the device.

    Attributes:
        center_vox: (3,) int64.
        fits: () bool, whether the place holds; otherwise nothing may be inserted.
        window: the crop's addresses.
        lesion: (x, y, z) bool, what of the lesion is written: what sticks out of the tissue is cut off.
    """

    center_vox: Tensor
    fits: Tensor
    window: Window
    lesion: Tensor


def place(site: Site, lesion: Tensor, keep_clear: Tensor, tissue_share: float, seed: int) -> Placement:
    """Find a place for one lesion.

    Args:
        site: the sample.
        lesion: (x, y, z) bool, the lesion in its crop.
        keep_clear: (x, y, z) bool, the lesion grown by the clearance; nothing existing may lie in it.
        tissue_share: share of the lesion's voxels that must lie in host tissue, in [0, 1].
        seed: the insertion's own, from which the search's random numbers follow.
    """
    generator = device_stream(seed_for(seed, Purpose.PLACE), lesion.device)
    centers = _coarse_candidates(site, lesion, keep_clear, tissue_share, generator)
    volume, state = site.tissue.shape, site.state
    verdicts = []
    for center in centers.unbind(0):
        verdicts.append(_holds(state, center, lesion, keep_clear, tissue_share, volume))
        # where the host need not wait for the device, it can stop at the first place that holds
        if lesion.device.type == "cpu" and verdicts[-1].numpy():
            break
    fits = torch.stack(verdicts)
    chosen = centers.index_select(0, fits.to(torch.uint8).argmax(0, keepdim=True))[0]
    window = Window.at(chosen, lesion.shape, volume)
    written = lesion & (window.read(state) == 1)
    return Placement(chosen, fits.any(), window, written)


def _holds(state: Tensor, center: Tensor, lesion: Tensor, keep_clear: Tensor, share: float, volume) -> Tensor:
    seen = Window.at(center, lesion.shape, volume).read(state)
    blocked = (keep_clear & (seen >= 2)).any()
    in_tissue = (lesion & (seen == 1)).sum()
    return ~blocked & (in_tissue >= share * lesion.sum()) & (in_tissue > 0)


def _coarse_candidates(site: Site, lesion: Tensor, keep_clear: Tensor, share: float, generator) -> Tensor:
    """Pick T centres, (T, 3) int64, best first: random ones that fit on the coarse grid, then the least bad."""
    volume, step = site.tissue.shape, _coarse_step(site.tissue.shape)
    tissue = site.coarse_tissue
    occupied = _pooled(site.occupied, step, F.max_pool3d)
    body = _pooled(lesion, step, F.avg_pool3d)
    around = _pooled(keep_clear, step, F.max_pool3d)
    overlap = _correlated(occupied, around)
    inside = _correlated(tissue, body) / body.sum().clamp(min=1e-6)
    rank = torch.rand(overlap.shape, generator=generator, device=overlap.device)
    centers = [
        _coarse_centers(overlap.shape[i], step, lesion.shape[i], around.shape[i], overlap.device) for i in range(3)
    ]
    valid = torch.ones((), dtype=torch.bool, device=lesion.device)
    for i, c in enumerate(centers):
        in_volume = (c >= 0) & (c < volume[i])
        valid = valid & in_volume.reshape([-1 if j == i else 1 for j in range(3)])
    if site.prior is not None:
        rank, valid = _weighted(rank, valid, site.prior, centers)
    fit = valid & (overlap < 0.5) & (inside >= share)
    # what does not fit on the coarse grid may fit exactly: least overlap first, far behind all that do fit
    score = torch.where(fit, 1 + rank, -overlap - (share - inside).clamp(min=0) * body.sum())
    score = torch.where(valid, score, -torch.inf)
    count = min(CANDIDATES if lesion.numel() < LARGE_CROP else CANDIDATES // 2, score.numel())
    flat = score.flatten().topk(count).indices
    _, ny, nz = score.shape
    at = (flat // (ny * nz), (flat // nz) % ny, flat % nz)
    chosen = torch.stack([c.index_select(0, a) for c, a in zip(centers, at, strict=True)], 1)
    # a shift within the coarse cell for the first half, so that places do not lie on a lattice
    shift = torch.randint(0, step, chosen.shape, generator=generator, device=chosen.device)
    shift[count // 2 :] = 0
    limit = on_device([n - 1 for n in volume], chosen.device)
    return torch.minimum((chosen + shift).clamp(min=0), limit)


def _coarse_step(volume: Sequence[int]) -> int:
    return next((s for s in (1, 2, 4, 6) if max(volume) <= 33 * s), 8)


def _pooled(mask: Tensor, step: int, pool) -> Tensor:
    if step == 1:
        return mask.float()
    cells = mask[None, None].float()
    padding = [p for n in reversed(mask.shape) for p in (0, -n % step)]
    return pool(F.pad(cells, padding) if any(padding) else cells, step)[0, 0]


def _correlated(field: Tensor, kernel: Tensor) -> Tensor:
    """Correlate by FFT: sum_q kernel[q] field[p + q] for all p from 1 - size of the kernel to size of the field - 1."""
    size = [f + k - 1 for f, k in zip(field.shape, kernel.shape, strict=True)]
    fast = [_fast_length(n) for n in size]
    spectrum = torch.fft.rfftn(field, fast) * torch.fft.rfftn(kernel.flip(0, 1, 2), fast)
    return torch.fft.irfftn(spectrum, fast)[: size[0], : size[1], : size[2]]


def _fast_length(n: int) -> int:
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def _coarse_centers(positions: int, step: int, crop: int, kernel: int, device: torch.device) -> Tensor:
    """Compute the lesion's centre in voxels at each of the correlation's positions along one axis."""
    return (torch.arange(positions, device=device) - (kernel - 1)) * step + crop // 2


def _weighted(rank: Tensor, valid: Tensor, prior: Tensor, centers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight random ranks so that their order is a draw without replacement (Efraimidis and Spirakis, 2006)."""
    index = [c.clamp(0, n - 1) for c, n in zip(centers, prior.shape, strict=True)]
    weight = prior[index[0][:, None, None], index[1][None, :, None], index[2][None, None, :]].float()
    weight = weight / weight.amax().clamp(min=1e-12)
    key = rank.clamp(min=1e-7).log() / weight.clamp(min=1e-12)
    return 1 / (1 - key), valid & (weight > 0)
