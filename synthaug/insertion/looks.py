"""Looks by request: whose style a trained generator gives a lesion, where `style=` names one.

A look is the style of one of a bank's lesions: mean, spread and fine texture of each class in each channel, all of them
together as they go together in that patient. Classes that the lesion does not have are filled in as the generator's
prior expects them beside those that it has. The generator strays from it a little, so that two lesions of one look
differ.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from synthaug.channels import select_channels
from synthaug.classes import Classes, same_tissue
from synthaug.generators.learned.style import StylePrior
from synthaug.generators.learned.styled import StyledGenerator
from synthaug.insertion.asked import Insertion
from synthaug.insertion.render import one_hot, renamed
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Lesion
from synthaug.random import Purpose, stream
from synthaug.sizes import equivalent_diameter_mm
from synthaug.transfers import on_device

OWN = ("donor", "host")
"""Values of `style` that are of `place="own"` and ask for no look."""
LOW_GRADE, HIGH_GRADE, LIKE_MASK = "low-grade", "high-grade", "like-mask"
ENHANCING = 0.03
"""Share of enhancing tumour in all of a patient's lesions below which he counts as low-grade."""
LEAST_VOXELS = 500
NEAREST = 3
FLOOR = 0.01


@dataclass(frozen=True)
class Looks:
    """Draws whose look lesions get, and gives the styles.

    Attributes:
        wanted: the option `style`.
        bank: whose lesions have the looks.
        classes: vocabulary of the insertion.
        channels: canonical names of its channels.
        generator: bound to them.
        prior: of the generator, on the CPU.
    """

    wanted: str
    bank: LesionBank
    classes: Classes
    channels: tuple[str, ...]
    generator: StyledGenerator
    prior: StylePrior
    _known: dict[str, Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, wanted: str, bank: object, classes: Classes, channels: tuple[str, ...], generator: object
    ) -> "Looks | None":
        """Make it of the option; None where it asks for no look.

        Raises:
            ValueError: a generator that takes no style, no bank, an unknown look, or a bank without such lesions.
        """
        if wanted in OWN:
            return None
        if not isinstance(generator, StyledGenerator):
            raise ValueError(
                f"style: {wanted} is for trained generators such as brats-gan; {type(generator).__name__} takes none"
            )
        if not isinstance(bank, LesionBank):
            raise ValueError(f"style: {wanted} is the look of a bank's lesions; give looks=LesionBank(...)")
        select_channels(channels, bank.channels, "the bank of looks")
        made = cls(wanted, bank, classes, channels, generator, copy.deepcopy(generator.prior).cpu())
        made.asked_for  # noqa: B018 (raises where there is no such lesion)
        return made

    def candidates(self, host_group: str | None) -> list[Lesion]:
        """List the lesions whose look may be taken, none of them of the host's own patient."""
        own = None if host_group is None else self.bank.group_of(host_group)
        return [x for x in self.asked_for if x.group != own]

    @cached_property
    def asked_for(self) -> list[Lesion]:
        """The lesions that have the look, of all patients.

        Raises:
            ValueError: there is none; what there is is named.
        """
        ample = [x for x in self.bank if sum(x.voxels) >= LEAST_VOXELS] or list(self.bank)
        if self.wanted == LIKE_MASK:
            found = ample
        elif self.wanted in (LOW_GRADE, HIGH_GRADE):
            low = self._low_grade()
            found = [x for x in ample if (x.group in low) == (self.wanted == LOW_GRADE)]
        else:
            group = self.bank.group_of(self.wanted)
            found = [x for x in self.bank if self.wanted == x.name] or [x for x in ample if x.group == group]
        if not found:
            patients = ", ".join(sorted(self.bank.groups)[:5])
            raise ValueError(
                f"style: expected donor, host, {LOW_GRADE}, {HIGH_GRADE}, {LIKE_MASK}, or a lesion or patient of the "
                f"bank ({patients}, ...), got {self.wanted}, of which the bank has no lesion"
            )
        return found

    def _low_grade(self) -> set[str | None]:
        """Patients whose lesions hardly enhance.

        Raises:
            ValueError: the bank has no class that enhances.
        """
        name = same_tissue("ET", self.bank.classes)
        if name is None:
            raise ValueError(
                f"style: {self.wanted} is told by enhancing tumour; the bank has {', '.join(self.bank.classes)}"
            )
        totals: dict[str | None, np.ndarray] = {}
        for x in self.bank:
            totals[x.group] = totals.get(x.group, np.zeros(len(x.voxels))) + np.array(x.voxels)
        column = self.bank.classes.index(name)
        return {group for group, voxels in totals.items() if voxels[column] < ENHANCING * voxels.sum()}

    def draw(self, row: Insertion, lesion: Lesion | None, classes: Sequence[str]) -> str | None:
        """Draw the lesion whose look an insertion gets; None where only the host's own patient has it.

        Args:
            row: the insertion.
            lesion: whose mask it has, None for one of the host's own.
            classes: names of the mask's classes.
        """
        found = self.candidates(row.host_group)
        if self.wanted == LIKE_MASK and lesion is not None and found:
            aim = self._told(lesion, classes, row)
            unlike = [float(np.square(self._told(x, self.bank.classes) - aim).sum()) for x in found]
            found = [found[i] for i in np.argsort(unlike, kind="stable")[:NEAREST]]
        if not found:
            return None
        return found[int(stream(row.seed, Purpose.LOOK).integers(len(found)))].name

    def _told(self, lesion: Lesion, classes: Sequence[str], row: Insertion | None = None) -> np.ndarray:
        """Log shares of the insertion's classes, after swaps, and the log diameter, which counts for half."""
        swaps, scale = ({}, 1.0) if row is None else (row.swaps, row.scale)
        shares = np.zeros(len(self.classes))
        for name, voxels in zip(classes, lesion.voxels, strict=True):
            known = self.classes.canonical(name)
            shares[self.classes.index(swaps.get(known, known))] += voxels
        diameter = scale * equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm)
        return np.append(np.log(shares / shares.sum() + FLOOR), 0.5 * np.log(diameter))

    def styles(self, rows: Sequence[Insertion], device: torch.device) -> Tensor | None:
        """Stack the styles (N, K, C, 3) of rows, NaN for those without a look; None where none has one."""
        if all(row.look is None for row in rows):
            return None
        known = [None if row.look is None else self._style(row.look) for row in rows]
        shape = next(style.shape for style in known if style is not None)
        return on_device(torch.stack([torch.full(shape, torch.nan) if s is None else s for s in known]), device)

    def _style(self, name: str) -> Tensor:
        if name not in self._known:
            cpu = torch.device("cpu")
            mask = renamed(self.bank.mask(name, cpu), {}, self.bank.classes, self.classes)
            index = select_channels(self.channels, self.bank.channels, "the bank of looks")
            image = self.bank.intensities(name, index, cpu)
            self._known[name] = self.generator.style_of(image, one_hot(mask, len(self.classes)), self.prior)
        return self._known[name]
