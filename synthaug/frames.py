"""Host coordinates, in which a place means the same in every patient, and the frames that lead from voxels to them.

Host coordinates run from 0 to 1 over the box of a host's tissue, along the axes of the patient: from left to right,
from back to front, from foot to head (RAS, as NIfTI's affines have it). A frame is the (3, 4) affine map from voxel
indices of some volume to them. It is known for whole volumes, and it travels: through crops, flips and affine changes a
patch keeps the frame of the host that it was cut from. So the place of a lesion can be compared between patients
without registering them; for brains it is true to about a centimetre.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthaug.geometry import triple

TRIMMED = 0.002
"""Share of a host's voxels that may lie beyond its box at either end of an axis, so that no single voxel decides."""

MIRROR = np.diag([-1.0, 1.0, 1.0])
"""Left to right and right to left; with 1 added to the first coordinate."""


def host_frame(tissue: np.ndarray, affine: np.ndarray | None = None) -> np.ndarray:
    """Find the frame of a whole volume.

    Args:
        tissue: (X, Y, Z) bool, host tissue; lesions may be part of it.
        affine: (4, 4), voxel indices to mm; where it is not given, the volume's axes are taken for the patient's.

    Returns:
        (3, 4) float64; NaN where there is no tissue.

    Example:
        >>> tissue = np.zeros((10, 10, 10), bool)
        >>> tissue[:, 2:8, :] = True
        >>> place(host_frame(tissue), [4.5, 4.5, 4.5]).round(2).tolist()
        [0.5, 0.5, 0.5]
    """
    if not tissue.any():
        return np.full((3, 4), np.nan)
    to_mm = np.eye(4) if affine is None else np.asarray(affine, np.float64)
    ends = []
    for axis in range(3):
        share = tissue.sum(axis=tuple(a for a in range(3) if a != axis)).cumsum() / tissue.sum()
        low, high = np.searchsorted(share, TRIMMED, "right"), np.searchsorted(share, 1 - TRIMMED)
        ends.append((low - 0.5, high + 0.5))
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3) @ to_mm[:3, :3].T + to_mm[:3, 3]
    low, size = corners.min(0), np.ptp(corners, axis=0)
    return np.concatenate([to_mm[:3, :3] / size[:, None], ((to_mm[:3, 3] - low) / size)[:, None]], axis=1)


def place(frame: np.ndarray, voxel: Any) -> np.ndarray:
    """Map voxel indices (..., 3) to host coordinates (..., 3)."""
    return np.asarray(voxel, np.float64) @ frame[:, :3].T + frame[:, 3]


def voxel(frame: np.ndarray, place: Any) -> np.ndarray:
    """Map host coordinates (..., 3) to voxel indices (..., 3), not rounded."""
    return (np.asarray(place, np.float64) - frame[:, 3]) @ np.linalg.inv(frame[:, :3]).T


def cropped(frame: np.ndarray, start: Sequence[int] | np.ndarray) -> np.ndarray:
    """Move the frame to a crop, or a padded volume, whose first voxel is `start` of the whole volume."""
    return np.concatenate([frame[:, :3], place(frame, start)[:, None]], axis=1)


def changed(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move the frame to a resampled volume.

    Args:
        frame: (3, 4) of the volume before.
        matrix: (3, 4) or (4, 4), voxel indices of the new volume to those of the one before.
    """
    linear = frame[:, :3] @ matrix[:3, :3]
    return np.concatenate([linear, place(frame, matrix[:3, 3])[:, None]], axis=1)


def flipped(frame: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """Move the frame to a volume of this shape that was reversed along some axes."""
    matrix = np.eye(4)
    for axis in axes:
        matrix[axis, axis], matrix[axis, 3] = -1, shape[axis] - 1
    return changed(frame, matrix)


def mirrored(place: Any) -> np.ndarray:
    """Mirror host coordinates (..., 3) at the mid-plane."""
    return np.asarray(place, np.float64) @ MIRROR.T + [1.0, 0.0, 0.0]


def other_side(frame: np.ndarray) -> np.ndarray:
    """Find the map (3, 4) of voxel indices to those of their mirror images at the mid-plane."""
    back = np.linalg.inv(frame[:, :3])
    offset = voxel(frame, mirrored(frame[:, 3]))
    return np.concatenate([back @ MIRROR @ frame[:, :3], offset[:, None]], axis=1)


def turn_between(
    source: np.ndarray, target: np.ndarray, mirror: bool
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Find the right-angle turn that brings a volume of one frame into the orientation of another.

    Args:
        source: (3, 4) frame of what is turned.
        target: (3, 4) frame of the volume that it goes into.
        mirror: whether it goes to the other side of the mid-plane.

    Returns:
        Which source axis becomes axis X, Y, Z, and whether X, Y, Z are reversed afterwards.
    """
    linear = np.linalg.inv(target[:, :3]) @ (MIRROR if mirror else np.eye(3)) @ source[:, :3]
    share = np.abs(linear) / np.linalg.norm(linear, axis=0)
    axes = [-1, -1, -1]
    for _ in range(3):  # the clearest axis first, so that each is taken once
        i, j = np.unravel_index(np.argmax(share), share.shape)
        axes[i] = int(j)
        share[i], share[:, j] = -1, -1
    return triple(axes), triple(bool(linear[i, axes[i]] < 0) for i in range(3))


def checked_frames(frames: Any, samples: int) -> list[np.ndarray] | None:
    """Check the frames of a batch, one for each sample, on the host; None where none were given.

    Raises:
        ValueError: not (B, 3, 4) or (3, 4), or a map that is not finite or cannot be turned back.
    """
    if frames is None:
        return None
    table = np.asarray([np.asarray(f, np.float64) for f in frames] if isinstance(frames, list | tuple) else frames)
    table = table.astype(np.float64)
    if table.shape not in ((3, 4), (samples, 3, 4)):
        raise ValueError(f"frames: expected (3, 4) or ({samples}, 3, 4) maps to host coordinates, got {table.shape}")
    table = np.broadcast_to(table, (samples, 3, 4))
    for b, frame in enumerate(table):
        if not np.isfinite(frame).all() or abs(np.linalg.det(frame[:, :3])) < 1e-15:
            raise ValueError(
                f"frames: expected finite maps that can be turned back; that of sample {b} is {frame.tolist()}"
            )
    return list(table)
