"""`TumorInsertion`: decide what goes where, then do it, on the batch's own device."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthaug.channels import canonical_channels
from synthaug.checks import checked_at_least, checked_probability
from synthaug.classes import BRATS18, Classes, get_classes
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.geometry import grown
from synthaug.host import HostSample
from synthaug.insertion.assembly import donor_channels, process_rank, resolve_lesions
from synthaug.insertion.batch import (
    HostMask,
    ValueCheck,
    checked_batch,
    checked_groups,
    checked_host,
    checked_mask,
    checked_spacing,
    checked_statistics,
    host_of,
)
from synthaug.insertion.draw import Decider
from synthaug.insertion.placement import Site, place
from synthaug.insertion.plan import InsertionPlan, Outcome
from synthaug.insertion.render import Rendered, render
from synthaug.insertion.report import Audit, Report
from synthaug.insertion.steering import Steering
from synthaug.insertion.write import CropWriter
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix, Swap, Swaps
from synthaug.lesions.scale import ScaleRange, Turns
from synthaug.stopwatch import costed
from synthaug.transfers import on_device


class TumorInsertion(Steering):
    """Inserts label-conditioned synthetic tumours into training batches.

    ``insert(image, label)`` is ``insert.apply(image, label, insert.plan(image, label))``. Inputs are never modified:
    new tensors come back, or the inputs themselves where nothing was asked for. Outside the support of an insertion
    every voxel of image and label is the input's, bit for bit.

    Args:
        lesions: masks: a `LesionBank` (or the path of one), `LesionShapes`, or `PaintedLesions`.
        generator: appearance: ``"paste"``, ``"procedural"``, or a `TumorGenerator`.
        classes: label vocabulary of the batches.
        channels: names of the image channels, in order; aliases of BraTS 2023 are understood.
        prob: probability of a lesion per sample.
        second: probability of another lesion in a sample that was to get one.
        scale: range of the linear scale, or a fixed factor; (1, 1) where neither it nor `diameter_mm` is given.
        diameter_mm: instead of `scale`, range of the diameter of the sphere of equal volume, in mm.
        scale_after_swap: other scales where a class was swapped away, for example ``{"ED": (0.1, 0.3)}``.
        swaps: class swaps (from, to, probability); they act on the lesion's original classes.
        swap_draw: ``"joint"``, one event for all swaps, or ``"each"``, one event per swap.
        class_mix: instead of `swaps`, target shares of the inserted voxels per class.
        clearance_mm: no existing label within this distance of a lesion.
        tissue_share: share of a lesion that must lie in host tissue; what sticks out is cut off.
        min_voxels: volume floor; smaller lesions are refused.
        flip: probability of a mirror image per axis.
        rotate90: draw right-angle rotations.
        rotate_deg: greatest free rotation about each axis, in degrees.
        elastic_mm: greatest displacement of an elastic change of shape.
        halo_mm: width of the support around the lesion, where the image but not the label changes.
        edge_vox: width of the soft edge inside the support.
        ignore_label: a label value outside the classes that may occur, such as -1; it is avoided like a lesion.
        audit: a JSONL file to which the rows of every applied plan are appended; this makes the device wait.
        seed: of everything random; nothing touches the global generators.
        rank: of this process, so that ranks differ; by default that of `torch.distributed`, or 0.
        **generator_options: for a trained generator given by name, folder or hub id, such as ``steps=4``; see
            `synthaug.load_generator`.

    Raises:
        ValueError: an empty bank, a bank or generator of other classes or channels, a probability outside [0, 1], an
            inverted range, a swap of an unknown class, `swaps` with `class_mix`, `scale` with `diameter_mm`.
        TypeError: an argument of the wrong kind, or one that neither this class nor the generator knows.
    """

    def __init__(
        self,
        lesions: LesionSource | str | os.PathLike,
        generator: str | TumorGenerator = "paste",
        *,
        classes: Classes | str = BRATS18,
        channels: Sequence[str] = ("flair", "t1", "t1ce", "t2"),
        prob: float = 0.6,
        second: float = 0.4,
        scale: float | tuple[float, float] | None = None,
        diameter_mm: float | tuple[float, float] | None = None,
        scale_after_swap: Mapping[str, tuple[float, float]] | None = None,
        swaps: Sequence[Swap] = (),
        swap_draw: str = "joint",
        class_mix: Mapping[str, float] | None = None,
        clearance_mm: float = 3.0,
        tissue_share: float = 0.9,
        min_voxels: int = 27,
        flip: float = 0.5,
        rotate90: bool = True,
        rotate_deg: float = 0.0,
        elastic_mm: float = 0.0,
        halo_mm: float = 0.0,
        edge_vox: float = 1.0,
        ignore_label: int | None = None,
        audit: str | os.PathLike | None = None,
        seed: int = 0,
        rank: int | None = None,
        **generator_options: Any,
    ):
        self.classes, self.channels = get_classes(classes), canonical_channels(channels)
        self.lesions = resolve_lesions(lesions)
        self.generator = resolve_generator(generator, **generator_options).bind(self.channels, self.classes.names)
        self.tissue_share = checked_probability("tissue_share", tissue_share)
        self.clearance_mm = checked_at_least("clearance_mm", clearance_mm)
        self.min_voxels = int(checked_at_least("min_voxels", min_voxels, 1))
        if swaps and class_mix:
            raise ValueError(f"give swaps or class_mix, not both; got swaps={list(swaps)}, class_mix={dict(class_mix)}")
        if ignore_label is not None and ignore_label in (0, *self.classes.values.values()):
            raise ValueError(
                f"ignore_label: expected a value that is neither 0 nor of {self.classes}, got {ignore_label}"
            )
        mix = ClassMix(class_mix, self.classes) if class_mix else None
        chosen = Swaps(swaps, swap_draw, self.classes)
        self._donor_channels = donor_channels(self.lesions, self.generator, self.classes, self.channels, chosen, mix)
        self._writer = CropWriter(
            self.generator,
            self.classes,
            checked_at_least("halo_mm", halo_mm),
            checked_at_least("edge_vox", edge_vox),
        )
        self._decider = Decider(
            source=self.lesions,
            class_order=[self.classes.index(c) for c in self.lesions.classes],
            prob=checked_probability("prob", prob),
            second=checked_probability("second", second),
            swaps=chosen if chosen.pairs else None,
            mix=mix,
            scale=ScaleRange.checked(scale, diameter_mm, scale_after_swap, self.classes),
            turns=Turns(
                checked_probability("flip", flip),
                bool(rotate90),
                checked_at_least("rotate_deg", rotate_deg),
                checked_at_least("elastic_mm", elastic_mm),
            ),
            min_voxels=self.min_voxels,
            clearance_mm=self.clearance_mm,
            halo_mm=self._writer.halo_mm,
            generator_margin=self.generator.margin_vox,
            crop_sizes=self.generator.crop_sizes,
            cubic=self.generator.cubic,
            seed=int(checked_at_least("seed", seed)),
            rank=process_rank() if rank is None else int(checked_at_least("rank", rank)),
        )
        self._audit = Audit(self.classes.names, None if audit is None else Path(audit))
        self._check = ValueCheck(self.classes, ignore_label)
        self._watch = None

    def __call__(self, image: Tensor, label: Tensor, spacing_mm: Any = None, **context: Any) -> tuple[Tensor, Tensor]:
        """Plan and apply; see `plan` for the arguments.

        Returns:
            image and label of the same shapes, dtypes and subclass, changed only where a tumour went in.
        """
        plan = self.plan(image, label, spacing_mm, **context)
        result = self.apply(image, label, plan, host=context.get("host"))
        plan.forget()
        return result

    @costed
    @torch.no_grad()
    def plan(
        self,
        image: Tensor,
        label: Tensor,
        spacing_mm: Any = None,
        *,
        host: HostMask | None = None,
        groups: Sequence[str | None] | None = None,
        host_stats: tuple[Any, Any] | None = None,
        prior: Tensor | None = None,
    ) -> InsertionPlan:
        """Decide what goes where; nothing is changed, and an accelerator is not waited for.

        Args:
            image: (B, C, X, Y, Z) float on any device.
            label: (B, 1, X, Y, Z) or (B, X, Y, Z) integer, same device.
            spacing_mm: voxel size, (3,) or (B, 3); 1 mm where not given.
            host: where lesions may lie, of the label's shape, non-zero for tissue; derived from the image
                where not given (`synthaug.host`). Where the mask costs something, a function instead, which is
                given a sample's index and returns its mask, (X, Y, Z) or (1, X, Y, Z), on the batch's device: it is
                called for samples that get a lesion alone, once each.
            groups: the samples' patient groups; donors of a sample's own group are not used.
            host_stats: mean and standard deviation of the whole volume's host tissue, scalars, (C,) or (B, C), in the
                batch's units; estimated from the patch where not given. (0, 1) for data that are such z-scores.
            prior: weights of the lesion's centre, of the label's shape, at least 0.

        Raises:
            TypeError, ValueError: what was expected and what came, for all that `synthaug.insertion.batch` checks.
        """
        image, label = checked_batch(image, label, self.channels)
        samples, volume = image.shape[0], tuple(image.shape[2:])
        spacing, names = checked_spacing(spacing_mm, samples), checked_groups(groups, samples)
        stats = checked_statistics(host_stats, samples, len(self.channels))
        host = checked_host(host, image)
        prior = None if prior is None else checked_mask("prior", prior, image)
        usable = self._check.check(image, label)
        insertions = tuple(self._decider.batch(spacing, volume, names))
        self._audit.saw(samples)
        count, k = len(insertions), len(self.classes)
        plan = InsertionPlan(
            insertions=insertions,
            classes=self.classes.names,
            center_vox=torch.zeros(count, 3, dtype=torch.int64, device=image.device),
            outcome=on_device([i.refused or Outcome.DONE for i in insertions], image.device, torch.int64),
            voxels=torch.zeros(count, k, dtype=torch.int64, device=image.device),
            volume_vox=volume,
            host_given=host is not None,
            host_stats=stats,
            samples=samples,
        )
        sites: dict[int, Site] = {}
        for n, row in enumerate(insertions):
            if row.refused is None:
                sample = self._host_sample(plan, image, label, host, row.sample)
                if row.sample not in sites:
                    weights = None if prior is None else prior[row.sample]
                    sites[row.sample] = Site(sample.tissue, label[row.sample] != 0, weights)
                self._place(plan, n, sites[row.sample], usable[row.sample])
        return plan

    @costed
    @torch.no_grad()
    def apply(
        self, image: Tensor, label: Tensor, plan: InsertionPlan, *, host: HostMask | None = None
    ) -> tuple[Tensor, Tensor]:
        """Do what a plan says; the same plan on the same batch gives the same bits, also from its JSON rows.

        Args:
            image: the batch that the plan was made for.
            label: likewise.
            plan: of `plan`, or of `InsertionPlan.from_rows`.
            host: the mask or function, where the plan was made with one; a function is not called again for samples
                that `plan` called it for.

        Raises:
            ValueError: a plan for other sizes or classes, a lesion that the source does not have, no `host`
                mask for a plan that was made with one; and what `plan` raises for the batch.
        """
        plain_image, plain_label = checked_batch(image, label, self.channels)
        if not isinstance(plan, InsertionPlan):
            raise TypeError(f"plan: expected an InsertionPlan, got {type(plan).__name__}")
        plan.check_fits(plain_image.shape[0], tuple(plain_image.shape[2:]), self.classes.names, host is not None)
        host = checked_host(host, plain_image)
        moved = plan.to(plain_image.device)
        self._audit.count(moved)
        plan.counted = True
        live = [n for n, row in enumerate(moved.insertions) if row.refused is None]
        if live:
            image, label = (x.clone(memory_format=torch.contiguous_format) for x in (image, label))
            new_image, new_label = checked_batch(image, label, self.channels)
            for n in live:
                self._host_sample(moved, plain_image, plain_label, host, moved.insertions[n].sample)
                self._render(moved, n)
            self._writer.write(moved, live, new_image, new_label)
        self._audit.watch()
        return image, label

    def report(self) -> Report:
        """What was asked for, done and refused so far; reading it makes the host wait for the device."""
        self._check.raise_pending(wait=True)
        return self._audit.report()

    def _host_sample(self, plan: InsertionPlan, image: Tensor, label: Tensor, host, b: int) -> HostSample:
        if b not in plan.hosts:
            stats = None if plan.host_stats is None else (plan.host_stats[0][b], plan.host_stats[1][b])
            plan.hosts[b] = HostSample.of(image[b], label[b], host_of(host, b, image), stats)
        return plan.hosts[b]

    def _render(self, plan: InsertionPlan, n: int) -> Rendered:
        if n not in plan.rendered:
            row, device = plan.insertions[n], plan.outcome.device
            plan.rendered[n] = render(self.lesions, row, self.classes, self._donor_channels, device)
        return plan.rendered[n]

    def _place(self, plan: InsertionPlan, n: int, site: Site, usable: Tensor) -> None:
        """Find the place of one insertion; writes its row of the plan's tensors and marks the site."""
        row, mask = plan.insertions[n], self._render(plan, n).mask
        lesion = mask > 0
        keep_clear = grown(lesion, self.clearance_mm, row.spacing_mm)
        found = place(site, lesion, keep_clear, self.tissue_share, row.seed)
        enough = found.lesion.sum() >= self.min_voxels
        outcome = torch.full((), Outcome.DONE, dtype=torch.int64, device=mask.device)
        outcome = torch.where(enough, outcome, Outcome.TOO_SMALL)
        outcome = torch.where(found.fits, outcome, Outcome.NO_ROOM)
        outcome = torch.where(site.has_tissue, outcome, Outcome.NO_TISSUE)
        outcome = torch.where(usable, outcome, Outcome.BAD_INPUT)
        written = found.lesion & (outcome == Outcome.DONE)
        site.occupy(found.window, written)
        plan.center_vox[n], plan.outcome[n] = found.center_vox, outcome
        for k in range(len(self.classes)):
            plan.voxels[n, k] = (written & (mask == k + 1)).sum()
