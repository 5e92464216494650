"""Search for a lesion's place: in host tissue, clear of what is there, by its own shape.

Two steps, both on the device and without the host waiting. On a coarse grid the overlap of the lesion with existing
labels and its share in tissue are known for every place at once (a correlation by FFT); a random order, weighted by the
location prior where one is given, picks a few places among those that fit. At full resolution these few are then
checked voxel by voxel, and the first that holds is taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.geometry import Window
from synthaug.lesions.places import PlaceFrequency
from synthaug.random import Purpose, device_stream, seed_for
from synthaug.transfers import on_device

CANDIDATES = 8
LARGE_CROP = 80**3

CLEAR_SHARE = 0.98
"""Share of a lesion in tissue that is sought first where fluid is no tissue: else ventricles would run through it."""

TISSUE, LABELLED, FIXED = 1, 2, 4
"""Bits of a site's state: host tissue; a label; what nothing may replace, a lesion of this call or an ignored label."""


class Site:
    """Tissue and occupied voxels of one sample, worked out once for all of its lesions.

    Args:
        tissue: (X, Y, Z) bool, host tissue.
        occupied: (X, Y, Z) bool, existing labels.
        prior: (X, Y, Z) float weights of the lesion's centre, or None.
        ignored: (X, Y, Z) bool, labels that nothing replaces, or None.
        places: how often lesions lie where in the host, and the sample's frame (3, 4), or None.
    """

    def __init__(
        self,
        tissue: Tensor,
        occupied: Tensor,
        prior: Tensor | None = None,
        ignored: Tensor | None = None,
        places: tuple[PlaceFrequency, np.ndarray] | None = None,
    ):
        self.tissue, self.prior, self.places = tissue, prior, places
        state = TISSUE * tissue.to(torch.uint8) + LABELLED * occupied.to(torch.uint8)
        if ignored is not None:
            state = state + FIXED * ignored.to(torch.uint8)
        # written to in place by flat addresses, whatever layout the masks came in
        self.state = state.contiguous()

    @property
    def occupied(self) -> Tensor:
        """(X, Y, Z) bool, existing labels and lesions placed so far."""
        return self.state >= LABELLED

    @cached_property
    def has_tissue(self) -> Tensor:
        """() bool, whether there is any host tissue."""
        return self.tissue.any()

    @cached_property
    def coarse_tissue(self) -> Tensor:
        """Share of tissue in each cell of the coarse grid."""
        return pooled(self.tissue, coarse_step(self.tissue.shape), F.avg_pool3d)

    def occupy(self, window: Window, lesion: Tensor) -> None:
        """Mark a placed lesion, (x, y, z) bool, as occupied."""
        window.write(self.state, window.read(self.state) | (LABELLED | FIXED) * lesion.to(torch.uint8))

    def weights(self, axes: Sequence[Tensor]) -> Tensor | None:
        """Weights of a lesion's centre at the points of a lattice, (x, y, z), or None where all count the same.

        Args:
            axes: voxel indices along X, Y, Z, (x,), (y,), (z,); those outside count as the nearest inside.
        """
        index = [a.clamp(0, n - 1) for a, n in zip(axes, self.tissue.shape, strict=True)]
        weight = None if self.places is None else self.places[0].weights(self.places[1], index)
        if self.prior is not None:
            own = self.prior[index[0][:, None, None], index[1][None, :, None], index[2][None, None, :]].float()
            weight = own if weight is None else own * weight
        return weight


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


def place(
    site: Site, lesion: Tensor, keep_clear: Tensor, tissue_share: float, seed: int, sought: float | None = None
) -> Placement:
    """Find a place for one lesion.

    Args:
        site: the sample.
        lesion: (x, y, z) bool, the lesion in its crop.
        keep_clear: (x, y, z) bool, the lesion grown by the clearance; nothing existing may lie in it.
        tissue_share: share of the lesion's voxels that must lie in host tissue, in [0, 1].
        seed: the insertion's own, from which the search's random numbers follow.
        sought: share in tissue of the places that are tried first, where there are any.
    """
    generator = device_stream(seed_for(seed, Purpose.PLACE), lesion.device)
    centers = _coarse_candidates(site, lesion, keep_clear, (tissue_share, sought), generator)
    wanted = tissue_share * lesion.sum()

    def holds(window: Window) -> Tensor:
        seen = window.read(site.state)
        blocked = (keep_clear & (seen >= LABELLED)).any()
        in_tissue = (lesion & (seen == TISSUE)).sum()
        return ~blocked & (in_tissue >= wanted) & (in_tissue > 0)

    chosen, fits, window = _first_that(holds, centers, lesion, site)
    return Placement(chosen, fits, window, lesion & (window.read(site.state) == TISSUE))


def place_at(site: Site, lesion: Tensor, centers: Tensor, tissue_share: float) -> Placement:
    """Place one lesion where it is told to go, in place of labels that are there; the patch's border may cut it.

    Args:
        site: the sample.
        lesion: (x, y, z) bool, the lesion in its crop.
        centers: (T, 3) int64 in the volume, in the order in which they are tried.
        tissue_share: share of the lesion's voxels in the patch that must lie in host tissue, in [0, 1].
    """

    def holds(window: Window) -> Tensor:
        seen = window.read(site.state)
        blocked = (lesion & (seen >= FIXED)).any()
        in_tissue = (lesion & (seen % LABELLED == TISSUE)).sum()
        return ~blocked & (in_tissue >= tissue_share * (lesion & window.inside).sum()) & (in_tissue > 0)

    chosen, fits, window = _first_that(holds, centers, lesion, site)
    return Placement(chosen, fits, window, lesion & (window.read(site.state) % LABELLED == TISSUE))


def _first_that(
    holds: Callable[[Window], Tensor], centers: Tensor, lesion: Tensor, site: Site
) -> tuple[Tensor, Tensor, Window]:
    """The first of the centres that holds, the first of all where none does; whether it does; its crop."""
    verdicts = []
    for center in centers.unbind(0):
        verdicts.append(holds(Window.at(center, lesion.shape, site.tissue.shape)))
        # where the host need not wait for the device, it can stop at the first place that holds
        if lesion.device.type == "cpu" and verdicts[-1].numpy():
            break
    fits = torch.stack(verdicts)
    chosen = centers.index_select(0, fits.to(torch.uint8).argmax(0, keepdim=True))[0]
    return chosen, fits.any(), Window.at(chosen, lesion.shape, site.tissue.shape)


def _coarse_candidates(
    site: Site, lesion: Tensor, keep_clear: Tensor, shares: tuple[float, float | None], generator
) -> Tensor:
    """Pick T centres, (T, 3) int64, best first: random ones that fit on the coarse grid, then the least bad.

    Of `shares` in tissue the first is needed; where the second is given, places that have it come before the others.
    """
    share, sought = shares
    volume, step = site.tissue.shape, coarse_step(site.tissue.shape)
    tissue = site.coarse_tissue
    occupied = pooled(site.occupied, step, F.max_pool3d)
    body = pooled(lesion, step, F.avg_pool3d)
    around = pooled(keep_clear, step, F.max_pool3d)
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
    if (weight := site.weights(centers)) is not None:
        rank, valid = _weighted(rank, valid, weight)
    fit = valid & (overlap < 0.5) & (inside >= share)
    # what does not fit on the coarse grid may fit exactly: least overlap first, far behind all that do fit
    score = torch.where(fit, 1 + rank, -overlap - (share - inside).clamp(min=0) * body.sum())
    if sought is not None:
        score = torch.where(fit & (inside >= sought), 2 + rank, score)
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


def coarse_step(volume: Sequence[int]) -> int:
    """Choose the cells' side in voxels on a patch's coarse grid."""
    return next((s for s in (1, 2, 4, 6) if max(volume) <= 33 * s), 8)


def pooled(mask: Tensor, step: int, pool) -> Tensor:
    """Pool a mask (X, Y, Z) to the cells of the coarse grid, float32."""
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


def _weighted(rank: Tensor, valid: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight random ranks so that their order is a draw without replacement (Efraimidis and Spirakis, 2006)."""
    weight = weight / weight.amax().clamp(min=1e-12)
    key = rank.clamp(min=1e-7).log() / weight.clamp(min=1e-12)
    return 1 / (1 - key), valid & (weight > 0)
