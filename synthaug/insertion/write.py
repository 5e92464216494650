"""Writing of a plan's lesions: crops out of the batch, through the generator, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.geometry import Window, grown
from synthaug.host import HostSample, from_model, to_model
from synthaug.insertion.blending import blended, soft_edge
from synthaug.insertion.plan import Insertion, InsertionPlan, Outcome
from synthaug.insertion.render import one_hot
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
        crop: (C, x, y, z), the sample's intensities.
        old: (x, y, z), the sample's labels.
    """

    row: Insertion
    host: HostSample
    window: Window
    mask: Tensor
    support: Tensor
    crop: Tensor
    old: Tensor


@dataclass(frozen=True)
class CropWriter:
    """Generates lesions and writes them inside their support.

    Attributes:
        generator: bound to the batch's channels and classes.
        classes: vocabulary of the labels.
        halo_mm: width of the support around the lesion.
        edge_vox: width of the soft edge.
    """

    generator: TumorGenerator
    classes: Classes
    halo_mm: float
    edge_vox: float

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
        classes = stacked([one_hot(s.mask, len(self.classes)) for s in spots])
        context = stacked([to_model(s.crop, s.host.mean, s.host.std) for s in spots])
        if not self.generator.needs_host:
            context.mul_(classes.sum(1, keepdim=True) == 0)
        donor = stacked([work.rendered(n).intensities for n in group]) if self.generator.needs_donor else None
        told = {"support": stacked([s.support for s in spots])} if self.generator.needs_support else {}
        painted = self.generator.generate(context, classes, [s.row.seed for s in spots], donor, **told)
        for spot, crop in zip(spots, painted, strict=True):
            self._write(spot, crop, image, label)

    def _spot(self, work: Work, plan: InsertionPlan, n: int, image: Tensor, label: Tensor) -> Spot:
        row = plan.insertions[n]
        host, window = work.host(row.sample), Window.at(plan.center_vox[n], row.live_crop_vox, plan.volume_vox)
        tissue, old = window.read(host.tissue), window.read(label[row.sample])
        # cut to the tissue, and nothing where refused
        mask = work.rendered(n).mask * (tissue & (plan.outcome[n] == Outcome.DONE))
        support = mask > 0
        if self.halo_mm:
            support = support | grown(support, self.halo_mm, row.spacing_mm) & tissue & (old == 0)
        return Spot(row, host, window, mask, support, window.read(image[row.sample]), old)

    def _write(self, spot: Spot, painted: Tensor, image: Tensor, label: Tensor) -> None:
        weight, sample = soft_edge(spot.support, self.edge_vox), spot.row.sample
        generated = from_model(painted, spot.host.mean, spot.host.std)
        spot.window.write(image[sample], blended(spot.crop, generated, weight, spot.support, spot.host.floor))
        values = on_device([0, *self.classes.values.values()], label.device, label.dtype)
        spot.window.write(label[sample], torch.where(spot.mask > 0, values[spot.mask.long()], spot.old))


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors, without a copy where there is one: crops are large, and on CPUs fresh memory is dear."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
