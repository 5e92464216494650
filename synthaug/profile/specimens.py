"""Real lesions of a data set and painted ones, cut out in model intensities, and how far these are from those."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from synthaug.data.cases import Case, load_case
from synthaug.data.maps import host_of_case
from synthaug.data.nifti import LabelledVolume
from synthaug.evaluation.fidelity import LEAST_VOXELS, STATISTICS, Specimen, compare_statistics
from synthaug.generators.base import TumorGenerator
from synthaug.geometry import bounding_box, padded_to_multiple
from synthaug.host import HostSample, to_model
from synthaug.host.units import within
from synthaug.insertion.render import one_hot
from synthaug.profile.profile import Profile

MARGIN, FACTOR = 8, 16


def with_host(case: Case, profile: Profile) -> tuple[LabelledVolume, np.ndarray]:
    """Load a case, and find its host tissue, (X, Y, Z) bool.

    Raises:
        CaseError: a case that cannot be read.
    """
    volume = load_case(case, profile.names)
    return volume, host_of_case(case, volume, profile.space, profile.names, profile.classes)


def inserted_alone(before: Tensor, after: Tensor) -> Tensor:
    """Give the labels that an insertion wrote over others, and 0 elsewhere."""
    return torch.where(after != before, after, torch.zeros_like(after))


def model_intensities(volume: LabelledVolume, host: np.ndarray, profile: Profile) -> Tensor:
    """Bring a case to model intensities, (C, X, Y, Z) float32, within the limits of its units."""
    space = profile.space
    image, label = torch.from_numpy(volume.image), torch.from_numpy(space.rule.lesions_of(volume.label))
    tissue = torch.from_numpy(host)
    sample = HostSample.of(image, label, tissue, fixed=space.units.statistics(profile.names))
    return within(to_model(image, sample.mean, sample.std), space.units.limits(profile.names))


def cut(image: Tensor, label: Tensor, profile: Profile, group: str) -> Specimen | None:
    """Cut the lesions of a volume with their surroundings; None where they are too small to measure.

    Args:
        image: (C, X, Y, Z) float32, model intensities.
        label: (X, Y, Z) integer, lesions alone.
        profile: of the data.
        group: the patient.
    """
    if int((label != 0).sum()) < LEAST_VOXELS:
        return None
    box = bounding_box((label != 0).numpy(), (MARGIN,) * 3)
    index = torch.from_numpy(profile.classes.index_map(label[box].numpy()))
    return Specimen(image[(slice(None), *box)].contiguous(), one_hot(index, len(profile.classes)), group)


def real_specimens(cases: Sequence[Case], profile: Profile) -> list[Specimen]:
    """Cut the real lesions of cases; one specimen for each case.

    Raises:
        CaseError: a case that cannot be read.
    """
    found = []
    for case in cases:
        volume, host = with_host(case, profile)
        label = torch.from_numpy(profile.space.rule.lesions_of(volume.label))
        found.append(cut(model_intensities(volume, host, profile), label, profile, case.group))
    return [specimen for specimen in found if specimen is not None]


@torch.no_grad()
def repainted(real: Sequence[Specimen], generator: TumorGenerator, seed: int = 0) -> list[Specimen]:
    """Paint the lesions of specimens anew over the real ones, in their own surroundings."""
    made = []
    for number, specimen in enumerate(real):
        image, mask = (padded_to_multiple(x, FACTOR)[None] for x in (specimen.image, specimen.mask))
        lesion = mask.sum(1, keepdim=True)
        support = {"support": lesion[:, 0] > 0} if generator.needs_support else {}
        context = image if generator.needs_host else image * (1 - lesion)
        painted = generator.generate(context, mask, [seed + number], **support)
        whole = torch.where(lesion > 0, painted, image)[0]
        size = tuple(slice(n) for n in specimen.image.shape[1:])
        made.append(Specimen(whole[(slice(None), *size)].contiguous(), specimen.mask, specimen.group))
    return made


def distance(real: Sequence[Specimen], other: Sequence[Specimen]) -> float:
    """Average how far statistics of intensity and texture are from the real ones, over classes and channels.

    Of the mean the difference in standard deviations of the class counts, of the others the logarithm of the ratio.
    """
    classes = [str(k) for k in range(len(real[0].mask))]
    channels = [str(c) for c in range(len(real[0].image))]
    rows = compare_statistics(real, other, classes, channels)
    shares = [[abs(row["mean"]), *(abs(float(np.log(row[s]))) for s in STATISTICS[1:])] for row in rows]
    return float(np.nanmean(np.array(shares)))
