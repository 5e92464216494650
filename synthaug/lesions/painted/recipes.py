"""Recipes of lesions that are painted ahead: drawn from a seed, and written into the lesion's name.

Recipe n is a function of the seed and n alone, so that a run goes on, or back, to any n without those before it. The
donors come in shuffled rounds, each once in a round where its size allows; a size that the donor whose turn it is
cannot have goes to the next one that can.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

import numpy as np

from synthaug.geometry import triple
from synthaug.insertion.asked import Insertion
from synthaug.insertion.draw import Decider
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Candidates
from synthaug.lesions.scale import Turns, extents_vox
from synthaug.random import Purpose, stream

NO_TURNS = Turns(flip=0.0, rotate90=False)
"""Lesions are painted upright: each insertion turns them anew."""

SCALE_DIGITS, SPACING_DIGITS = 3, 4
ANY_VOLUME = (1 << 20,) * 3
"""Streams of random numbers, apart from each other and from the insertion's."""

_NAME = re.compile(
    r"(?P<lesion>.+) x(?P<scale>\d+\.\d{3}) (?P<spacing>[\d.]+x[\d.]+x[\d.]+)mm(?: (?P<swaps>\S+))?"
    r" by (?P<painter>\S+) #(?P<seed>\d+)"
)


@dataclass(frozen=True)
class Recipe:
    """All that decides what a painted lesion looks like, given the bank and the generator.

    Attributes:
        lesion: name of the donor, whose mask is painted.
        scale: linear factor in mm, to 3 decimals.
        spacing_mm: voxel size of the painting, to 4 decimals.
        swaps: classes renamed in the mask, old name to new name.
        painter: name of the generator and `synthaug.generators.identity.fingerprint`.
        seed: the painting's own, from which its noise follows.
    """

    lesion: str
    scale: float
    spacing_mm: tuple[float, float, float]
    swaps: Mapping[str, str]
    painter: str
    seed: int

    @property
    def name(self) -> str:
        """The painted lesion's name, such as ``"P1/0 x0.512 1x1x1mm ED:ET by brats-gan-0a1b2c3d #7"``; says all."""
        spacing = "x".join(f"{s:.{SPACING_DIGITS}f}".rstrip("0").rstrip(".") for s in self.spacing_mm)
        swaps = "+".join(f"{quote(a, safe='')}:{quote(b, safe='')}" for a, b in self.swaps.items())
        scale = f"{self.scale:.{SCALE_DIGITS}f}"
        parts = (self.lesion, f"x{scale}", f"{spacing}mm", swaps, f"by {self.painter}", f"#{self.seed}")
        return " ".join(part for part in parts if part)

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """Read a recipe from a painted lesion's name.

        Raises:
            ValueError: it is not such a name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"expected a painted lesion, MASK x0.500 1x1x1mm by GENERATOR #1, got {name!r}")
        pairs = [pair.split(":") for pair in (match["swaps"] or "").split("+") if pair]
        return cls(
            lesion=match["lesion"],
            scale=float(match["scale"]),
            spacing_mm=triple(float(s) for s in match["spacing"].split("x")),
            swaps={unquote(a): unquote(b) for a, b in pairs},
            painter=match["painter"],
            seed=int(match["seed"]),
        )


class Recipes:
    """Draws recipes.

    Args:
        bank: donors, whose masks are painted.
        decider: draws sizes and swaps and knows limits and crops; its seed and rank are those of the recipes.
        spacing_mm: voxel size of the paintings.
        painter: name of the generator.
    """

    def __init__(self, bank: LesionBank, decider: Decider, spacing_mm: Sequence[float], painter: str):
        self.bank, self.decider, self.painter = bank, decider, painter
        self.spacing_mm = triple(round(float(s), SPACING_DIGITS) for s in spacing_mm)
        self._donors = bank.candidates(stream(0), None)

    def draw(self, number: int, attempt: int) -> Recipe | None:
        """Draw recipe `number`, or a further attempt where one came to nothing; None where no donor has its size."""
        decider = self.decider
        rng = stream(Purpose.RECIPES, decider.seed, decider.rank, number, attempt)
        seed, swaps = int(rng.integers(2**32)), decider.swaps.sample(rng) if decider.swaps else {}
        drawn = decider.scale.draw(rng, swaps)
        factors = decider.scale.factors(drawn, self._donors).round(SCALE_DIGITS)
        extents = extents_vox(self._donors, factors, self.spacing_mm, NO_TURNS.draw(rng))
        usable, refused = decider.limits.usable(self._donors, factors, extents, self.spacing_mm, ANY_VOLUME)
        if refused:
            return None
        turn, place = divmod(number + attempt, len(self._donors))
        order = stream(Purpose.RECIPE_ROUNDS, decider.seed, decider.rank, turn).permutation(len(self._donors))
        pick = next(donor for donor in np.roll(order, -place) if np.isin(donor, usable))
        lesion = self._donors.lesions[pick]
        present = {name for name, voxels in zip(self.bank.classes, lesion.voxels, strict=True) if voxels}
        swaps = {old: new for old, new in swaps.items() if old in present}
        return Recipe(lesion.name, float(factors[pick]), self.spacing_mm, swaps, self.painter, seed)

    def insertion(self, recipe: Recipe) -> Insertion:
        """Make the insertion by which `synthaug.insertion.render.render` makes the mask."""
        lesion = self.bank.lesion(recipe.lesion)
        upright = NO_TURNS.draw(stream(0))
        extent = extents_vox(Candidates([lesion]), np.array([recipe.scale]), recipe.spacing_mm, upright)[0]
        return Insertion(
            sample=0,
            number=0,
            order=0,
            seed=recipe.seed,
            lesion=lesion.name,
            donor_group=lesion.group,
            host_group=None,
            swaps=recipe.swaps,
            scale=recipe.scale,
            spacing_mm=recipe.spacing_mm,
            crop_vox=self.decider.limits.crop(extent, recipe.spacing_mm),
        )
