"""A segmentation network for a data set, by nnU-Net's published rules (Isensee et al. 2021, supplementary note).

Voxel size: the median, and along an axis that is three times as coarse as the others the 10th percentile. Patch: as
large as the memory allows, of the median case's proportions, shrunk along the axis where it covers most of it. Levels:
an axis is halved while it has at least 8 voxels and is not twice as coarse as the finest; a kernel spans 3 voxels along
an axis once that is not twice as coarse as the finest. Batch: what memory is left for, 2 at least, no more than a
twentieth of all voxels.
"""

import math
from collections.abc import Sequence

import numpy as np

from synthaug.geometry import triple
from synthaug.profile.profile import Plan

ANISOTROPY = 3.0
LEAST_SIDE = 4
REFERENCE_VOXELS, REFERENCE_GB = 560_000_000, 8.0
"""Feature values of a network that trains with a batch of 2 in so much memory."""

FIRST_FEATURES, MOST_FEATURES = 32, 320
CROPS = (32, 48, 64, 96)


def plan(
    sizes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]], extents_mm: Sequence[Sequence[float]],
    classes: int, memory_gb: float = REFERENCE_GB,
) -> Plan:  # fmt: skip
    """Plan a segmentation network.

    Args:
        sizes: of the cases, in voxels.
        spacings: of the cases, in mm.
        extents_mm: of the lesions' boxes.
        classes: of the output, without background.
        memory_gb: of the device.
    """
    spacing = target_spacing(sizes, spacings)
    shapes = np.array(sizes) * np.array(spacings) / spacing
    median = np.median(shapes, axis=0)
    strides, kernels, patch = levels(spacing, _first_patch(spacing, median))
    budget = REFERENCE_VOXELS * memory_gb / REFERENCE_GB
    while feature_values(patch, strides, classes) > budget:
        axis, smaller = int(np.argsort(np.array(patch) / median)[-1]), list(patch)
        smaller[axis] -= _divisor(spacing, patch, axis)
        # where that takes a level away, the step is smaller, and no size that would do is skipped
        smaller[axis] = patch[axis] - _divisor(spacing, smaller, axis)
        strides, kernels, patch = levels(spacing, smaller)
    batch = round(budget / feature_values(patch, strides, classes) * 2)
    most = round(shapes.prod(1).sum() * 0.05 / np.prod(patch))
    filters = [min(FIRST_FEATURES * 2**level, MOST_FEATURES) for level in range(len(strides))]
    return Plan(
        spacing_mm=triple(round(float(s), 6) for s in spacing),
        shape=triple(max(1, round(float(n))) for n in median),
        patch_size=patch,
        batch=max(2, min(batch, most)),
        filters=filters,
        strides=strides,
        kernels=kernels,
        crops=crop_sizes(extents_mm, spacing),
        memory_gb=memory_gb,
    )


def target_spacing(sizes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]]) -> np.ndarray:
    """Choose the voxel size of training, (3,) in mm."""
    values, shapes = np.array(spacings, float), np.array(sizes, float)
    target, shape = np.median(values, axis=0), np.median(shapes, axis=0)
    worst = int(target.argmax())
    others = [a for a in range(3) if a != worst]
    if target[worst] > ANISOTROPY * target[others].max() and shape[worst] * ANISOTROPY < shape[others].min():
        target[worst] = max(np.percentile(values[:, worst], 10), target[others].max())
    return target


def levels(
    spacing: Sequence[float] | np.ndarray, patch: Sequence[int]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]], tuple[int, int, int]]:
    """Choose strides and kernels of each level, and make the patch divisible by them."""
    size, steps = [int(n) for n in patch], [float(s) for s in spacing]
    halved, kernel = [0, 0, 0], [1, 1, 1]
    strides: list[tuple[int, int, int]] = [(1, 1, 1)]
    kernels: list[tuple[int, int, int]] = []
    while True:
        axes = [i for i in range(3) if size[i] >= 2 * LEAST_SIDE]
        if not axes:
            break
        finest = min(steps[i] for i in axes)
        axes = [i for i in axes if steps[i] / finest < 2]
        if len(axes) == 1 and size[axes[0]] < 3 * LEAST_SIDE:
            break
        kernel = [3 if k == 3 or steps[i] / min(steps) < 2 else 1 for i, k in enumerate(kernel)]
        for i in axes:
            steps[i], size[i], halved[i] = steps[i] * 2, math.ceil(size[i] / 2), halved[i] + 1
        strides.append(triple(2 if i in axes else 1 for i in range(3)))
        kernels.append(triple(kernel))
    kernels.append((3, 3, 3))
    divisible = triple(math.ceil(n / 2**h) * 2**h for n, h in zip(patch, halved, strict=True))
    return strides, kernels, divisible


def feature_values(patch: Sequence[int], strides: Sequence[Sequence[int]], classes: int) -> float:
    """Count the values that a U-Net of two convolutions a level holds for a patch: the memory of its training."""
    sizes, side = [], np.array(patch, float)
    for stride in strides:
        side = side / stride
        sizes.append(side.prod())
    features = [min(FIRST_FEATURES * 2**level, MOST_FEATURES) for level in range(len(sizes))]
    down = sum(2 * n * f for n, f in zip(sizes, features, strict=True))
    # on the way up: the transposed convolution, two convolutions, and what deep supervision reads off
    up = sum(3 * n * f + n * (classes + 1) for n, f in zip(sizes[:-1], features[:-1], strict=True))
    return float(down + up)


def crop_sizes(extents_mm: Sequence[Sequence[float]], spacing: Sequence[float] | np.ndarray) -> dict[int, float]:
    """Choose sides of a generator's crops, the least that hold a lesion with 6 voxels around it, and how often."""
    sides = np.array([max(e / s for e, s in zip(extent, spacing, strict=True)) + 12 for extent in extents_mm])
    index = np.minimum(np.searchsorted(CROPS, sides), len(CROPS) - 1)
    shares = np.bincount(index, minlength=len(CROPS)) / len(index)
    return {side: max(round(float(share), 2), 0.01) for side, share in zip(CROPS, shares, strict=True) if share > 0}


def _first_patch(spacing: Sequence[float] | np.ndarray, median: np.ndarray) -> list[int]:
    """Make a cube in mm of 256^3 voxels' volume, no larger than the median case."""
    fine = 1 / np.array(spacing)
    sides = [round(i) for i in fine * (256**3 / np.prod(fine)) ** (1 / 3)]
    return [max(1, min(a, round(float(b)))) for a, b in zip(sides, median, strict=True)]


def _divisor(spacing: Sequence[float] | np.ndarray, patch: Sequence[int], axis: int) -> int:
    return 2 ** sum(stride[axis] == 2 for stride in levels(spacing, patch)[0])
