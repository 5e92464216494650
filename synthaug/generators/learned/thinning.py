"""Thinning of networks: features inside residual blocks that others can stand in for are taken out.

Between the two convolutions of a block lie features that the block alone sees. Which of them the second convolution
can do without, and what its weights must become then, is a least-squares problem for each block: the optimal brain
surgeon (Hassibi & Stork 1993, equations 5 and 6) for whole features, on the squared error of the block's own answer, as
optimal brain compression has it (Frantar & Alistarh 2022, arXiv 2208.11580, section 4). What is left of the error a
short distillation takes out (trainers/thin.py).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.learned.painter import TwoConvolutions

TAPS = 27
"""Weights of a block's second convolution (3 x 3 x 3) for each pair of features."""

RIDGE = 1e-5
"""Added to the diagonal of the moments, relative to its mean: some features hardly ever vary."""

AT_ONCE = 1 / 16
"""Share of a block's features that are taken out before the rest is weighed again."""

MOST_VOXELS = 1500
"""Of each call, drawn at random, that a block's moments are taken over."""

NEAR = 7
"""Side in voxels of the cube within which a voxel counts as near a lesion."""


def blocks(network: nn.Module) -> dict[str, TwoConvolutions]:
    """List the residual blocks that `hidden` describes, by name and in its order, of a painter or denoiser."""
    return {f"{way}.{i}": block for way in ("encode", "decode") for i, block in enumerate(getattr(network, way))}


def thinner_blocks(network: nn.Module, hidden: Sequence[int]) -> dict[str, TwoConvolutions]:
    """List the blocks that have more features inside than `hidden` says.

    Raises:
        ValueError: another number of blocks, or more features than a block has.
    """
    found = blocks(network)
    has = [block.second.in_channels for block in found.values()]
    if len(hidden) != len(has) or any(h > old for h, old in zip(hidden, has, strict=True)) or min(hidden) < 1:
        raise ValueError(f"hidden: expected {len(has)} numbers from 1 to {has}, got {list(hidden)}")
    return {name: block for (name, block), h, old in zip(found.items(), hidden, has, strict=True) if h < old}


def near(lesion: Tensor) -> Tensor:
    """Grow a lesion (N, 1, X, Y, Z) by the voxels around it; a float image of this shape."""
    return F.max_pool3d(lesion, NEAR, 1, NEAR // 2)


class Moments:
    """Sums second moments of what a block's second convolution sees and answers, in double precision.

    It sees its input's 3 x 3 x 3 neighbourhoods and a 1.

    Args:
        block: its second convolution is watched until `close`.

    Attributes:
        gram: (27 h + 1, 27 h + 1), for h features inside.
        cross: (27 h + 1, width).
    """

    def __init__(self, block: TwoConvolutions):
        inside, width = block.second.in_channels, block.second.out_channels
        self.gram = torch.zeros(TAPS * inside + 1, TAPS * inside + 1, dtype=torch.double)
        self.cross = torch.zeros(TAPS * inside + 1, width, dtype=torch.double)
        self.where: Tensor | None = None
        self.rng = torch.Generator().manual_seed(0)
        self._hook = block.second.register_forward_hook(self._see)

    def close(self) -> None:
        """Stop watching the block."""
        self._hook.remove()

    def _see(self, _module: nn.Module, given: tuple[Tensor], answer: Tensor) -> None:
        if self.where is None:
            raise RuntimeError("Moments: expected `where` before the network is called, got none")
        (features,) = given
        where = F.interpolate(self.where, size=features.shape[2:])[:, 0]
        for x, y, w in zip(features, answer, where, strict=True):
            self._add(x.float().cpu(), y.float().cpu(), w.cpu())

    def _add(self, features: Tensor, answer: Tensor, where: Tensor) -> None:
        """Add features (h, X, Y, Z) and answer (width, X, Y, Z) at some of the voxels where (X, Y, Z) is set."""
        voxels = where.flatten().nonzero()[:, 0]
        voxels = voxels[torch.randperm(len(voxels), generator=self.rng)[:MOST_VOXELS]]
        x, y, z = torch.unravel_index(voxels, where.shape)
        padded = F.pad(features, (1,) * 6)
        shifts = [(a, b, c) for a in range(3) for b in range(3) for c in range(3)]
        around = torch.stack([padded[:, x + a, y + b, z + c] for a, b, c in shifts], 1)
        seen = torch.cat((around.flatten(0, 1), torch.ones(1, len(voxels)))).double()
        self.gram += seen @ seen.T
        self.cross += seen @ answer.flatten(1)[:, voxels].T.double()


def surviving(moments: Moments, count: int) -> tuple[list[int], Tensor]:
    """Choose the features that a block keeps, and fit the second convolution that answers best with them.

    Args:
        moments: the block's moments.
        count: number of features to keep, at least 1 and no more than there are.

    Returns:
        Their numbers, ascending, and least-squares weights (27 count + 1, width), the bias last.
    """
    gram, width = moments.gram.clone(), (len(moments.gram) - 1) // TAPS
    gram.diagonal()[:-1] += RIDGE * gram.diagonal().mean()
    kept = list(range(width))
    while True:
        columns = torch.tensor([TAPS * f + tap for f in kept for tap in range(TAPS)] + [TAPS * width])
        inverse = torch.linalg.inv(gram[columns][:, columns])
        weights = inverse @ moments.cross[columns]
        if len(kept) == count:
            return kept, weights
        # what the squared error grows by without a feature, all other weights refitted
        own = [slice(TAPS * i, TAPS * i + TAPS) for i in range(len(kept))]
        loss = [float((weights[s] * torch.linalg.solve(inverse[s, s], weights[s])).sum()) for s in own]
        order = sorted(range(len(kept)), key=loss.__getitem__)
        dropped = {*order[: max(1, min(len(kept) - count, int(len(kept) * AT_ONCE)))]}
        kept = [f for i, f in enumerate(kept) if i not in dropped]


@torch.no_grad()
def thin(student: nn.Module, teacher: nn.Module, moments: Mapping[str, Moments]) -> None:
    """Give a thinner network the teacher's weights, with the blocks that are thinner refitted.

    Args:
        student: a painter or denoiser of the teacher's shape but for `hidden`.
        teacher: gives the weights.
        moments: by name, those of the teacher's blocks that are thinner in the student.
    """
    state, thinner = dict(teacher.state_dict()), blocks(student)
    for name, seen in moments.items():
        block = blocks(teacher)[name]
        kept, weights = surviving(seen, thinner[name].second.in_channels)
        rows = torch.tensor(kept, device=block.second.weight.device)
        for first in ("first.weight", "first.bias"):
            state[f"{name}.{first}"] = state[f"{name}.{first}"][rows]
        for modulation in ("modulation.weight", "modulation.bias"):  # of a denoiser's block: scales, then shifts
            if (key := f"{name}.{modulation}") in state:
                state[key] = torch.cat([part[rows] for part in state[key].chunk(2)])
        state[f"{name}.second.weight"] = weights[:-1].T.reshape(-1, len(kept), 3, 3, 3)
        state[f"{name}.second.bias"] = weights[-1]
    student.load_state_dict(state)
