"""What is compared: real lesions of a folder of cases, and lesions inserted into them, with a slice of each to look at.

Each lesion's mask goes, as large as it is and not turned, into another patient, wherever the profile puts lesions; real
ones are compared where they lie. Images that are whole numbers in their files are rounded after an insertion, as a file
would be, and all are kept in half precision, real ones too, so that nothing but the look tells them apart.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cc3d
import numpy as np
import torch
from torch import Tensor

from synthaug.data.cases import Case
from synthaug.data.nifti import LabelledVolume
from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.frames import host_frame
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.insertion.insertion import TumorInsertion
from synthaug.insertion.plan import InsertionPlan
from synthaug.lesions.bank import LesionBank
from synthaug.profile.profile import Profile
from synthaug.profile.specimens import cut, inserted_alone, model_intensities, with_host
from synthaug.progress import shown
from synthaug.random import stream

REAL, NOISE = "real", "noise"
CONTROLS = (REAL, NOISE)
"""Names that stand for no generator: halves of real lesions, which nothing should tell apart, and noise."""
HALF_VIEW = 56
OPTIONS: dict[str, Any] = {
    "prob": 1.0,
    "second": 0.0,
    "scale": (1.0, 1.0),
    "flip": 0.0,
    "rotate90": False,
    "rotate_deg": 0.0,
    "elastic_mm": 0.0,
    "tissue_share": 0.75,
}
"""Of the insertion: lesions as they are in the bank; with more asked in tissue most near the cortex are refused."""
DROPPED = (
    "place",
    "style",
    "swaps",
    "swap_draw",
    "class_mix",
    "diameter_mm",
    "scale_after_swap",
    "contrast",
    "contrast_shift",
)


class NoiseGenerator(TumorGenerator):
    """Paints white noise with the mean and spread of host tissue: the control that everything tells apart."""

    margin_vox = 0

    def generate(self, context, mask, seeds, donor=None, support=None):
        """Draw noise; see `TumorGenerator.generate`."""
        drawn = [torch.randn(context.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(context)


@dataclass(frozen=True)
class Sample:
    """A lesion, its slice to look at, and what is known of it.

    Attributes:
        specimen: the lesion in its surroundings.
        view: (C, H, W) float32, the axial slice with most lesion, which lies in its middle, in model intensities.
        outline: (H, W) bool, the lesion in it.
        facts: lesion, donor's and host's patient and, of an inserted one, the plan's row.
    """

    specimen: Specimen
    view: np.ndarray
    outline: np.ndarray
    facts: dict[str, Any]


@dataclass(frozen=True)
class Inserted:
    """A whole host with a lesion.

    Attributes:
        volume: image as files would have it, label with the lesion's values in place of the host's.
        label: (X, Y, Z), the inserted lesion alone.
        before: (X, Y, Z), the host's own labels.
        row: of the plan.
        case: number of the host among the cases.
    """

    volume: LabelledVolume
    label: Tensor
    before: Tensor
    row: dict[str, Any]
    case: int


class Scene:
    """Labelled cases, the lesions of a bank, and a generator.

    Args:
        cases: labelled, of two patients or more.
        profile: of the data.
        donors: bank whose masks, and for paste intensities, are inserted; one cut from the cases where not given.
        generator: name, folder, hub id, generator, or ``"noise"``.
        least_voxels: smallest lesion.
        tries: hosts that are tried for a lesion.
        options: of the insertion, in place of `OPTIONS`.

    Raises:
        ValueError: cases of one patient only, or no lesion that is large enough.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        profile: Profile,
        generator: str | os.PathLike | TumorGenerator,
        donors: LesionBank | None = None,
        least_voxels: int = 100,
        tries: int = 6,
        options: Mapping[str, Any] | None = None,
    ):
        self.cases, self.profile, self.tries, self.least = list(cases), profile, tries, least_voxels
        self.options = dict(options or {})
        if len({case.group for case in self.cases}) < 2:
            raise ValueError(f"cases: expected those of two patients or more, got {len(self.cases)} of one")
        if donors is None:
            donors = LesionBank.from_cases(self.cases, profile.classes, profile.names, space=profile.space)
        self.donors = donors
        # of the whole bank: a fitted one would know its statistics from the single lesion that is inserted
        self.generator = NoiseGenerator() if generator == NOISE else resolve_generator(generator, donors)
        self.lesions = [lesion for lesion in donors if sum(lesion.voxels) >= least_voxels]
        if not self.lesions:
            raise ValueError(f"lesions: expected one of {least_voxels} voxels or more, got none in {len(donors)}")

    @lru_cache(maxsize=3)  # noqa: B019 (a scene lives as long as its command)
    def _loaded(self, index: int) -> tuple[LabelledVolume, np.ndarray]:
        return with_host(self.cases[index], self.profile)

    def real(self) -> Iterator[Sample]:
        """Cut the real lesions of the cases that are large enough, one by one."""
        for index, case in enumerate(shown(self.cases, "real lesions", "case")):
            volume, host = self._loaded(index)
            image = model_intensities(volume, host, self.profile)
            label = self.profile.space.rule.lesions_of(volume.label)
            components = cc3d.connected_components(label > 0, connectivity=26)
            sizes = np.bincount(components.ravel().astype(np.int64))[1:]
            for number in np.argsort(-sizes, kind="stable"):
                if sizes[number] >= self.least:
                    own = torch.from_numpy(np.where(components == number + 1, label, 0))
                    facts = {"lesion": f"{case.name}/{number}", "donor": case.group, "host": case.group}
                    if (sample := self._sample(image, own, facts)) is not None:
                        yield sample

    def jobs(self, count: int) -> list[tuple[str, int]]:
        """List lesions and seeds, each lesion once and then again, the largest of each patient first."""
        by_group: dict[str | None, list] = {}
        for lesion in sorted(self.lesions, key=lambda x: -sum(x.voxels)):
            by_group.setdefault(lesion.group, []).append(lesion.name)
        turns = max(len(names) for names in by_group.values())
        order = [names[t] for t in range(turns) for names in by_group.values() if t < len(names)]
        return [(order[n % len(order)], n) for n in range(min(count, 3 * len(order)))]

    def insertion(self, lesion: str, number: int, seed: int) -> Inserted | None:
        """Insert a lesion into the first host that has room for it; None where none has.

        Args:
            lesion: name in the bank.
            number: of the insertion, by which hosts are taken in turn.
            seed: of all insertions.
        """
        group = self.donors.lesion(lesion).group
        hosts = [i for i, case in enumerate(self.cases) if case.group != group]
        engine = self._engine(lesion, int(stream(seed, number).integers(2**31)))
        for turn in range(min(self.tries, len(hosts))):
            index = hosts[(number + turn) % len(hosts)]
            (volume, host), case = self._loaded(index), self.cases[index]
            image, label = torch.from_numpy(volume.image)[None], torch.from_numpy(volume.label)[None]
            known: dict[str, Any] = {"host": torch.from_numpy(host)[None], "frames": host_frame(host, volume.affine)}
            plan = engine.plan(image, label, volume.spacing_mm, groups=[case.group], **known)
            if plan.to_rows()[0]["outcome"] == "done":
                return self._applied(engine, index, plan)
        return None

    def twin(self, inserted: Inserted, number: int = 1) -> Inserted:
        """Insert the same lesion at the same place with another seed of its look."""
        row = {**inserted.row, "seed": int(stream(inserted.row["seed"], number).integers(2**62))}
        return self._applied(self._engine(row["lesion"], 0), inserted.case, InsertionPlan.from_rows([row]))

    def sample(self, inserted: Inserted) -> Sample | None:
        """Cut an inserted lesion out; None where too little of it is left to be measured."""
        # its label marks the lesion, which else would count as tissue and set the scale of its own intensities
        image = model_intensities(inserted.volume, self._loaded(inserted.case)[1], self.profile)
        row = inserted.row
        facts = {"lesion": row["lesion"], "donor": row["donor_group"], "host": row["host_group"], "row": row}
        return self._sample(image, inserted.label, facts)

    def _engine(self, lesion: str, seed: int) -> TumorInsertion:
        options = {name: value for name, value in self.profile.options.items() if name not in DROPPED}
        options |= {**OPTIONS, "min_voxels": min(self.least, 27), **self.options, "seed": seed}
        return TumorInsertion(self.donors.subset([lesion]), self.generator, looks=self.donors, **options)

    def _applied(self, engine: TumorInsertion, index: int, plan: InsertionPlan) -> Inserted:
        volume, host = self._loaded(index)
        image, label = torch.from_numpy(volume.image)[None], torch.from_numpy(volume.label)[None]
        after, new = engine.apply(image, label, plan, host=torch.from_numpy(host)[None])
        whole = bool((volume.image == np.rint(volume.image)).all())
        pixels = after[0].numpy().round() if whole else after[0].numpy()
        only = inserted_alone(label, new)[0]
        return Inserted(replace(volume, image=pixels, label=new[0].numpy()), only, label[0], plan.to_rows()[0], index)

    def _sample(self, image: Tensor, label: Tensor, facts: dict[str, Any]) -> Sample | None:
        specimen = cut(image, label, self.profile, str(facts["donor"]))
        if specimen is None:
            return None
        lesion = (label != 0).numpy()
        depth = int(lesion.sum((0, 1)).argmax())
        middle = [int(np.median(i)) for i in np.nonzero(lesion[:, :, depth])]
        x, y = (slice(max(m - HALF_VIEW, 0), m + HALF_VIEW) for m in middle)
        # the lesion in the middle, where the volume ends too
        sizes = zip(middle, lesion.shape, strict=False)
        beyond = [(max(HALF_VIEW - m, 0), max(m + HALF_VIEW - n, 0)) for m, n in sizes]
        view = np.pad(image[:, x, y, depth].half().float().numpy(), [(0, 0), *beyond], "edge")
        outline = np.pad(lesion[x, y, depth], beyond)
        return Sample(replace(specimen, image=specimen.image.half().float()), view, outline, facts)
