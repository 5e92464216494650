"""Where in its case a patch lies, after nnU-Net's crop and spatial transforms: maps of voxel indices.

nnU-Net's loader tells neither the box that it cut nor what its transforms did. Here the loader notes the box, and the
transforms are followed (`synthaug.adapters.tracking`); random numbers and patches are those of nnU-Net.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from synthaug.adapters.tracking import IDENTITY, check_followed, tracked
from synthaug.config import ConfigError
from synthaug.frames import changed, cropped

PLACES = "patch_to_case"
"""Entry of a batch: (B, 3, 4) float64, voxel indices of its patches to those of their preprocessed cases."""


class TrackedTransforms(ComposeTransforms):
    """Applies transforms, and notes where the patch's voxels were before.

    Raises:
        ConfigError: one of them cannot be followed.

    Attributes:
        start: first voxel of the box that the next patch is cut from.
        maps: of the patches since it was emptied, (3, 4), voxel indices to those of the case.
    """

    def __init__(self, transforms: Sequence[BasicTransform]):
        super().__init__(list(transforms))
        try:
            check_followed(self)
        except ValueError as error:
            raise ConfigError(f"insertion: {error}") from error
        self.start: Sequence[int] = (0, 0, 0)
        self.maps: list[np.ndarray] = []

    def apply(self, data_dict: dict, **params: Any) -> dict:
        """Apply the transforms to a sample."""
        data_dict, matrix = tracked(ComposeTransforms(self.transforms), data_dict)
        self.maps.append(changed(cropped(IDENTITY, self.start), matrix))
        return data_dict


class TrackingLoader(nnUNetDataLoader):
    """nnU-Net's loader; its batches say where their patches lie (`PLACES`) if its transforms are tracked.

    Where the dataset has `probabilities`, cases are drawn by them.
    """

    def __init__(self, data: Any, *args: Any, **kwargs: Any):
        super().__init__(data, *args, **kwargs)
        if hasattr(data, "probabilities"):
            self.sampling_probabilities = data.probabilities

    def get_bbox(self, *args: Any, **kwargs: Any) -> tuple:
        """Draw the box of the next patch, and note it."""
        box = super().get_bbox(*args, **kwargs)
        if isinstance(self.transforms, TrackedTransforms):
            self.transforms.start = [int(start) for start in box[0]]
        return box

    def generate_train_batch(self) -> dict:
        """Make a batch."""
        if not isinstance(self.transforms, TrackedTransforms):
            return super().generate_train_batch()
        self.transforms.maps.clear()
        batch = super().generate_train_batch()
        return batch | {PLACES: torch.from_numpy(np.stack(self.transforms.maps))}


@contextmanager
def tracking_loaders(get_dataloaders: Callable[..., Any]) -> Iterator[None]:
    """Let a trainer's own method make loaders that track, for the length of a ``with`` block.

    The method names the loader's class, and takes it from nowhere else than its module.

    Raises:
        ConfigError: the method uses another loader.
    """
    names = get_dataloaders.__globals__
    if names.get("nnUNetDataLoader") is not nnUNetDataLoader:
        raise ConfigError(
            f"insertion.place, tumour_free: expected a trainer that loads with nnUNetDataLoader; "
            f"{get_dataloaders.__qualname__} does not: give place: anywhere, and no tumour_free"
        )
    names["nnUNetDataLoader"] = TrackingLoader
    try:
        yield
    finally:
        names["nnUNetDataLoader"] = nnUNetDataLoader
