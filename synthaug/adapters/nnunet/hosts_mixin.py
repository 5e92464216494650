"""The hosts of nnU-Net's trainings: tumour-free ones among its cases, and where in its hosts a patch lies."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset

from synthaug.adapters.nnunet.bank import Preprocessed
from synthaug.adapters.nnunet.batch import BatchInsertion
from synthaug.adapters.nnunet.hosts import frames_of_cases
from synthaug.adapters.nnunet.settings import Settings
from synthaug.adapters.nnunet.tracking import PLACES, tracking_loaders
from synthaug.adapters.nnunet.tumour_free import WithHosts, open_hosts
from synthaug.frames import changed

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Mixed  # which the mixin extends
else:
    _Mixed = object


class HostsMixin(_Mixed):
    """Loads tumour-free hosts beside a trainer's cases, and finds the frames of patches.

    Attributes:
        settings: the user's, once training starts.
        insertion: what is inserted, likewise.
        tumour_free: the dataset of hosts, or None.
        host_frames: frame (3, 4) of each case and host, where lesions go by place.
    """

    settings: Settings | None = None
    insertion: BatchInsertion | None = None
    tumour_free: nnUNetBaseDataset | None = None
    host_frames: dict[str, np.ndarray] | None = None

    def open_tumour_free(self, settings: Settings) -> nnUNetBaseDataset | None:
        """Open the dataset of tumour-free hosts; None where the settings name none.

        Raises:
            ConfigError: one that does not fit; see `open_hosts`.
        """
        if settings.tumour_free is None or self.insertion is None:
            return None
        folder = Path(self.preprocessed_dataset_folder_base)
        data = Preprocessed(folder, self.plans_manager, self.configuration_name, self.dataset_json)
        found = open_hosts(data, settings, self.insertion.task, self.do_split())
        self.print_to_log_file(
            f"synthaug: {settings.tumour_free.share:.0%} of the patches are of {len(found.identifiers)} tumour-free "
            f"hosts of dataset {settings.tumour_free.dataset}"
        )
        return found

    def get_tr_and_val_datasets(self) -> tuple:
        """Open the parent's datasets, with the tumour-free hosts among the training cases."""
        train, validation = super().get_tr_and_val_datasets()
        if self.tumour_free is None or self.settings is None or self.settings.tumour_free is None:
            return train, validation
        return WithHosts(train, self.tumour_free, self.settings.tumour_free.share), validation

    def find_hosts(self) -> dict[str, np.ndarray]:
        """Find the frames (3, 4) of all training cases and tumour-free hosts, which are read for that once."""
        if self.insertion is None:
            raise RuntimeError("find_hosts before on_train_start: there is no insertion yet")
        folder, (cases, _) = self.preprocessed_dataset_folder, self.do_split()
        datasets = [infer_dataset_class(folder)(folder, cases)]
        datasets += [] if self.tumour_free is None else [self.tumour_free]
        self.print_to_log_file(f"synthaug: lesions go by place; looking where the hosts of {len(cases)} cases are")
        task, transpose = self.insertion.task, self.plans_manager.transpose_forward
        frames: dict[str, np.ndarray] = {}
        for dataset in datasets:
            frames |= frames_of_cases(dataset, dataset.identifiers, task, transpose)
        return frames

    def get_dataloaders(self) -> tuple:
        """Make the parent's loaders, which say where patches lie if lesions go by place, and draw hosts by share."""
        if self.host_frames is None and self.tumour_free is None:
            return super().get_dataloaders()
        with tracking_loaders(super().get_dataloaders.__func__):
            return super().get_dataloaders()

    def frames(self, batch: dict) -> list[np.ndarray] | None:
        """Find the frames (3, 4) of a batch's patches; None where lesions do not go by place."""
        if self.host_frames is None:
            return None
        known = zip(batch["keys"], batch[PLACES].numpy(), strict=True)
        return [changed(self.host_frames[str(case)], to_case) for case, to_case in known]
