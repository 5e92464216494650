"""Tumour-free hosts of another preprocessed dataset, beside nnU-Net's labelled training cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from synthaug.adapters.nnunet.bank import Preprocessed
from synthaug.adapters.nnunet.batch import groups_of
from synthaug.adapters.nnunet.settings import Settings
from synthaug.adapters.nnunet.task import Task
from synthaug.config import ConfigError

SAME = ("spacing", "normalization_schemes", "use_mask_for_norm")
"""What the plans of both datasets must have in common in the configuration that is trained, and the transposition."""


class WithHosts:
    """Training cases and tumour-free hosts as one dataset of nnU-Net's loader.

    Args:
        cases: the fold's training cases.
        hosts: of another dataset.
        share: of the patches that are of hosts, 0 to 1.

    Attributes:
        identifiers: names of all of them.
        probabilities: of each to be drawn.
    """

    def __init__(self, cases: nnUNetBaseDataset, hosts: nnUNetBaseDataset, share: float):
        self._of = dict.fromkeys(cases.identifiers, cases) | dict.fromkeys(hosts.identifiers, hosts)
        self.identifiers = list(self._of)
        counts = len(cases.identifiers), len(hosts.identifiers)
        self.probabilities = np.repeat([(1 - share) / counts[0], share / counts[1]], counts)

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        """Load a case or a host."""
        return self._of[str(identifier)].load_case(identifier)


def open_hosts(data: Preprocessed, settings: Settings, task: Task, split: tuple[Sequence[str], Sequence[str]]) -> Any:
    """Open the dataset of tumour-free hosts that the settings name.

    Args:
        data: the dataset that is trained on, in its configuration.
        settings: with a section `tumour_free`.
        task: the dataset's task.
        split: the fold's training and validation cases.

    Returns:
        The dataset of all hosts.

    Raises:
        ConfigError: no such dataset, or one that was not preprocessed by these plans; no hosts, hosts with lesions, of
            validation patients, or called like training cases.
    """
    wanted = settings.tumour_free
    if wanted is None:
        raise ValueError("tumour_free: expected settings with this section")
    where = f"tumour_free: dataset {wanted.dataset}"
    try:
        found = Preprocessed.open(str(wanted.dataset), data.configuration, data.plans.plans_name, data.dataset_json)
    except ConfigError as error:
        raise ConfigError(f"tumour_free: {error}") from error
    _check_plans(where, data, found)
    hosts = found.dataset()
    if not hosts.identifiers:
        raise ConfigError(f"{where}: no case in {found.arrays}")
    if double := sorted({*hosts.identifiers} & {*split[0], *split[1]}):
        raise ConfigError(f"{where}: {', '.join(double)} are called like cases of {data.plans.dataset_name}")
    held_out, groups = {*groups_of(split[1], settings).values()}, groups_of(hosts.identifiers, settings)
    if shared := sorted(case for case, group in groups.items() if group in held_out):
        raise ConfigError(f"{where}: {', '.join(shared)} are of patients of the fold's validation cases")
    for case in hosts.identifiers:
        if np.isin(np.array(hosts.load_case(case)[1][:]), list(task.classes.values.values())).any():
            raise ConfigError(f"{where}: expected hosts without lesions; the label of {case} has some")
    return hosts


def _check_plans(where: str, data: Preprocessed, hosts: Preprocessed) -> None:
    """Check that hosts were preprocessed as the cases were."""
    mine, theirs = (d.plans.get_configuration(d.configuration) for d in (data, hosts))
    other = [name for name in SAME if list(getattr(mine, name)) != list(getattr(theirs, name))]
    if list(data.plans.transpose_forward) != list(hosts.plans.transpose_forward):
        other.append("transpose_forward")
    if other:
        raise ConfigError(
            f"{where}: its plans have another {', '.join(other)} than those of {data.plans.dataset_name}: copy these "
            "by nnUNetv2_move_plans_between_datasets and preprocess again"
        )
