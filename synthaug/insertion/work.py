"""What a call works out of its batch: tissue and statistics of samples, sites, lesions in their crops, their places.

It is working memory, local to the call; a plan keeps nothing of it but what its rows say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.geometry import grown
from synthaug.host import HostSample
from synthaug.insertion.batch import Batch
from synthaug.insertion.draw import Aims
from synthaug.insertion.placement import Site, place, place_at
from synthaug.insertion.plan import Insertion, Outcome
from synthaug.insertion.render import Rendered, render
from synthaug.lesions.base import LesionSource
from synthaug.lesions.places import PlaceFrequency
from synthaug.options import LesionOptions
from synthaug.transfers import on_device


@dataclass(frozen=True)
class Lesions:
    """How the lesions of rows are made.

    Attributes:
        source: holds them.
        classes: vocabulary of the batches.
        donor_channels: positions of the batches' channels in the source's intensities, or None for masks alone.
    """

    source: LesionSource
    classes: Classes
    donor_channels: list[int] | None


@dataclass(frozen=True)
class Placing:
    """How places are chosen in a batch.

    Attributes:
        options: clearance, share in tissue and volume floor.
        places: how often lesions lie where, in batches where that counts, else None.
    """

    options: LesionOptions
    places: PlaceFrequency | None

    @property
    def ignore_label(self) -> int | None:
        """A label that is never replaced."""
        return self.options.ignore_label


class Work:
    """The working memory of one call, filled as it is needed.

    Args:
        batch: of the call.
        insertions: what is asked for in it.
        lesions: how they are made.
        aims: of each of the insertions, where it is to be tried; without, nothing can be placed, only written.
        placing: likewise, how places are chosen.
        fixed: scales of the channels that have one of the data set, as for `HostSample.of`.
    """

    def __init__(
        self,
        batch: Batch,
        insertions: Sequence[Insertion],
        lesions: Lesions,
        aims: Sequence[Aims | None] = (),
        placing: Placing | None = None,
        fixed: Sequence[tuple[float, float] | None] | None = None,
    ):
        self.batch, self.insertions, self.lesions = batch, insertions, lesions
        self.aims, self.placing, self.fixed = aims, placing, fixed
        self._hosts: dict[int, HostSample] = {}
        self._sites: dict[int, Site] = {}
        self._rendered: dict[int, Rendered] = {}

    @property
    def device(self) -> torch.device:
        """Of the batch."""
        return self.batch.image.device

    def host(self, sample: int) -> HostSample:
        """A sample of the batch as a host."""
        if sample not in self._hosts:
            image, label, batch = self.batch.image[sample], self.batch.label[sample], self.batch
            host, stats = batch.map_of("host", sample), batch.stats_of(sample)
            self._hosts[sample] = HostSample.of(image, label, host, stats, self.fixed)
        return self._hosts[sample]

    def write_with(self, sample: int, mean: Tensor, std: Tensor, floor: Tensor) -> None:
        """Take these statistics, (C,) each, in place of those that were measured now."""
        self._hosts[sample] = HostSample(self.host(sample).tissue, mean, std, floor)

    def tissue(self, samples: Sequence[int]) -> Tensor:
        """(B, 3, C) mean, standard deviation and lowest intensity of these samples' host tissue; 0 for others."""
        table = torch.zeros(self.batch.samples, 3, self.batch.image.shape[1], device=self.device)
        for b in samples:
            table[b] = statistics(self.host(b))
        return table

    def site(self, sample: int) -> Site:
        """What placement knows of a sample, with the lesions that were placed so far."""
        if sample not in self._sites:
            label, placing = self.batch.label[sample], self.placing
            ignored = None if placing.ignore_label is None else label == placing.ignore_label
            places = None if placing.places is None else (placing.places, self.batch.frames[sample])
            prior = self.batch.map_of("prior", sample)
            self._sites[sample] = Site(self.host(sample).tissue, label != 0, prior, ignored, places)
        return self._sites[sample]

    def rendered(self, n: int) -> Rendered:
        """The lesion of insertion `n` in its crop."""
        if n not in self._rendered:
            made = self.lesions
            self._rendered[n] = render(made.source, self.insertions[n], made.classes, made.donor_channels, self.device)
        return self._rendered[n]


@dataclass(frozen=True)
class Places:
    """Where the insertions of a batch go, on its device; the fields are those of `InsertionPlan`."""

    center_vox: Tensor
    outcome: Tensor
    voxels: Tensor
    tissue: Tensor


def find_places(work: Work, usable: Tensor) -> Places:
    """Find the places of a batch's insertions, one after the other, so that later ones keep clear of earlier ones.

    Args:
        work: of the call; its sites are marked.
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
            _place(work, n, usable[row.sample], places)
    return places


def _place(work: Work, n: int, usable: Tensor, places: Places) -> None:
    """Find the place of one insertion; writes its row of the tensors and marks the site."""
    row, mask, site = work.insertions[n], work.rendered(n).mask, work.site(work.insertions[n].sample)
    lesion, options = mask > 0, work.placing.options
    if row.place == "home":
        found = place_at(site, lesion, on_device(work.aims[n], mask.device), options.tissue_share)
    else:
        keep_clear = grown(lesion, options.clearance_mm, row.spacing_mm)
        found = place(site, lesion, keep_clear, options.tissue_share, row.seed)
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
    """(3, C) float32 mean, standard deviation and lowest intensity of host tissue."""
    return torch.stack([host.mean, host.std, host.floor])
