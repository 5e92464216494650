"""Where the voxels of a patch were before batchgeneratorsv2's transforms: maps of voxel indices.

The transforms are called as they call themselves, in two steps: the parameters of the first tell the map. Random
numbers and patches are those of the library.
"""

from collections.abc import Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform

from synthaug.adapters.frames import affine_fit, coordinates, fitted_frame, lattice
from synthaug.frames import changed, flipped

IDENTITY = np.eye(3, 4)

STILL = (ImageOnlyTransform, SegOnlyTransform, MaskImageTransform, Convert2DTo3DTransform, Convert3DTo2DTransform)
"""Transforms that move no voxel of a 3-D patch."""


def check_followed(transform: BasicTransform) -> None:
    """Check that a transform can be followed.

    Raises:
        ValueError: it moves voxels in a way that it does not tell.
    """
    if isinstance(transform, ComposeTransforms):
        for one in transform.transforms:
            check_followed(one)
    elif isinstance(transform, RandomTransform):
        check_followed(transform.transform)
    elif not is_still(transform) and type(transform)._apply_to_regr_target is BasicTransform._apply_to_regr_target:
        raise ValueError(
            f"place: {type(transform).__name__} cannot be followed, for it does not change regression targets: give "
            "place: anywhere"
        )


def tracked(transform: BasicTransform, data: dict) -> tuple[dict, np.ndarray]:
    """Apply a transform to a sample, and find the map (3, 4) of its voxel indices to those before."""
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
    voxels, ends = lattice(size), np.array(shape)
    unit = grid[tuple(torch.from_numpy(v) for v in voxels.T)].double().numpy()[:, ::-1]
    source = (unit + 1) / 2 * (ends - 1) if transform.align_corners else ((unit + 1) * ends - 1) / 2
    found = affine_fit(voxels, source)
    matrix[3 - dims :, 3 - dims : 3], matrix[3 - dims :, 3] = found[:, :-1], found[:, -1]
    return matrix


def _probed(transform: BasicTransform, data: dict, shape: Sequence[int]) -> tuple[dict, np.ndarray]:
    """Follow any other transform by an image of voxel indices, which goes through it as a regression target.

    Raises:
        ValueError: the patch is 2-D.
    """
    if len(shape) != 3:
        raise ValueError(f"place: {type(transform).__name__} of 2-D patches cannot be followed: give place: anywhere")
    data = transform(**data, regression_target=coordinates(IDENTITY, shape))
    return data, fitted_frame(data.pop("regression_target"))
