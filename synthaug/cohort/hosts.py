"""Hosts: selection of the cases that get lesions, and reading of one, with its files to be written again."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthaug.classes import VOCABULARIES
from synthaug.cohort.config import CohortConfig
from synthaug.config import ConfigError
from synthaug.data.cases import Case, StoredCase, load_stored
from synthaug.data.dataset import find_dataset, labelled_hosts, named_cases
from synthaug.data.maps import host_of_case, read_map
from synthaug.data.nifti import CaseError, as_label
from synthaug.data.stored import read_stored
from synthaug.frames import cropped, host_frame
from synthaug.geometry import EVERYWHERE, Box, bounding_box, triple
from synthaug.host import HostSample
from synthaug.host.space import Space
from synthaug.lesions.base import LesionSource
from synthaug.random import Purpose, stream

logger = logging.getLogger(__name__)

BOX_MARGIN_VOX = 2


@dataclass(eq=False)
class Host:
    """A host case; the engine sees the box around its tissue only.

    Attributes:
        case: the case, with the paths of its files.
        stored: the files' content, with voxels as stored.
        box: slices of the volume in which the following lie.
        image: (1, C, x, y, z) float32.
        label: (1, x, y, z) int16, 0 where the case has no label.
        tissue: (1, x, y, z) bool.
        mean: mean of the tissue outside labels, per channel.
        std: standard deviation of the tissue outside labels, per channel.
        prior: (1, x, y, z) weights of a lesion's centre, or None.
        frame: (3, 4), voxel indices of the box to host coordinates, where a profile says how often lesions lie where.
    """

    case: Case
    stored: StoredCase
    box: Box
    image: Tensor
    label: Tensor
    tissue: Tensor
    mean: list[float]
    std: list[float]
    prior: Tensor | None = None
    frame: np.ndarray | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        return self.stored.volume.spacing_mm

    @cached_property
    def stats(self) -> tuple[list[float], list[float]] | None:
        """Argument `host_stats` of `TumorInsertion.plan`; None where a channel is constant, which has no scale."""
        return (self.mean, self.std) if min(self.std) > 0 else None


def described(config: CohortConfig, lesions: LesionSource | None) -> CohortConfig:
    """The configuration with what the hosts' data set says of classes and channels, where nobody gave them.

    Args:
        config: as read.
        lesions: the bank, whose classes count where the data set does not tell its own; None without one.

    Raises:
        ConfigError: classes that nothing tells or that fit no label, or no case.
    """
    hosts = config.hosts
    try:
        data = find_dataset(
            config.cases, config.classes, config.channels, hosts.layout, hosts.group_pattern, lesions=lesions
        )
    except ValueError as error:
        raise ConfigError(f"cases: {error}") from error
    known = data.classes.name in VOCABULARIES
    classes = data.classes.name if known else dict(data.classes.values)
    for words in data.taken:
        logger.info("from the data: %s", words)
    return config.model_copy(update={"classes": classes, "channels": data.channels})


def find_hosts(config: CohortConfig) -> list[Case]:
    """Find the host cases, sorted by name.

    Raises:
        ConfigError: none is left, or `hosts.only` names unknown ones.
    """
    hosts = config.hosts
    try:
        cases = named_cases(Path(config.cases), hosts.layout, config.channels, hosts.group_pattern)
        cases, left_out = labelled_hosts(cases, hosts.unlabelled)
    except ValueError as error:
        raise ConfigError(f"cases: {error}") from error
    if left_out is not None:
        logger.warning("cohort: left out: %s", left_out)
    if hosts.only is not None:
        known = {name for case in cases for name in (case.name, case.group)}
        if unknown := sorted(set(hosts.only) - known):
            raise ConfigError(f"hosts.only: no case or patient is called {', '.join(unknown)} in {config.cases}")
        cases = [case for case in cases if {case.name, case.group} & set(hosts.only)]
    if hosts.tumour != "any":
        wanted = hosts.tumour == "with"
        cases = [case for case in cases if _has_tumour(case) in (wanted, None)]
    if not cases:
        raise ConfigError(f"{config.cases}: no host is left with hosts.tumour={hosts.tumour}, hosts.only={hosts.only}")
    return cases


def host_number(seed: int, index: int, hosts: int) -> int:
    """Choose the host of case `index`: all hosts in a random order, then all of them in another one, and so on."""
    order = stream(seed, Purpose.COHORT_HOSTS, index // hosts).permutation(hosts)
    return int(order[index % hosts])


def read_host(case: Case, config: CohortConfig) -> Host:
    """Read a host's files, find its tissue and cut its box.

    Raises:
        CaseError: what `load_case` raises.
    """
    stored = load_stored(case, config.names, require_label=False)
    volume = stored.volume
    image = torch.from_numpy(volume.image)
    label = torch.zeros(image.shape[1:], dtype=torch.int16) if volume.label is None else torch.from_numpy(volume.label)
    maps = {name: torch.from_numpy(read_map(case, file, volume)) for name, file in config.lesions.files.items()}
    given = maps.get("host")
    if given is None and config.space != Space():
        given = torch.from_numpy(host_of_case(case, volume, config.space, config.names, config.vocabulary))
    fixed = config.space.units.statistics(config.names)
    found = HostSample.of(image, config.space.rule.lesions_of(label), given, fixed=fixed)
    tissue, mean, std = found.tissue, found.mean, found.std
    margin = [int(config.lesions.clearance_mm / s) + BOX_MARGIN_VOX for s in volume.spacing_mm]
    box = bounding_box(tissue.numpy(), margin) if tissue.any() else EVERYWHERE
    crops = triple(x[..., *box].contiguous() for x in (image[None], label[None], tissue[None]))
    # the whole volume in float is several times the files: let it go, the files are enough to write the case again
    stored = replace(stored, volume=replace(volume, image=volume.image[:0]))
    prior = maps["prior"][box][None].contiguous() if "prior" in maps else None
    frame = None
    if config.profile is not None and tissue.any():
        frame = cropped(host_frame(tissue.numpy(), volume.affine), [side.start or 0 for side in box])
    return Host(case, stored, box, *crops, mean.tolist(), std.tolist(), prior, frame)


def _has_tumour(case: Case) -> bool | None:
    """Tell whether a case's label has a voxel; None where it cannot be read, which the case's own turn says."""
    if case.label is None:
        return False
    try:
        return bool(as_label(case.name, case.label, read_stored(case.name, case.label, 1).scaled).any())
    except CaseError:
        return None
