"""Exact copies of masks: hashes that do not change when a mask is moved, mirrored or turned by right angles."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from synthaug.geometry import bounding_box

SYMMETRIES = [
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


def mask_hash(mask: np.ndarray) -> str:
    """Hash a lesion's mask (X, Y, Z), 0 outside it, whatever its place and whichever of the cube's 48 positions it has.

    Raises:
        ValueError: a mask without a voxel.

    Example:
        >>> mask = np.zeros((6, 6, 6), np.uint8)
        >>> mask[1:4, 2:4, 2] = 2
        >>> mask_hash(mask) == mask_hash(np.flip(mask, 0).transpose(2, 0, 1))
        True
    """
    if not mask.any():
        raise ValueError(f"mask: expected a lesion, got {mask.shape} without one")
    tight = np.ascontiguousarray(mask[bounding_box(mask != 0)], dtype=np.uint8)
    found = []
    for axes, flips in SYMMETRIES:
        turned = np.ascontiguousarray(tight.transpose(axes)[tuple(slice(None, None, step) for step in flips)])
        found.append(str(turned.shape).encode() + turned.tobytes())
    return hashlib.sha256(min(found)).hexdigest()


def copied(masks: Sequence[np.ndarray], training: Iterable[np.ndarray]) -> list[bool]:
    """Tell which masks are exact copies of one of the training masks, moved, mirrored and turned ones included."""
    known = {mask_hash(mask) for mask in training}
    return [mask_hash(mask) in known for mask in masks]
