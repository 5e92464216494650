"""Intermediate results of one call: tissue and statistics of samples, sites, lesions in their crops, their places.

It is working memory, local to the call; a plan keeps nothing of it but what its rows say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.geometry import grown
from synthaug.host import HostSample
from synthaug.host.fluid import fluid_of, rim_of
from synthaug.insertion.asked import Insertion, Outcome
from synthaug.insertion.batch import Batch
from synthaug.insertion.blending import margin_vox
from synthaug.insertion.draw import Aims
from synthaug.insertion.own import OwnLesion, own_lesion
from synthaug.insertion.placement import CLEAR_SHARE, Site, place, place_at
from synthaug.insertion.render import Rendered, render
from synthaug.lesions.base import LesionSource
from synthaug.lesions.places import PlaceFrequency
from synthaug.options import LesionOptions
from synthaug.transfers import on_device


@dataclass(frozen=True)
class Lesions:
    """Source, classes and channels by which the lesions of rows are rendered.

    Attributes:
        source: bank or shapes that have the lesions.
        classes: vocabulary of the batches.
        donor_channels: positions of the batches' channels in the source's intensities, or None for masks alone.
    """

    source: LesionSource
    classes: Classes
    donor_channels: list[int] | None


@dataclass(frozen=True)
class Placing:
    """Says how places are chosen in a batch.

    Attributes:
        options: clearance, share in tissue and volume floor.
        aims: of each insertion, where it is to be tried, or None.
        places: how often lesions lie where, in batches where that counts, else None.
        frames: (3, 4) of each sample, where `places` are given.
        channels: canonical names of the batch's channels.
    """

    options: LesionOptions
    aims: Sequence[Aims | None] = ()
    places: PlaceFrequency | None = None
    frames: Sequence[np.ndarray] = ()
    channels: Sequence[str] = ()

    def ignored(self, label: Tensor) -> Tensor | None:
        """Mark the voxels whose label nothing replaces, bool like the label; None where there is no such label."""
        return None if self.options.ignore_label is None else torch.eq(label, self.options.ignore_label)

    def tissue_of(self, image: Tensor, label: Tensor, host: HostSample, spacing_mm: Sequence[float]) -> Tensor:
        """Leave fluid and rim out of host tissue (X, Y, Z), where the options say so; labels are neither."""
        options, tissue = self.options, host.tissue
        if options.avoid_fluid:
            tissue = tissue & ~(fluid_of(image, host, self.channels, spacing_mm) & (label == 0))
        if options.rim_mm:
            tissue = tissue & ~(rim_of(host.tissue, options.rim_mm, spacing_mm) & (label == 0))
        return tissue

    def places_in(self, sample: int) -> tuple[PlaceFrequency, np.ndarray] | None:
        """Return how often lesions lie where and the sample's frame, in batches where that counts."""
        return None if self.places is None else (self.places, self.frames[sample])


class Work:
    """Computes what a call needs of its batch, each thing once, when it is asked for.

    Args:
        batch: the checked batch.
        insertions: the lesions to insert into it.
        lesions: how these are rendered.
        placing: how their places are chosen.
        fixed: scales of the channels that have one of the data set, for `HostSample.of`.
    """

    def __init__(
        self,
        batch: Batch,
        insertions: Sequence[Insertion],
        lesions: Lesions,
        placing: Placing,
        fixed: Sequence[tuple[float, float] | None] | None = None,
    ):
        self.batch, self.insertions, self.lesions = batch, insertions, lesions
        self.placing, self.fixed = placing, fixed
        self._hosts: dict[int, HostSample] = {}
        self._whole: dict[int, Tensor] = {}
        self._sites: dict[int, Site] = {}
        self._rendered: dict[int, Rendered] = {}
        self._own: dict[int, OwnLesion] = {}

    @property
    def device(self) -> torch.device:
        """Device of the batch."""
        return self.batch.image.device

    def host(self, sample: int) -> HostSample:
        """Return a sample's tissue and statistics."""
        if sample not in self._hosts:
            image, label, batch = self.batch.image[sample], self.batch.label[sample], self.batch
            host, stats = batch.map_of("host", sample), batch.stats_of(sample)
            found = HostSample.of(image, label, host, stats, self.fixed)
            self._whole[sample] = found.tissue
            tissue = self.placing.tissue_of(image, label, found, batch.spacing_mm[sample])
            self._hosts[sample] = replace(found, tissue=tissue)
        return self._hosts[sample]

    def fixed_tissue(self, sample: int) -> Tensor:
        """Mark what no push may move, (X, Y, Z) bool: all but host tissue, fluid included."""
        self.host(sample)
        return ~self._whole[sample]

    def write_with(self, sample: int, mean: Tensor, std: Tensor, floor: Tensor) -> None:
        """Replace a sample's measured statistics by these, (C,) each."""
        self._hosts[sample] = HostSample(self.host(sample).tissue, mean, std, floor)

    def tissue(self, samples: Sequence[int]) -> Tensor:
        """Stack these samples' mean, standard deviation and lowest intensity of tissue, (B, 3, C); 0 for others."""
        table = torch.zeros(self.batch.samples, 3, self.batch.image.shape[1], device=self.device)
        for b in samples:
            table[b] = statistics(self.host(b))
        return table

    def site(self, sample: int) -> Site:
        """Return the site of a sample, in which the lesions placed so far are marked."""
        if sample not in self._sites:
            label, prior = self.batch.label[sample], self.batch.map_of("prior", sample)
            masks = (self.host(sample).tissue, label != 0, prior, self.placing.ignored(label))
            self._sites[sample] = Site(*masks, self.placing.places_in(sample))
        return self._sites[sample]

    def rendered(self, n: int) -> Rendered:
        """Return the lesion of insertion `n` in its crop."""
        if n not in self._rendered:
            made = self.lesions
            self._rendered[n] = render(made.source, self.insertions[n], made.classes, made.donor_channels, self.device)
        return self._rendered[n]

    def own(self, n: int) -> OwnLesion:
        """Return the lesion of the host's own that insertion `n` paints anew; earlier ones have theirs."""
        if n not in self._own:
            row = self.insertions[n]
            before = [m for m in range(n) if self.insertions[m].sample == row.sample and self.insertions[m].crop_vox]
            taken = None
            for m in before:
                taken = self.own(m).taken if taken is None else taken | self.own(m).taken
            halo = margin_vox(0.0, self.placing.options.halo_mm, row.spacing_mm, 0)
            label, tissue = self.batch.label[row.sample], self.host(row.sample).tissue
            self._own[n] = own_lesion(label, tissue, taken, row, self.lesions.classes, halo)
        return self._own[n]


@dataclass(frozen=True)
class Places:
    """Places and outcomes of a batch's insertions, on its device; the fields are those of `InsertionPlan`."""

    center_vox: Tensor
    outcome: Tensor
    voxels: Tensor
    tissue: Tensor


def find_places(work: Work, usable: Tensor) -> Places:
    """Find the places of a batch's insertions, one after the other, so that later ones keep clear of earlier ones.

    Args:
        work: the call's; found places are marked in its sites.
        usable: (B,) bool, samples whose values are sound.
    """
    count, device = len(work.insertions), work.device
    places = Places(
        center_vox=torch.zeros(count, 3, dtype=torch.int64, device=device),
        outcome=on_device([i.refused or Outcome.DONE for i in work.insertions], device, torch.int64),
        voxels=torch.zeros(count, len(work.lesions.classes), dtype=torch.int64, device=device),
        tissue=torch.zeros(count, 3, work.batch.image.shape[1], device=device),
    )
    for n, row in enumerate(work.insertions):
        if row.refused is None:
            places.tissue[n] = statistics(work.host(row.sample))
            find = _change if row.place == "own" else _place
            find(work, n, usable[row.sample], places)
    return places


def _change(work: Work, n: int, usable: Tensor, places: Places) -> None:
    """Find the lesion of the host's own for one insertion; writes its row of the tensors."""
    own = work.own(n)
    enough = (own.new > 0).sum() >= work.placing.options.min_voxels
    outcome = torch.where((own.outcome != Outcome.DONE) | enough, own.outcome, int(Outcome.TOO_SMALL))
    outcome = torch.where(usable, outcome, int(Outcome.BAD_INPUT))
    places.center_vox[n], places.outcome[n] = own.center_vox, outcome
    for k in range(len(work.lesions.classes)):
        places.voxels[n, k] = ((own.new == k + 1) & (outcome == Outcome.DONE)).sum()


def _place(work: Work, n: int, usable: Tensor, places: Places) -> None:
    """Find the place of one insertion; writes its row of the tensors and marks the site."""
    row, mask, site = work.insertions[n], work.rendered(n).mask, work.site(work.insertions[n].sample)
    lesion, options = mask > 0, work.placing.options
    aims = work.placing.aims[n]
    if aims is not None:
        found = place_at(site, lesion, on_device(aims, mask.device), options.tissue_share)
    else:
        keep_clear = grown(lesion, options.clearance_mm, row.spacing_mm)
        sought = CLEAR_SHARE if options.avoid_fluid else None
        found = place(site, lesion, keep_clear, options.tissue_share, row.seed, sought)
    enough = found.lesion.sum() >= options.min_voxels
    outcome = torch.full((), Outcome.DONE, dtype=torch.int64, device=mask.device)
    outcome = torch.where(enough, outcome, Outcome.TOO_SMALL)
    outcome = torch.where(found.fits, outcome, Outcome.NO_ROOM)
    outcome = torch.where(site.has_tissue, outcome, Outcome.NO_TISSUE)
    outcome = torch.where(usable, outcome, Outcome.BAD_INPUT)
    written = found.lesion & (outcome == Outcome.DONE)
    site.occupy(found.window, written)
    places.center_vox[n], places.outcome[n] = found.center_vox, outcome
    for k in range(len(work.lesions.classes)):
        places.voxels[n, k] = (written & (mask == k + 1)).sum()


def statistics(host: HostSample) -> Tensor:
    """Stack mean, standard deviation and lowest intensity of host tissue, (3, C) float32."""
    return torch.stack([host.mean, host.std, host.floor])
