"""From a plan to voxels: crops out, generator, crops back, for all insertions of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from synthaug.blending import blended, soft_edge
from synthaug.classes import Classes
from synthaug.crops import Window
from synthaug.generators.base import TumorGenerator
from synthaug.intensity import HostSample, from_model, to_model
from synthaug.lesions.render import one_hot
from synthaug.placement import grown
from synthaug.plan import Insertion, InsertionPlan, Outcome
from synthaug.readback import on_device


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

    def write(self, plan: InsertionPlan, live: Sequence[int], image: Tensor, label: Tensor) -> None:
        """Write the insertions `live` of a plan, whose hosts and lesions are ready, into a batch in place.

        First lesions come before second ones, so that these see them; crops of one size go through the generator
        together.

        Args:
            plan: with `hosts` and `rendered` filled for `live`.
            live: positions of the insertions that may have been done.
            image: (B, C, X, Y, Z) contiguous.
            label: (B, X, Y, Z) contiguous.
        """

        def kind(n: int) -> tuple[int, tuple[int, ...]]:
            return plan.insertions[n].order, plan.insertions[n].crop_vox

        for _, group in groupby(sorted(live, key=kind), key=kind):
            self._paint_group(plan, list(group), image, label)

    def _paint_group(self, plan: InsertionPlan, group: Sequence[int], image: Tensor, label: Tensor) -> None:
        rows = [plan.insertions[n] for n in group]
        hosts = [plan.hosts[row.sample] for row in rows]
        windows = [Window.at(plan.center_vox[n], r.crop_vox, plan.volume_vox) for n, r in zip(group, rows, strict=True)]
        masks = [self._written(plan, n, w, h) for n, w, h in zip(group, windows, hosts, strict=True)]
        crops = [w.read(image[r.sample]) for w, r in zip(windows, rows, strict=True)]
        classes = torch.stack([one_hot(m, len(self.classes)) for m in masks])
        context = torch.stack([to_model(c, h.mean, h.std) for c, h in zip(crops, hosts, strict=True)])
        if not self.generator.needs_host:
            context = context * (classes.sum(1, keepdim=True) == 0)
        donor = torch.stack([plan.rendered[n].donor for n in group]) if self.generator.needs_donor else None
        painted = self.generator.generate(context, classes, [row.seed for row in rows], donor)
        for items in zip(rows, windows, hosts, masks, crops, painted, strict=True):
            self._write(*items, image, label)

    @staticmethod
    def _written(plan: InsertionPlan, n: int, window: Window, host: HostSample) -> Tensor:
        """The lesion's classes as they are written: cut to the tissue, and nothing where refused."""
        kept = window.read(host.tissue) & (plan.outcome[n] == Outcome.DONE)
        return plan.rendered[n].mask * kept

    def _write(
        self,
        row: Insertion,
        window: Window,
        host: HostSample,
        mask: Tensor,
        crop: Tensor,
        painted: Tensor,
        image,
        label,
    ) -> None:
        lesion, old = mask > 0, window.read(label[row.sample])
        support = lesion
        if self.halo_mm:
            halo = grown(lesion, self.halo_mm, row.spacing_mm) & window.read(host.tissue) & (old == 0)
            support = lesion | halo
        weight = soft_edge(support, self.edge_vox)
        new = blended(crop, from_model(painted, host.mean, host.std), weight, support, host.floor)
        window.write(image[row.sample], new)
        values = on_device([0, *self.classes.values.values()], label.device, label.dtype)
        window.write(label[row.sample], torch.where(lesion, values[mask.long()], old))
