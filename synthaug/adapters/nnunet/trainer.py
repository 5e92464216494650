"""`nnUNetTrainerSynthAug`: nnU-Net's own training with tumours inserted on the device.

nnU-Net makes patches in worker processes: it changes their shapes, then their intensities and resolution, and ends with
the targets: regions, and copies at the resolutions of deep supervision. Insertion comes after the shapes and before the
rest, so that lesions are not sharper than what is around them. So the workers stop short of the intensities; the
training step inserts on the device, changes the intensities there in batches (`synthaug.adapters.nnunet.intensities`),
and applies the very transforms that make the targets. Where lesions go by place, batches also say where in their cases
the patches lie (`synthaug.adapters.nnunet.tracking`). Validation
patches, `validation_step` and the final validation are nnU-Net's own.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor
from torch import distributed as dist

from synthaug.adapters.nnunet.batch import BatchInsertion, groups_of
from synthaug.adapters.nnunet.hosts_mixin import HostsMixin
from synthaug.adapters.nnunet.intensities import DeviceIntensities, split
from synthaug.adapters.nnunet.settings import Settings, read_settings
from synthaug.adapters.nnunet.task import Task, check_configuration
from synthaug.adapters.nnunet.tracking import TrackedTransforms
from synthaug.config import ConfigError
from synthaug.data.folds import refuse_shared_patients
from synthaug.insertion.schedule import ProbSchedule
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.registry import resolve_lesions
from synthaug.lesions.sampler import LesionSampler

TARGET_TRANSFORMS = (
    RemoveLabelTransform,
    ConvertSegmentationToRegionsTransform,
    DownsampleSegForDSTransform,
)
"""The transforms that make targets of a label map; they come last in nnU-Net's training transforms."""

CUDA = torch.device("cuda")


class InsertionMixin(HostsMixin):
    """Adds tumour insertion to any trainer derived from `nnUNetTrainer`.

    ``class MyTrainer(InsertionMixin, nnUNetTrainerDA5)`` inserts with that trainer's augmentation, losses and lengths.
    Settings come from the YAML file that the environment variable ``SYNTHAUG_CONFIG`` names; they are read when
    training starts, and neither by prediction nor by ``--val``.

    Raises:
        ConfigError: a configuration that is not 3-D or is the second stage of a cascade, at once; when training
            starts, no settings, settings that do not fit the dataset, or a bank that holds patients of the fold's
            validation cases.
    """

    my_init_kwargs: dict[str, Any]

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        check_configuration(PlansManager(plans).get_configuration(configuration), configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.schedule: ProbSchedule | None = None
        self.target_transforms: list[BasicTransform] = []
        self.intensities: DeviceIntensities | None = None
        self._loaded_insertion: dict[str, Any] | None = None
        self._counted: Counter[Any] = Counter()

    def on_train_start(self) -> None:
        """Make the insertion first, so that nothing is begun with settings that do not fit."""
        self.settings = settings = read_settings()
        if not self.was_initialized:
            self.initialize()
        self.insertion = self.make_insertion(settings)
        self.tumour_free = self.open_tumour_free(settings)
        self.host_frames = self.find_hosts() if self.insertion.by_place else None
        try:
            self.schedule = settings.insertion.schedule(self.num_epochs)
        except ValueError as error:
            raise ConfigError(f"insertion: {error}, of {self.num_epochs} epochs") from error
        super().on_train_start()

    def make_insertion(self, settings: Settings) -> BatchInsertion:
        """Make the insertion of this fold, continued where a checkpoint was loaded.

        Raises:
            ConfigError: as the class says.
        """
        task = Task.of(self.plans_manager, self.configuration_name, self.dataset_json, settings)
        train, validation = self.do_split()
        bank = None
        if settings.bank is not None:
            bank = load_bank(settings, self.fold, train, validation)
        insertion = BatchInsertion.of(task, settings, bank, rank=self.local_rank, audit=self._record(settings))
        if self._loaded_insertion is not None:
            self._continue(insertion, self._loaded_insertion)
        expected = insertion.engine.expected(self.batch_size * self.num_iterations_per_epoch)
        self.print_to_log_file(
            f"synthaug: {lesions_in_words(settings, bank, train)}; generator {settings.generator}; {task.classes!r}; "
            f"channels {', '.join(task.channels)}; voxels of {task.spacing_mm} mm; "
            f"about {expected:.0f} insertions asked for per epoch and process"
        )
        self.print_to_log_file("synthaug settings:", settings.model_dump(mode="json"), also_print_to_console=False)
        return insertion

    def get_training_transforms(self, *args, **kwargs) -> BasicTransform:
        """Return the parent's transforms up to the intensities or the targets, and keep the others for `train_step`.

        Raises:
            ConfigError: the parent changes patches after it made targets, so that insertion has no place.
        """
        transforms = super().get_training_transforms(*args, **kwargs).transforms
        first = next((i for i, t in enumerate(transforms) if isinstance(t, TARGET_TRANSFORMS)), len(transforms))
        before, self.target_transforms = transforms[:first], transforms[first:]
        late = [type(t).__name__ for t in self.target_transforms if not isinstance(t, TARGET_TRANSFORMS)]
        if late:
            raise ConfigError(
                f"{type(self).__name__}: expected the training transforms to end with those that make targets, "
                f"got {', '.join(late)} after {type(transforms[first]).__name__}"
            )
        if self.settings is not None and self.settings.intensities == "device":
            before = self._without_intensities(before)
        return ComposeTransforms(before) if self.host_frames is None else TrackedTransforms(before)

    def _without_intensities(self, transforms: list[BasicTransform]) -> list[BasicTransform]:
        """Keep the changes of intensity for the device; where one is not known there, leave all to the workers."""
        try:
            transforms, self.intensities = split(transforms)
        except ValueError as error:
            self.print_to_log_file(
                f"synthaug: intensities: device does not know {error}, so lesions go in after nnU-Net's noise and blur"
            )
        return transforms

    def train_step(self, batch: dict) -> dict:
        """Insert on the device, change intensities and make the targets there, and take the parent's step."""
        if self.insertion is None:
            raise RuntimeError("train_step before on_train_start: there is no insertion yet")
        image = batch["data"].to(self.device, non_blocking=True)
        label = batch["target"].to(self.device, non_blocking=True)
        image, label = self.insertion(image, label, batch["keys"], self.frames(batch))
        if self.intensities is not None:
            image = self.intensities(image, label)
        return super().train_step(batch | {"data": image, "target": self.targets(label)})

    def targets(self, label: Tensor) -> Tensor | list[Tensor]:
        """Make the loss's targets of a label, as nnU-Net's own workers would.

        Args:
            label: (B, 1, X, Y, Z) integer with nnU-Net's values.

        Returns:
            One tensor (B, 1 or regions, X, Y, Z), or with deep supervision a list of them.
        """
        return collated([made_target(sample.clone(), self.target_transforms) for sample in label])

    def on_train_epoch_start(self) -> None:
        """Set the epoch's probability of a lesion, and do what the parent does."""
        super().on_train_epoch_start()
        if self.insertion is None or self.schedule is None:
            raise RuntimeError("on_train_epoch_start before on_train_start: there is no insertion yet")
        self.insertion.engine.prob = self.schedule(self.current_epoch + 1)

    def on_epoch_end(self) -> None:
        """Write what was inserted into nnU-Net's log, then what the parent does."""
        self.print_to_log_file(self.epoch_summary())
        super().on_epoch_end()

    def epoch_summary(self) -> str:
        """Say in words what was inserted since the last call, in all processes; makes the device be waited for.

        Raises:
            RuntimeError: training has not begun.
        """
        if self.insertion is None:
            raise RuntimeError("epoch_summary before on_train_start: there is no insertion yet")
        total = self._counts(self.insertion)
        new = total - self._counted
        self._counted = total
        words = f"synthaug: {new['samples']} samples, {new['asked']} insertions asked, {new['done']} done"
        for kind in ("refused", "voxels"):
            parts = [f"{key[1]} {n}" for key, n in new.items() if key[0] == kind]
            words += f"; {kind}: {', '.join(parts)}" if parts else ""
        if new["done"] < new["asked"] / 2:
            words += "; WARNING: fewer than half were done"
        return words

    def save_checkpoint(self, filename: str) -> None:
        """Save the parent's checkpoint, with the insertion's state among the trainer's arguments."""
        if self.insertion is not None and not self.disable_checkpointing:
            states = self._of_all_ranks(self.insertion.engine.state_dict())
            self.my_init_kwargs = self.my_init_kwargs | {"synthaug": {"ranks": states}}
        super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load the parent's checkpoint and the insertion's state, which is restored when training starts."""
        super().load_checkpoint(filename_or_checkpoint)
        own = self.my_init_kwargs.get("synthaug")
        if own is None:
            self.print_to_log_file("synthaug: the checkpoint is of a training without insertion; it begins anew")
        self._loaded_insertion = own

    def _record(self, settings: Settings) -> Path | None:
        """Name this process's file of rows, beside the log file and called like it; None where none is wanted."""
        log = Path(self.log_file)
        name = f"{log.stem.replace('training_log', 'insertions')}_{self.local_rank}.jsonl"
        return log.with_name(name) if settings.record else None

    def _continue(self, insertion: BatchInsertion, saved: dict[str, Any]) -> None:
        """Restore each process's state; with another number of processes all go on after the furthest of them."""
        states = saved["ranks"]
        if self.local_rank < len(states):
            state = states[self.local_rank]
        else:
            state = insertion.engine.state_dict()
        if len(states) != (dist.get_world_size() if self.is_ddp else 1):
            state = state | {"number": max(s["number"] for s in states)}
        try:
            insertion.engine.load_state_dict(state)
        except ValueError as error:
            raise ConfigError(f"the checkpoint's insertion does not fit the settings: {error}") from error
        self._counted = self._counts(insertion)

    def _counts(self, insertion: BatchInsertion) -> Counter[Any]:
        """Count samples and insertions since the start of the training, in all processes; waits for the device."""
        total: Counter[Any] = Counter()
        for report in self._of_all_ranks(insertion.engine.report().to_dict()):
            total.update({key: report[key] for key in ("samples", "asked", "done")})
            for kind in ("refused", "voxels"):
                total.update({(kind, name): n for name, n in report[kind].items()})
        return total

    def _of_all_ranks(self, value: Any) -> list[Any]:
        if not self.is_ddp:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values


class nnUNetTrainerSynthAug(InsertionMixin, nnUNetTrainer):  # noqa: N801 (nnU-Net finds trainers by such names)
    """nnU-Net's standard trainer with tumour insertion; ``nnUNetv2_train ... -tr nnUNetTrainerSynthAug``."""


def load_bank(
    settings: Settings, fold: int | str, train: Sequence[str], validation: Sequence[str]
) -> LesionBank | LesionSampler:
    """Load the fold's bank or sampler of masks, which may have seen no patient that the fold validates on.

    Fold ``"all"`` trains on its validation cases, and so may take its donors from them.

    Raises:
        ConfigError: no such file, a damaged one, or one that has seen patients of the validation cases.
    """
    path = settings.bank_path(fold)
    try:
        bank = resolve_lesions(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{error}; `synthaug nnunet-bank DATASET_ID --fold {fold}` writes the bank of a fold, "
            "`synthaug bank paint` one of lesions of no patient"
        ) from error
    groups_of(train, settings)
    if fold != "all":
        try:
            refuse_shared_patients(
                f"the bank {path}",
                bank.patients,
                groups_of(validation, settings),
                f"the validation set of fold {fold}",
            )
        except ValueError as error:
            raise ConfigError(f"{error}; `synthaug nnunet-bank DATASET_ID --fold {fold}` writes such a bank") from error
    return bank


def lesions_in_words(settings: Settings, bank: LesionBank | LesionSampler | None, train: Sequence[str]) -> str:
    """Say, for the log, what lesions are inserted."""
    if settings.lesions == "shapes" or bank is None:
        return "procedural shapes"
    if isinstance(bank, LesionSampler):
        return f"masks sampled as {len(bank.patients)} patients had them"
    own = bank.groups & set(groups_of(train, settings).values())
    return f"{len(bank)} lesions of {len(bank.groups)} patients ({len(own)} of them in this fold's training)"


def made_target(label: Tensor, transforms: Sequence[BasicTransform]) -> Tensor | list[Tensor]:
    """Make the target of one sample by nnU-Net's transforms; its label (1, X, Y, Z) may be overwritten."""
    sample = {"segmentation": label}
    for transform in transforms:
        if isinstance(transform, ConvertSegmentationToRegionsTransform):
            # it compares with tensors of its own, which must be on the label's device
            transform.regions = [region.to(label.device) for region in transform.regions]
        sample = transform(**sample)
    return sample["segmentation"]


def collated(targets: Sequence[Tensor | list[Tensor]]) -> Tensor | list[Tensor]:
    """Stack samples to a batch, level by level where there are several."""
    tensors = [target for target in targets if isinstance(target, Tensor)]
    if tensors:
        return torch.stack(tensors)
    return [torch.stack(level) for level in zip(*targets, strict=True)]
