"""Where in its case a patch lies, after nnU-Net's crop and spatial transforms: maps of voxel indices.

nnU-Net's loader tells neither the box that it cut nor what its transforms did. Here the loader notes the box, and the
transforms are called as they call themselves, in two steps: the parameters of the first tell the map. The random
numbers and the patches are those of nnU-Net.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from synthaug.adapters.frames import coordinates, fitted_frame, followed
from synthaug.config import ConfigError
from synthaug.frames import changed, cropped, flipped

IDENTITY = np.eye(3, 4)
PLACES = "patch_to_case"
"""Entry of a batch: (B, 3, 4) float64, voxel indices of its patches to those of their preprocessed cases."""

STILL = (ImageOnlyTransform, SegOnlyTransform, MaskImageTransform, Convert2DTo3DTransform, Convert3DTo2DTransform)
"""Transforms that move no voxel of a 3-D patch."""


class TrackedTransforms(ComposeTransforms):
    """Applies transforms, and notes where the patch's voxels were before.

    Attributes:
        start: first voxel of the box that the next patch is cut from.
        maps: of the patches since it was emptied, (3, 4), voxel indices to those of the case.
    """

    def __init__(self, transforms: Sequence[BasicTransform]):
        super().__init__(list(transforms))
        self.start: Sequence[int] = (0, 0, 0)
        self.maps: list[np.ndarray] = []

    def apply(self, data_dict: dict, **params: Any) -> dict:
        """Apply the transforms to a sample."""
        to_case = cropped(IDENTITY, self.start)
        for transform in self.transforms:
            data_dict, matrix = tracked(transform, data_dict)
            to_case = changed(to_case, matrix)
        self.maps.append(to_case)
        return data_dict


class TrackingLoader(nnUNetDataLoader):
    """nnU-Net's loader; its batches say where their patches lie (`PLACES`) if its transforms are tracked."""

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
            f"insertion.place: expected a trainer that loads with nnUNetDataLoader; {get_dataloaders.__qualname__} "
            "does not: give place: anywhere"
        )
    names["nnUNetDataLoader"] = TrackingLoader
    try:
        yield
    finally:
        names["nnUNetDataLoader"] = nnUNetDataLoader


def tracked(transform: BasicTransform, data: dict) -> tuple[dict, np.ndarray]:
    """Apply a transform to a sample, and find the map (3, 4) of its voxel indices to those before.

    Raises:
        ConfigError: the transform cannot be followed.
    """
    if isinstance(transform, ComposeTransforms):
        to_first = IDENTITY
        for one in transform.transforms:
            data, matrix = tracked(one, data)
            to_first = changed(to_first, matrix)
        return data, to_first
    if is_still(transform):
        return transform(**data), IDENTITY
    if isinstance(transform, RandomTransform):
        chosen = transform.get_parameters(**data)["apply_transform"]
        return tracked(transform.transform, data) if chosen else (data, IDENTITY)
    shape = tuple(data["image"].shape[1:])
    if isinstance(transform, SpatialTransform):
        params = transform.get_parameters(**data)
        return transform.apply(data, **params), _of_spatial(transform, params, shape)
    if isinstance(transform, MirrorTransform):
        params = transform.get_parameters(**data)
        return transform.apply(data, **params), flipped(IDENTITY, shape, params["axes"])
    return _probed(transform, data, shape)


def is_still(transform: BasicTransform) -> bool:
    """Tell whether a transform moves no voxel."""
    if isinstance(transform, RandomTransform):
        return is_still(transform.transform)
    if isinstance(transform, OneOfTransform):
        return all(is_still(one) for one in transform.list_of_transforms)
    return isinstance(transform, STILL)


def _of_spatial(transform: SpatialTransform, params: dict, shape: Sequence[int]) -> np.ndarray:
    """Map (3, 4) of a `SpatialTransform`; with nnU-Net's pseudo-2-D patches the first axis stays as it is."""
    grid, size, dims = params["grid"], tuple(transform.patch_size), len(shape)
    matrix = np.eye(3, 4)
    if grid is None:
        centers = [int(np.floor(c)) for c in params["center_location_in_pixels"]]
        matrix[3 - dims :, 3] = [c - n // 2 for c, n in zip(centers, size, strict=True)]
        return matrix
    ends = torch.tensor(shape, dtype=torch.float64)
    unit = grid.double().flip(-1)
    source = (unit + 1) / 2 * (ends - 1) if transform.align_corners else ((unit + 1) * ends - 1) / 2
    if dims == 3:
        return followed(IDENTITY, source)
    flat = torch.cat([torch.zeros_like(source[..., :1]), source], -1)[None]
    found = followed(IDENTITY, flat.expand(2, *flat.shape[1:]))
    found[:, 0] = [1.0, 0.0, 0.0]
    return found


def _probed(transform: BasicTransform, data: dict, shape: Sequence[int]) -> tuple[dict, np.ndarray]:
    """Follow any other transform by an image of voxel indices, which goes through it as a regression target."""
    if len(shape) != 3:
        raise ConfigError(f"insertion.place: {type(transform).__name__} of 2-D patches cannot be followed")
    data = transform(**data, regression_target=coordinates(IDENTITY, shape))
    probe = data.pop("regression_target")
    if probe is None:
        raise ConfigError(
            f"insertion.place: {type(transform).__name__} cannot be followed, for it leaves no regression target: give "
            "place: anywhere"
        )
    return data, fitted_frame(probe)
