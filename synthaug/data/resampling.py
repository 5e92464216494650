"""Resampling of z-scored images and label maps to other voxel sizes, by MONAI, imported where it is used."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from synthaug.host import scored_tissue


def resample_image(image: np.ndarray, affine: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Resample a z-scored image, whose background is exactly 0 and stays so.

    Args:
        image: (C, X, Y, Z) float32.
        affine: (4, 4), voxel indices to mm.
        spacing_mm: new voxel size along X, Y, Z.

    Returns:
        (C, x, y, z) float32 and its affine.
    """
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    resample = Spacing(tuple(spacing_mm), mode="bilinear", padding_mode="zeros", dtype=np.float32)
    # smoothed by the new voxel's size first, else a finer image would be sampled at single voxels
    smooth = _smoothed(torch.from_numpy(image), affine, spacing_mm)
    # of a MetaTensor MONAI makes a MetaTensor, whatever its annotations say
    resampled = cast(MetaTensor, resample(MetaTensor(smooth, affine=torch.from_numpy(affine))))
    tissue = torch.from_numpy(scored_tissue(image).astype(np.float32))
    inside = cast(MetaTensor, resample(MetaTensor(tissue, affine=torch.from_numpy(affine))))
    values = torch.where(inside.as_tensor() > 0.5, resampled.as_tensor(), 0)
    return values.numpy(), resampled.affine.numpy()


def resample_label(label: np.ndarray, affine: np.ndarray, onto: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resample a label map onto a grid: each voxel has the class with most of it.

    Args:
        label: (X, Y, Z) int16.
        affine: (4, 4) of the label.
        onto: (4, 4) of the new grid.
        size: (x, y, z) of the new grid.
    """
    values = np.unique(label)
    shares = resample_onto(
        torch.from_numpy((label == values[:, None, None, None]).astype(np.float32)), affine, onto, size
    )
    return values[shares.argmax(0).numpy()].astype(label.dtype)


def resample_onto(voxels: torch.Tensor, affine: np.ndarray, onto: np.ndarray, size: Sequence[int]) -> torch.Tensor:
    """Resample (C, X, Y, Z) values onto another grid, linearly; beyond their border they go on as at the border.

    Args:
        voxels: (C, X, Y, Z) float, on any device.
        affine: (4, 4) of the voxels.
        onto: (4, 4) of the new grid.
        size: (x, y, z) of the new grid.
    """
    from monai.data import MetaTensor
    from monai.transforms import SpatialResample

    resample = SpatialResample(mode="bilinear", padding_mode="border", dtype=np.float32)
    source = MetaTensor(_smoothed(voxels, affine, _sizes(onto)), affine=torch.from_numpy(affine))
    resampled = resample(source, dst_affine=torch.from_numpy(onto), spatial_size=tuple(size))
    return cast(MetaTensor, resampled).as_tensor()  # as above


def _sizes(affine: np.ndarray) -> list[float]:
    """Voxel size along each axis in mm."""
    return np.linalg.norm(affine[:3, :3], axis=0).tolist()


def _smoothed(voxels: torch.Tensor, affine: np.ndarray, spacing_mm: Sequence[float]) -> torch.Tensor:
    """Smooth against aliasing, by a Gaussian of (factor - 1) / 2 voxels along each axis that gets coarser."""
    from monai.networks.layers import GaussianFilter

    sigma = [max(0.0, (new / old - 1) / 2) for new, old in zip(spacing_mm, _sizes(affine), strict=True)]
    if not any(s > 1e-3 for s in sigma):
        return voxels
    return GaussianFilter(3, [max(s, 1e-3) for s in sigma]).to(voxels.device)(voxels[None])[0]
