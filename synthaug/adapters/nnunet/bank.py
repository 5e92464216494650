"""The lesion bank of a fold's training cases, cut from nnU-Net's preprocessed data.

These are the very arrays that training patches are cut from: cropped, resampled to the plans' spacing, normalised, in
nnU-Net's axis order. So donors and hosts agree in all of that, and no image reader is needed.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from synthaug.adapters.nnunet.batch import groups_of
from synthaug.adapters.nnunet.hosts import case_affine, case_tissue
from synthaug.adapters.nnunet.settings import Settings
from synthaug.adapters.nnunet.task import Task
from synthaug.config import ConfigError
from synthaug.host.rule import BLOCKED
from synthaug.lesions.bank import LesionBank
from synthaug.progress import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preprocessed:
    """A preprocessed dataset in one configuration of its plans.

    Attributes:
        folder: the dataset's, with dataset.json, the plans and splits_final.json.
        plans: its plans.
        configuration: the configuration's name.
        dataset_json: its dataset.json.
    """

    folder: Path
    plans: PlansManager
    configuration: str
    dataset_json: dict[str, Any]

    @classmethod
    def open(
        cls,
        dataset: str,
        configuration: str = "3d_fullres",
        plans: str = "nnUNetPlans",
        dataset_json: dict[str, Any] | None = None,
    ) -> "Preprocessed":
        """Find a dataset by its number or name, as ``nnUNetv2_train`` does.

        Args:
            dataset: number or name.
            configuration: of its plans.
            plans: their name.
            dataset_json: in place of its own, which is missing where the plans were moved from another dataset.

        Raises:
            ConfigError: no ``nnUNet_preprocessed``, no such dataset or configuration, or one not preprocessed.
        """
        if not nnUNet_preprocessed.is_set():
            raise ConfigError("nnUNet_preprocessed is not set: it names the folder of nnU-Net's preprocessed datasets")
        try:
            name = maybe_convert_to_dataset_name(int(dataset) if dataset.isdigit() else dataset)
        except RuntimeError as error:
            raise ConfigError(f"dataset {dataset}: {error}") from error
        folder = Path(nnUNet_preprocessed) / name
        advice = f"nnUNetv2_plan_and_preprocess -d {dataset} -c {configuration} makes it"
        for file in (*(["dataset.json"] if dataset_json is None else []), f"{plans}.json"):
            if not (folder / file).is_file():
                raise ConfigError(f"dataset {dataset}: no {file} in {folder}; {advice}")
        manager = PlansManager(str(folder / f"{plans}.json"))
        if configuration not in manager.available_configurations:
            known = ", ".join(manager.available_configurations)
            raise ConfigError(f"configuration {configuration}: {plans} has {known}")
        own = load_json(str(folder / "dataset.json")) if dataset_json is None else dataset_json
        found = cls(folder, manager, configuration, own)
        if not found.arrays.is_dir():
            raise ConfigError(f"dataset {dataset}: no folder {found.arrays}; {advice}")
        return found

    @property
    def arrays(self) -> Path:
        """Folder of the preprocessed cases."""
        return self.folder / self.plans.get_configuration(self.configuration).data_identifier

    def dataset(self, cases: Sequence[str] | None = None) -> nnUNetBaseDataset:
        """Open the preprocessed cases of these names, or all."""
        return infer_dataset_class(str(self.arrays))(str(self.arrays), None if cases is None else list(cases))

    def split(self, fold: int | str) -> tuple[list[str], list[str]]:
        """List a fold's training and validation cases, as nnU-Net splits them; for fold ``"all"`` all cases, and none.

        Raises:
            ConfigError: the split has no such fold.
        """
        cases = sorted(infer_dataset_class(str(self.arrays)).get_identifiers(str(self.arrays)))
        if fold == "all":
            return cases, []
        file = self.folder / "splits_final.json"
        # where no training has written the file yet, nnU-Net will write this one
        splits = load_json(str(file)) if file.is_file() else generate_crossval_split(cases, seed=12345, n_splits=5)
        if not 0 <= int(fold) < len(splits):
            raise ConfigError(f"fold: expected 0 to {len(splits) - 1} or all, got {fold}")
        return list(map(str, splits[int(fold)]["train"])), list(map(str, splits[int(fold)]["val"]))


def build_bank(
    data: Preprocessed, fold: int | str, settings: Settings, per: str = "lesion", min_voxels: int = 27
) -> LesionBank:
    """Cut a bank from a fold's training cases.

    Training cases of patients who are in the fold's validation set too are left out, and named in a log warning and in
    `LesionBank.skipped`.

    Args:
        data: the dataset.
        fold: number of the fold, or ``"all"``.
        settings: say which classes, channels, host and patient groups; their insertion section is not read.
        per: ``"lesion"`` for connected components one by one, ``"case"`` for all of a case's lesions as one.
        min_voxels: smallest lesion that is kept.

    Raises:
        ConfigError: settings or a fold that do not fit the dataset, no training case, or no lesion in any.
    """
    task = Task.of(data.plans, data.configuration, data.dataset_json, settings)
    train, validation = data.split(fold)
    held_out = set(groups_of(validation, settings).values())
    groups = groups_of(train, settings)
    kept = {case: group for case, group in groups.items() if group not in held_out}
    try:
        bank = LesionBank.from_arrays(_samples(data, task, kept), task.classes, task.channels, per, min_voxels)
    except ValueError as error:
        raise ConfigError(f"fold {fold} of {data.plans.dataset_name}: {error}") from error
    for case in sorted(set(groups) - set(kept)):
        message = f"{case}: its patient {groups[case]} is also in the validation set of fold {fold}"
        logger.warning("lesion bank: left out: %s", message)
        bank.skipped.append(message)
    return bank


def _samples(data: Preprocessed, task: Task, groups: dict[str, str]) -> Iterator[tuple]:
    """Read name, patient, raw intensities, lesion classes, spacing, host tissue and affine of each case."""
    dataset = data.dataset(list(groups))
    for case, group in shown(groups.items(), "bank", "case", len(groups)):
        image, label, _, properties = dataset.load_case(case)
        raw, view, host = case_tissue(task, image, label)
        lesions = torch.where(view == BLOCKED, 0, view)
        affine = case_affine(properties, data.plans.transpose_forward, task.spacing_mm)
        yield case, group, raw.numpy(), lesions[0].numpy(), task.spacing_mm, host[0].numpy(), affine


def shares_of(bank: LesionBank) -> Sequence[str]:
    """Count a bank's voxels per class, in words."""
    totals = np.sum([lesion.voxels for lesion in bank], axis=0)
    return [f"{name} {total}" for name, total in zip(bank.classes, totals, strict=True)]
