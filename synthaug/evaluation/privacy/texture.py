"""Nearest training lesions in image space: how well the texture of a lesion is found again somewhere in another.

Compared is what is left inside classes: their means, and what an average over 9 voxels shows, are taken out, voxels
next to another class are left out, and channels count alike. So a mask, a contrast or a gradient that two lesions share
is no likeness. Blocks of one lesion are laid over the other at all shifts, and the highest normalised correlation is
kept: 1 for a copy, whatever its contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.generators.learned.style import class_moments, moving_average
from synthaug.geometry import cube_around
from synthaug.progress import shown

TAPS, STEP = 6, 2
"""A block has so many samples along each axis, so many voxels apart."""
LEAST_SHARE, LEAST_COUNT = 0.5, 12
"""Of a block's samples, that must lie inside the other lesion too."""
TOGETHER = 16


@dataclass(frozen=True)
class Texture:
    """What is left of a lesion inside its classes.

    Attributes:
        values: (C, X, Y, Z) float32, of unit spread, 0 outside.
        inside: (1, X, Y, Z) float32, 1 where there are such.
    """

    values: Tensor
    inside: Tensor

    @classmethod
    def of(cls, specimen: Specimen) -> "Texture":
        """Take means, borders and everything coarse out of a lesion."""
        inner = (moving_average(specimen.mask[None]) > 0.999).float() * specimen.mask[None]
        inside = inner.sum(1, keepdim=True)
        mean = torch.einsum("nkc,nkxyz->ncxyz", class_moments(specimen.image[None], inner)[0], inner)
        values = (specimen.image[None] - mean) * inside
        wide = [moving_average(moving_average(x), dilation=3) for x in (values, inside)]
        values = (values - wide[0] / wide[1].clamp(min=1e-3)) * inside
        # samples two voxels apart stand for both
        values, weight = (F.avg_pool3d(F.pad(x, (0, 1) * 3), 2, 1) for x in (values, inside))
        inside = (weight > 0.6).float()
        values = values / weight.clamp(min=0.1) * inside
        spread = (values.square().sum((2, 3, 4), True) / inside.sum((2, 3, 4), True).clamp(min=1)).sqrt()
        return cls((values / spread.clamp(min=1e-4))[0], inside[0])

    def blocks(self, count: int, rng: torch.Generator) -> list[Tensor]:
        """Cut the blocks (C + 1, taps, taps, taps) that hold most of it, among some drawn at random."""
        voxels, both = self.inside[0].nonzero(), torch.cat((self.values, self.inside))
        if not len(voxels):
            return []
        side = TAPS * STEP
        drawn = voxels[torch.randint(len(voxels), (8 * count,), generator=rng)]
        cut = [cube_around(both, center.tolist(), side)[:, ::STEP, ::STEP, ::STEP] for center in drawn]
        order = sorted(range(len(cut)), key=lambda i: -float(cut[i][-1].sum()))[: 3 * count : 3]
        return [cut[i] for i in order if cut[i][-1].sum() >= LEAST_COUNT]


@torch.no_grad()
def texture_similarity(
    lesions: Sequence[Specimen], others: Sequence[Specimen], blocks: int = 4, seed: int = 0
) -> Tensor:
    """Compute how well each lesion's blocks are found again in each other one, as a mean over its blocks.

    Args:
        lesions: N lesions.
        others: M lesions.
        blocks: of each lesion.
        seed: by which blocks are drawn.

    Returns:
        (N, M) float32, -1 to 1; NaN for a lesion that is too small for a block, or finds no room in the other.
    """
    rng = torch.Generator().manual_seed(seed)
    cut = [Texture.of(lesion).blocks(blocks, rng) for lesion in lesions]
    flat = [block for own in cut for block in own]
    found = torch.full((len(lesions), len(others)), torch.nan)
    if not flat:
        return found
    for m, other in enumerate(shown(others, "texture", "lesion")):
        best = torch.cat(
            [_best(Texture.of(other), torch.stack(flat[i : i + TOGETHER])) for i in range(0, len(flat), TOGETHER)]
        )
        for n, own in enumerate(best.split([len(own) for own in cut])):
            known = own[~own.isnan()]
            found[n, m] = known.mean() if len(known) else torch.nan
    return found


def _best(texture: Texture, blocks: Tensor) -> Tensor:
    """Find the highest correlation (B,) of blocks (B, C + 1, t, t, t) at any shift; NaN where little is in common."""
    reach = TAPS * STEP // 2
    values, inside = (F.pad(x[None], (reach,) * 6) for x in (texture.values, texture.inside))
    wanted, there = blocks[:, :-1], blocks[:, -1:]
    both = F.conv3d(inside, there, dilation=STEP)
    product = F.conv3d(values, wanted, dilation=STEP)
    theirs = F.conv3d(values.square().sum(1, keepdim=True), there, dilation=STEP)
    own = F.conv3d(inside, wanted.square().sum(1, keepdim=True), dilation=STEP)
    enough = both >= (LEAST_SHARE * rearrange(there, "b 1 x y z -> 1 b (x y z)").sum(-1)[..., None, None, None])
    likeness = product / (theirs * own).clamp(min=1e-6).sqrt()
    best = torch.where(enough, likeness, -torch.inf).flatten(2).amax(2)[0]
    return torch.where(best.isinf(), torch.nan, best)
