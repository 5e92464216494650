"""Painting of lesions ahead of their insertion: a mask in its size, a generator, a neutral host.

A painting is a function of its recipe, the bank and the generator. The host is none in particular: a texture like
tissue's, of mean 0 and standard deviation 1 in every channel. Compared with painting in real hosts (24 lesions by
brats-gan, 8 by brats-diffusion), it changes the fine texture of a class by at most 10 % on average, its spread by at
most 12 % and its mean by at most 0.13 standard deviations of host tissue, about as much as another real host does and a
tenth of what another seed does. A flat host takes a fifth to a third of the fine texture and of the spread of oedema.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.checks import checked_at_least, checked_range
from synthaug.classes import in_names_of, of_names
from synthaug.generators.base import TumorGenerator
from synthaug.generators.identity import fingerprint, generator_facts, settings_of
from synthaug.generators.procedural import texture
from synthaug.generators.registry import resolve_generator
from synthaug.geometry import triple
from synthaug.insertion.draw import Decider
from synthaug.insertion.limits import Limits
from synthaug.insertion.render import one_hot, render
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Lesion, center_of, known_frame
from synthaug.lesions.cutting import MARGIN_VOX, MIN_VOXELS, lesion_row
from synthaug.lesions.painted.recipes import NO_TURNS, Recipe, Recipes
from synthaug.lesions.rebalance import Swap, Swaps
from synthaug.lesions.scale import ScaleRange
from synthaug.random import Purpose, seed_for

ATTEMPTS = 50
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Painting:
    """A painted lesion.

    Attributes:
        row: its row in a bank, as `synthaug.lesions.cutting.lesion_row` gives it.
        intensities: (C, X, Y, Z) float16 model intensities on the painter's device.
    """

    row: Mapping[str, Any]
    intensities: Tensor

    @property
    def lesion(self) -> Lesion:
        """The painting as a `Lesion`."""
        row = self.row
        size, spacing_mm = triple(row["size"]), triple(row["spacing_mm"])
        return Lesion(row["name"], row["group"], size, spacing_mm, tuple(row["voxels"]), known_frame(row["frame"]))

    @property
    def mask(self) -> Tensor:
        """(X, Y, Z) uint8 on the CPU, k + 1 in class k."""
        return self.row["mask"].reshape(self.intensities.shape[1:])


class LesionPainter:
    """Paints lesions by number, or again by name.

    Args:
        bank: donors, whose masks are painted.
        generator: name, folder, hub id, or `TumorGenerator`; one that needs no donor.
        scale, diameter_mm, scale_after_swap, swaps, swap_draw: as for `TumorInsertion`.
        spacing_mm: voxel size of the paintings, that of the patches into which they will be inserted.
        seed, rank: decide the recipes.
        device: device of the generator.
        **generator_options: of `synthaug.load_generator`.

    Raises:
        ValueError: a generator that needs a donor, or that does not know the bank's classes or channels; sizes or
            swaps that do not fit, as for `TumorInsertion`.
    """

    def __init__(
        self,
        bank: LesionBank,
        generator: str | TumorGenerator,
        *,
        scale: float | tuple[float, float] | None = None,
        diameter_mm: float | tuple[float, float] | None = None,
        scale_after_swap: Mapping[str, tuple[float, float]] | None = None,
        swaps: Sequence[Swap] = (),
        swap_draw: str = "joint",
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        seed: int = 0,
        rank: int = 0,
        device: str | torch.device = "cpu",
        **generator_options: Any,
    ):
        self.bank, self.device, self.classes = bank, torch.device(device), of_names(bank.classes)
        whole = resolve_generator(generator, **generator_options)
        if whole.needs_donor:
            raise ValueError(
                f"{type(whole).__name__} repeats its donors and paints nothing: give a generator such as brats-gan, "
                "or insert from the bank itself"
            )
        self.generator = whole.bind(bank.channels, in_names_of(bank.classes, whole.classes))
        # a seed gives other noise on another kind of device
        facts = generator_facts(generator, whole) | {"settings": settings_of(whole), "device": self.device.type}
        chosen = Swaps(swaps, swap_draw, self.classes)
        sizes = ScaleRange.checked(scale, diameter_mm, scale_after_swap, self.classes)
        decider = self._decider(sizes, chosen, int(checked_at_least("seed", seed)), rank)
        name = f"{facts['name'].replace(' ', '_')}-{fingerprint(facts)}"
        self.recipes = Recipes(bank, decider, _checked_spacing(spacing_mm), name)
        self._given = generator
        self._facts = {
            "generator": facts,
            "scale": sizes.scale if diameter_mm is None else None,
            "diameter_mm": sizes.diameter_mm,
            "scale_after_swap": dict(sizes.after_swap),
            "swaps": [[*pair, prob] for pair, prob in zip(chosen.pairs, chosen.probs, strict=True)],
            "swap_draw": swap_draw,
            "spacing_mm": self.recipes.spacing_mm,
            "seed": decider.seed,
            "source": {"lesions": len(bank), "groups": len(bank.groups), "crc32": bank.checksum},
        }

    def _decider(self, sizes: ScaleRange, swaps: Swaps, seed: int, rank: int) -> Decider:
        """Make what draws the recipes: every lesion alone, upright, and anywhere."""
        return Decider(
            source=self.bank,
            class_order=list(range(len(self.bank.classes))),
            prob=1.0,
            second=0.0,
            swaps=swaps if swaps.pairs else None,
            mix=None,
            scale=sizes,
            turns=NO_TURNS,
            limits=Limits(
                min_voxels=MIN_VOXELS,
                clearance_mm=0.0,
                halo_mm=0.0,
                generator_margin=max(self.generator.margin_vox, MARGIN_VOX),
                crop_sizes=self.generator.crop_sizes,
                cubic=self.generator.cubic,
                prefer_mild=sizes.diameter_mm is not None,
            ),
            seed=seed,
            rank=rank,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for a bank's file: generator, sizes, swaps, seed, source, and ``taught_on``, the generator's patients.

        None stands for patients that nothing tells. They are looked for when asked, not where a training begins.
        """
        from synthaug.generators.patients import generator_patients  # it reads cases, which `import synthaug` need not

        taught = generator_patients(self._given)
        return self._facts | {"taught_on": None if taught is None else sorted(taught)}

    def copied(self) -> "LesionPainter":
        """Copy the painter with a generator of its own, for another thread."""
        other = copy.copy(self)
        other.generator = copy.deepcopy(self.generator)
        return other

    def paint(self, number: int) -> Painting:
        """Paint lesion `number` of the sequence.

        Raises:
            ValueError: no donor has a size that is asked for.
        """
        for attempt in range(ATTEMPTS):
            recipe = self.recipes.draw(number, attempt)
            if recipe is not None and (painting := self._painted(recipe)) is not None:
                return painting
        raise ValueError(
            f"no lesion could be painted in {ATTEMPTS} draws: at the sizes asked for, all {len(self.bank)} donors have "
            f"fewer than {MIN_VOXELS} voxels of {self.recipes.spacing_mm} mm or are larger than the generator's crops"
        )

    def repaint(self, name: str) -> Painting:
        """Paint again the lesion of that name.

        Raises:
            ValueError: not the name of a painting, one by another generator, or of a donor that the bank lacks.
        """
        recipe = Recipe.parse(name)
        if recipe.painter != self.recipes.painter:
            raise ValueError(f"{name!r} was painted by {recipe.painter}; this generator is {self.recipes.painter}")
        painting = self._painted(recipe)
        if painting is None:
            raise ValueError(f"{name!r}: expected a lesion of {MIN_VOXELS} voxels or more; was it made with this bank?")
        return painting

    def read(self, bank: LesionBank) -> list[Painting]:
        """Read the lesions of a painted bank as paintings.

        Raises:
            ValueError: a bank that was not painted, or one with other classes, channels or generator than this one.
        """
        found = [Recipe.parse(lesion.name).painter for lesion in bank] if bank.painting else []
        if not found or set(found) != {self.recipes.painter}:
            raise ValueError(
                f"expected a bank that was painted by {self.recipes.painter}, got one painted by "
                f"{', '.join(sorted(set(found))) or 'nobody'}"
            )
        if (bank.classes, bank.channels) != (self.bank.classes, self.bank.channels):
            raise ValueError(
                f"the painted bank has {', '.join((*bank.classes, *bank.channels))}; "
                f"that of the donors {', '.join((*self.bank.classes, *self.bank.channels))}"
            )
        return [Painting(row, self._box(row).to(self.device)) for row in bank.rows()]

    @torch.no_grad()
    def _painted(self, recipe: Recipe) -> Painting | None:
        """Paint a recipe; None where resampling leaves fewer voxels than the floor."""
        row = self.recipes.insertion(recipe)
        mask = render(self.bank, row, self.classes, None, CPU).mask
        if int((mask > 0).sum()) < MIN_VOXELS:
            return None
        classes = one_hot(mask, len(self.classes)).to(self.device)
        context = neutral_host(recipe.seed, len(self.bank.channels), tuple(mask.shape)).to(self.device)
        if not self.generator.needs_host:
            context = context * (classes.sum(0) == 0)
        z = self.generator.generate(context[None], classes[None], [recipe.seed])[0].float().cpu()
        if not z.isfinite().all():
            raise ValueError(f"{recipe.name}: the generator painted values that are not finite")
        kept = lesion_row(
            *(recipe.name, row.donor_group, mask.numpy(), z, recipe.spacing_mm, len(self.classes)),
            frame=self._frame(recipe, mask.shape),
        )
        return Painting(self._complete(kept, recipe), self._box(kept).to(self.device))

    def _frame(self, recipe: Recipe, size: Sequence[int]) -> np.ndarray | None:
        """Of the painting's crop: its centre lies where the donor's does, whatever its scale."""
        donor = self.bank.lesion(recipe.lesion)
        if donor.frame is None:
            return None
        linear = np.array(donor.frame)[:, :3] * np.divide(recipe.spacing_mm, donor.spacing_mm)
        offset = center_of(donor, MARGIN_VOX) - linear @ [n // 2 for n in size]
        return np.concatenate([linear, offset[:, None]], axis=1)

    def _complete(self, row: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
        """Add the donor's own statistics of classes that the painting lacks: a row must not depend on others."""
        known = self.bank.class_statistics(recipe.lesion, range(len(self.bank.channels)))
        for key, value in zip(("mean", "std"), known, strict=True):
            row[key] = torch.where(row[key].isnan(), value, row[key])
        return row

    @staticmethod
    def _box(row: Mapping[str, Any]) -> Tensor:
        return row["intensities"].reshape(-1, *(n + 2 * MARGIN_VOX for n in row["size"]))


def neutral_host(seed: int, channels: int, size: Sequence[int]) -> Tensor:
    """Make a host, (C, X, Y, Z) float32 on the CPU: a texture of about mean 0 and standard deviation 1."""
    return texture(seed_for(seed, Purpose.NEUTRAL_HOST), channels, size, CPU)


def _checked_spacing(spacing_mm: Any) -> tuple[float, float, float]:
    values = tuple(checked_range("spacing_mm", s)[0] for s in spacing_mm)
    if len(values) != 3:
        raise ValueError(f"spacing_mm: expected 3 values, got {spacing_mm}")
    return triple(values)
