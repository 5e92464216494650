"""Procedural lesion masks: irregular shapes from smooth random fields, with nested classes; no data needed.

A shape is the set of voxels where a distorted distance to the centre is small:

    f(x) = |x| / r * exp(irregularity * g(x)),

g a smooth Gaussian random field of unit variance (white noise on two coarse lattices, interpolated). Each
class boundary is a level of f with a field of its own mixed in, chosen as a quantile, so that the classes nest and
have the asked proportions of the volume: the innermost first, for a glioma necrotic core, enhancing rim, oedema.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.checks import checked_at_least, checked_range
from synthaug.classes import BRATS18, Classes, get_classes, same_tissue
from synthaug.lesions.base import Candidates, Lesion, LesionSource
from synthaug.random import seeded_noise, stream

GRID = 48
PREFIX = "shape:"


class LesionShapes(LesionSource):
    """Makes irregular nested lesion masks from a seed.

    Args:
        diameter_mm: range of the diameter of the sphere of equal volume, before the insertion's own scale.
        proportions: class name to share of the volume, innermost class first; by default necrotic core 0.12,
            enhancing rim 0.23, oedema 0.65.
        irregularity: 0 for balls; about 0.35 for lobulated gliomas.
        spread: how much proportions vary from shape to shape, as the standard deviation of their logarithm.
        classes: vocabulary of the names in `proportions`.

    Raises:
        ValueError: an unknown class, shares that are negative or all 0, an inverted range.

    Example:
        >>> shapes = LesionShapes(diameter_mm=(20, 20), proportions={"NCR": 0.2, "ET": 0.3, "ED": 0.5}, spread=0.0)
        >>> lesion = shapes.lesion("shape:7")
        >>> [round(voxels / sum(lesion.voxels), 2) for voxels in lesion.voxels]  # of NCR, ED, ET
        [0.2, 0.5, 0.3]
        >>> shapes.mask("shape:7", torch.device("cpu")).shape
        torch.Size([54, 54, 54])
    """

    margin_vox = 3

    def __init__(
        self,
        diameter_mm: float | tuple[float, float] = (10.0, 50.0),
        proportions: Mapping[str, float] | None = None,
        irregularity: float = 0.35,
        spread: float = 0.4,
        classes: Classes | str = BRATS18,
    ):
        vocabulary = get_classes(classes)
        if proportions is None:
            proportions = {"NCR": 0.12, "ET": 0.23, "ED": 0.65}
            if any(same_tissue(name, vocabulary.names) is None for name in proportions):
                proportions = {vocabulary.names[0]: 1.0}
        self.diameter_mm = checked_range("diameter_mm", diameter_mm)
        self.irregularity = checked_at_least("irregularity", irregularity)
        self.spread = checked_at_least("spread", spread)
        self.shares = {
            vocabulary.canonical(k): checked_at_least(f"proportions[{k}]", v) for k, v in proportions.items()
        }
        if sum(self.shares.values()) <= 0:
            raise ValueError(f"proportions: expected a positive sum, got {dict(proportions)}")
        self.classes, self._vocabulary = vocabulary.names, vocabulary

    @property
    def vocabulary(self) -> Classes:
        """The classes that the shapes were asked for."""
        return self._vocabulary

    def candidates(self, rng: np.random.Generator, exclude_group: str | None) -> Candidates:
        """Draw one fresh shape; it is of no patient, so `exclude_group` excludes nothing."""
        return Candidates([self.lesion(f"{PREFIX}{rng.integers(2**62)}")])

    def lesion(self, name: str) -> Lesion:
        """Make the shape of that name, which carries its seed.

        Raises:
            ValueError: the name is not one of a procedural shape.
        """
        seed = self._seed(name)
        rng = stream(seed)
        low, high = self.diameter_mm
        diameter = low + (high - low) * rng.random()
        voxels = self._voxels(rng)
        # the grid holds a given number of lesion voxels; its voxel size makes that the diameter in mm
        spacing = diameter / (6 * sum(voxels) / np.pi) ** (1 / 3)
        return Lesion(name, None, (GRID,) * 3, (float(spacing),) * 3, voxels)

    def mask(self, name: str, device: torch.device) -> Tensor:
        """Make a shape's mask, (X, Y, Z) uint8, its grid with the margin around it."""
        voxels = self.lesion(name).voxels
        distance, fields = self._distance(self._seed(name), device)
        order = [self.classes.index(c) for c in self.shares]
        mask = torch.zeros((GRID,) * 3, dtype=torch.uint8, device=device)
        outline, filled = self._lowest(distance, sum(voxels)), 0
        for step, k in enumerate(order):
            if voxels[k] == 0:
                continue
            filled += voxels[k]
            level = distance * torch.exp(0.5 * self.irregularity * fields[step])
            inner = self._lowest(torch.where(outline, level, torch.inf), filled)
            mask = torch.where((mask == 0) & inner, k + 1, mask).to(torch.uint8)
        return F.pad(mask, (self.margin_vox,) * 6)

    @staticmethod
    def _lowest(values: Tensor, count: int) -> Tensor:
        return values <= values.flatten().kthvalue(count).values

    def _seed(self, name: str) -> int:
        if not name.startswith(PREFIX) or not name[len(PREFIX) :].isdigit():
            raise ValueError(
                f"LesionShapes has no lesion {name!r}: expected {PREFIX}<seed>; was the plan made with it?"
            )
        return int(name[len(PREFIX) :])

    def _voxels(self, rng: np.random.Generator) -> tuple[int, ...]:
        shares = np.array(list(self.shares.values())) * np.exp(self.spread * rng.standard_normal(len(self.shares)))
        # a ball of this radius leaves room in the grid for its distortion
        total = 4 / 3 * np.pi * (GRID / 2 * np.exp(-1.1 * self.irregularity)) ** 3
        counts = dict.fromkeys(self.classes, 0)
        for name, share in zip(self.shares, shares / shares.sum(), strict=True):
            counts[name] = round(total * share)
        return tuple(counts.values())

    def _distance(self, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
        fields = _smooth_field(seed, len(self.shares), device)
        axis = (torch.arange(GRID, device=device, dtype=torch.float32) - (GRID - 1) / 2) / (GRID / 2)
        x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        radius = (x * x + y * y + z * z).sqrt()
        # the outermost voxels of the grid are never lesion, so that a shape is not cut off flat
        rim = torch.maximum(torch.maximum(x.abs(), y.abs()), z.abs()) > 1 - 1.5 / (GRID / 2)
        distance = radius * torch.exp(self.irregularity * fields[0])
        return torch.where(rim, torch.inf, distance), fields[1:]


def _smooth_field(seed: int, count: int, device: torch.device) -> Tensor:
    """Draw smooth fields of about unit variance, (count + 1, GRID, GRID, GRID), two octaves each."""
    total = torch.zeros((), device=device)
    for octave, (nodes, weight) in enumerate(((4, 0.85), (8, 0.5))):
        noise = seeded_noise([(seed + octave) % 2**63], (count + 1, nodes, nodes, nodes), device)
        total = total + weight * F.interpolate(noise, size=(GRID,) * 3, mode="trilinear", align_corners=True)
    return total[0]
