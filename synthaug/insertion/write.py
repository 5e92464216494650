"""Writing of a plan's lesions: crops out of the batch, through the generator, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.geometry import Window, grown
from synthaug.host import HostSample, from_model, to_model
from synthaug.host.units import within
from synthaug.insertion.blending import Edge, blended, donor_tissue
from synthaug.insertion.contrast import contrasted
from synthaug.insertion.heal import healed, other_side
from synthaug.insertion.looks import Looks
from synthaug.insertion.means import held
from synthaug.insertion.own import OwnLesion, look, style_of
from synthaug.insertion.plan import Insertion, InsertionPlan, Outcome
from synthaug.insertion.push import pushed, reach_vox
from synthaug.insertion.render import one_hot
from synthaug.insertion.show_through import shown_through
from synthaug.insertion.work import Work
from synthaug.transfers import on_device


@dataclass(frozen=True)
class Spot:
    """A lesion's crop in a sample, ready to be painted.

    Attributes:
        row: the plan's row.
        host: tissue and statistics of the sample.
        window: the crop's addresses.
        mask: (x, y, z) uint8, the lesion's classes as they are written, k + 1 in class k.
        support: (x, y, z) bool, the voxels that change: the lesion and, where one is wanted, its halo.
        crop: (C, x, y, z), the sample's intensities, healed where a lesion of its own shrinks.
        old: (x, y, z), the sample's labels, likewise.
        donor: (C, x, y, z) model intensities that the generator is given, or None.
    """

    row: Insertion
    host: HostSample
    window: Window
    mask: Tensor
    support: Tensor
    crop: Tensor
    old: Tensor
    donor: Tensor | None = None


@dataclass(frozen=True)
class CropWriter:
    """Generates lesions and writes them inside their support.

    Attributes:
        generator: bound to the batch's channels and classes.
        classes: vocabulary of the labels.
        edge: how lesions end.
        limits: lowest and highest model intensity of each channel, or None.
        host_label: what the label becomes where a lesion of the host's own shrinks.
        looks: give the styles of rows that ask for a look, or None.
        means: least and greatest mean of painted classes, (2, K, C), or None (`synthaug.insertion.means`).
        showing: shares of the host that show through, (K, C), or None (`synthaug.insertion.show_through`).
    """

    generator: TumorGenerator
    classes: Classes
    edge: Edge
    limits: Sequence[tuple[float, float]] | None = None
    host_label: int = 0
    looks: Looks | None = None
    means: Tensor | None = None
    showing: Tensor | None = None

    def write(self, work: Work, plan: InsertionPlan, image: Tensor, label: Tensor) -> None:
        """Write a plan's lesions into a batch, in place.

        First lesions come before second ones, so that these see them; crops of one size go through the generator
        together.

        Args:
            work: the call's intermediate results; its batch is left as it is.
            plan: the plan, on the batch's device.
            image: (B, C, X, Y, Z) contiguous.
            label: (B, X, Y, Z) contiguous.
        """

        def kind(n: int) -> tuple[int, tuple[int, int, int]]:
            return plan.insertions[n].order, plan.insertions[n].live_crop_vox

        for _, group in groupby(sorted(plan.live, key=kind), key=kind):
            self._paint_group(work, plan, list(group), image, label)

    def _paint_group(self, work: Work, plan: InsertionPlan, group: Sequence[int], image: Tensor, label: Tensor) -> None:
        spots = [self._spot(work, plan, n, image, label) for n in group]
        classes = stacked([one_hot(self._shown(s), len(self.classes)) for s in spots])
        context = within(stacked([to_model(s.crop, s.host.mean, s.host.std) for s in spots]), self.limits)
        if not self.generator.needs_host:
            context.mul_(classes.sum(1, keepdim=True) == 0)
        donor = stacked([_known(s.donor) for s in spots]) if self.generator.needs_donor else None
        told = {"support": stacked([s.support for s in spots])} if self.generator.needs_support else {}
        styles = None if self.looks is None else self.looks.styles([s.row for s in spots], context.device)
        if styles is not None:
            told["style"] = styles
        painted = self.generator.generate(context, classes, [s.row.seed for s in spots], donor, **told)
        bounds = None if self.means is None else on_device(self.means, painted.device)
        for spot, crop, mask in zip(spots, painted, classes, strict=True):
            crop = crop if bounds is None else held(crop, mask, bounds)
            self._write(spot, self._showing(spot, contrasted(crop, mask, spot.row), mask), image, label)

    def _showing(self, spot: Spot, painted: Tensor, mask: Tensor) -> Tensor:
        """Let the host show through a painted crop, where it is not a lesion that lies under it."""
        if self.showing is None:
            return painted
        under = within(to_model(spot.crop, spot.host.mean, spot.host.std), self.limits)
        shares = on_device(self.showing, painted.device, painted.dtype)
        return shown_through(painted, under, mask * (spot.old == self.host_label), shares)

    def _spot(self, work: Work, plan: InsertionPlan, n: int, image: Tensor, label: Tensor) -> Spot:
        row = plan.insertions[n]
        if row.place == "own":
            return self._own_spot(work, plan, n, image, label)
        host, window = work.host(row.sample), Window.at(plan.center_vox[n], row.live_crop_vox, plan.volume_vox)
        tissue, old = window.read(host.tissue), window.read(label[row.sample])
        # cut to the tissue, and nothing where refused
        mask = work.rendered(n).mask * (tissue & (plan.outcome[n] == Outcome.DONE))
        donor, free = work.rendered(n).intensities if self.generator.needs_donor else None, tissue & (old == 0)
        if donor is not None and self.edge.fringe_mm:
            free = free & donor_tissue(donor, mask)
        support = self.edge.support(mask, free, row.spacing_mm)
        if row.mass_effect_mm:
            self._push(work, row, mask, plan.center_vox[n], plan.volume_vox, image, label)
        return Spot(row, host, window, mask, support, window.read(image[row.sample]), old, donor)

    @staticmethod
    def _push(
        work: Work, row: Insertion, mask: Tensor, center: Tensor, volume: Sequence[int], image: Tensor, label: Tensor
    ) -> None:
        """Push the surroundings of a lesion, in place, in a window that is larger than its crop."""
        reach = reach_vox(row.mass_effect_mm, row.spacing_mm)
        window = Window.at(center, [n + 2 * r for n, r in zip(mask.shape, reach, strict=True)], volume)
        lesion = F.pad(mask > 0, [r for r in reversed(reach) for _ in range(2)])
        # what is outside the patch is read as 0: no tissue
        loose = window.read(~work.fixed_tissue(row.sample)) & (window.read(label[row.sample]) == 0)
        crop = window.read(image[row.sample])
        window.write(image[row.sample], pushed(crop, lesion, ~(loose | lesion), row.mass_effect_mm, row.spacing_mm))

    def _own_spot(self, work: Work, plan: InsertionPlan, n: int, image: Tensor, label: Tensor) -> Spot:
        """Make the spot of a lesion of the host's own: the crop is healed where it shrinks."""
        row, own = plan.insertions[n], work.own(n)
        host, window, done = work.host(row.sample), own.window, plan.outcome[n] == Outcome.DONE
        crop, old = window.read(image[row.sample]), window.read(label[row.sample])
        z, tissue, vacated = to_model(crop, host.mean, host.std), window.read(host.tissue), own.vacated & done
        donor = None
        if self.generator.needs_donor:
            made = work.lesions
            channels, style = made.donor_channels or [], None
            if row.lesion is not None:
                style = style_of(made.source, row.lesion, channels, self.classes, crop.device)
            donor = look(own, z, row, style, self.classes)
        # under the soft edge of what is painted, too
        hole = (own.old > 0) & done & grown(vacated, self.edge.vox + 1, (1.0, 1.0, 1.0))
        if row.scale != 1:
            fresh = healed(z, tissue & (old == 0), hole, row.seed, self._other_side(row, own, host, image, label))
            fresh = from_model(within(fresh, self.limits), host.mean, host.std).to(crop.dtype)
            crop = torch.where(hole, fresh, crop)
        old = torch.where(vacated, self.host_label, old).to(old.dtype)
        mask = own.new * done
        support = self.edge.support(mask, tissue & (old == self.host_label), row.spacing_mm)
        return Spot(row, host, window, mask, support, crop, old, donor)

    def _other_side(
        self, row: Insertion, own: OwnLesion, host: HostSample, image: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Read the mirror image of a crop, where it is known where that lies."""
        if row.other_side is None:
            return None
        z, healthy = host.to_model(image[row.sample]), host.tissue & (label[row.sample] == self.host_label)
        return other_side(z, healthy, own.center_vox - own.center, own.window.size, row.other_side)

    def _shown(self, spot: Spot) -> Tensor:
        return self.edge.shown(spot.mask, spot.support, len(self.classes), spot.row.spacing_mm)

    def _write(self, spot: Spot, painted: Tensor, image: Tensor, label: Tensor) -> None:
        weight, sample = self.edge.weight(spot.support, spot.row.spacing_mm), spot.row.sample
        generated = from_model(within(painted, self.limits), spot.host.mean, spot.host.std)
        mixed = blended(spot.crop, generated, weight, spot.support, spot.host.floor, self.edge.texture)
        spot.window.write(image[sample], mixed)
        values = on_device([0, *self.classes.values.values()], label.device, label.dtype)
        spot.window.write(label[sample], torch.where(spot.mask > 0, values[spot.mask.long()], spot.old))


def _known(donor: Tensor | None) -> Tensor:
    """Return the donor's intensities.

    Raises:
        ValueError: there are none.
    """
    if donor is None:
        raise ValueError("lesion: expected the donor's intensities, got a mask alone")
    return donor


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors, without a copy where there is one: crops are large, and on CPUs fresh memory is dear."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
