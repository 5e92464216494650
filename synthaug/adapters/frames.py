"""Frames of the samples that frameworks give: from affines, from images of host coordinates, from a batch's entry.

Where a framework keeps the affine of an image in step with its voxels, it is enough to keep how the host lies in the
world (`host_from_world`). Where it does not, an image of host coordinates goes through the spatial transforms beside
the others, and the frame is read off what comes out (`coordinates`, `fitted_frame`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.frames import host_frame, place
from synthaug.insertion.insertion import TumorInsertion

NEEDING = ("home", "like-data")
"""Place rules that need frames."""

HOST_FROM_WORLD = "host_from_world"
"""Entry of an image's metadata: (3, 4) map from world to host coordinates; see `synthaug.adapters.monai`."""

TO_RAS = {"LPS": np.diag([-1.0, -1.0, 1.0, 1.0])}
"""Conversion of the world that an affine leads to, by its name; RAS where it has none."""

PROBES = 24
"""Most voxels along an axis at which an image of coordinates is looked at."""

REACH = 6
"""Voxels over which the change of coordinates is measured, so that the nearest voxel's will do."""

LEAST = 8
"""Fewest voxels that a frame is fitted to."""

FAR = 0.5
"""How far a voxel's change of coordinates may lie from the median, as a share of it, to be taken for the host's own."""


ELSEWHERE = np.concatenate([np.eye(3) / 1000, np.full((3, 1), 9.0)], 1)
"""Frame of a sample that shows nothing of its host: far from it."""


def host_from_world(tissue: np.ndarray, affine: Any, world: str = "RAS") -> np.ndarray:
    """Find the map (3, 4) from world to host coordinates of a whole volume.

    Args:
        tissue: (X, Y, Z) bool, host tissue.
        affine: (4, 4), voxel indices to mm.
        world: axes of the mm, ``"RAS"`` or ``"LPS"``.

    Raises:
        ValueError: no tissue.
    """
    if not tissue.any():
        raise ValueError("host frame: expected an image with host tissue, got one without")
    matrix = np.asarray(affine, np.float64)
    frame = host_frame(tissue, TO_RAS.get(world, np.eye(4)) @ matrix)
    return frame @ np.linalg.inv(matrix)


def frames_by_affine(from_world: Any, affine: Any) -> np.ndarray:
    """Compose maps from world to host, (3, 4) or (B, 3, 4), with the samples' affines: their frames, (B, 3, 4)."""
    known = np.asarray(torch.as_tensor(from_world, device="cpu"), np.float64).reshape(-1, 3, 4)
    return known @ np.asarray(torch.as_tensor(affine, device="cpu"), np.float64).reshape(-1, 4, 4)


def frames_of_tensors(tensors: Iterable[Any]) -> np.ndarray | None:
    """Read the frames (B, 3, 4) off the first of some samples or batches that knows its host, None where none does.

    Args:
        tensors: MONAI's `MetaTensor`s, or others, which know nothing.
    """
    for tensor in tensors:
        meta = getattr(tensor, "meta", None)
        if isinstance(meta, Mapping) and HOST_FROM_WORLD in meta:
            return frames_by_affine(meta[HOST_FROM_WORLD], tensor.affine)
    return None


def goes_by_place(insertion: TumorInsertion) -> bool:
    """Tell whether an insertion makes use of frames."""
    rule = insertion.options.place
    return rule in NEEDING or (rule is None and insertion.places is not None)


def needed_frames(insertion: TumorInsertion, frames: Any, advice: str) -> Any:
    """Return a batch's frames, after a check that they are there if the insertion's place rule needs them.

    Args:
        insertion: what is inserted.
        frames: of the batch, or None.
        advice: what to add so that they are there.

    Raises:
        ValueError: they are needed and not there.
    """
    rule = insertion.options.place
    if frames is None and rule in NEEDING:
        raise ValueError(f"place: {rule} needs to know where in their hosts the samples lie: {advice}")
    return frames


def coordinates(frame: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Make the image (3, X, Y, Z) float32 of the host coordinates of a volume's voxels."""
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    matrix = torch.from_numpy(np.asarray(frame, np.float64))
    parts = [
        matrix[:, axis, None, None, None] * axes[axis].view([-1 if i == axis else 1 for i in range(3)])
        for axis in range(3)
    ]
    return (parts[0] + parts[1] + parts[2] + matrix[:, 3, None, None, None]).float()


def fitted_frame(image: Tensor) -> np.ndarray:
    """Fit the frame (3, 4) of a sample to its image of host coordinates, by least squares over some of its voxels.

    What a transform padded has coordinates that do not change from voxel to voxel as the others' do, and is left out.
    Of an elastic change the frame is the affine part.

    Args:
        image: (3, X, Y, Z), at least 2 voxels along each axis.

    Returns:
        The frame, that of a place far from the host where all is padding.
    """
    values = image.detach().cpu().double().numpy()
    reach = np.array([min(REACH, n // 2) for n in values.shape[1:]])
    voxels = lattice([n - r for n, r in zip(values.shape[1:], reach, strict=True)])
    here = values[:, *voxels.T].T
    steps = np.stack([values[:, *(voxels + r).T].T - here for r in np.diag(reach)], -1) / reach
    inside = np.abs(np.linalg.det(steps)) > 1e-15
    if inside.any():
        usual = np.median(steps[inside], axis=0)
        inside &= np.linalg.norm(steps - usual, axis=(1, 2)) < FAR * np.linalg.norm(usual)
    if inside.sum() < LEAST:
        return ELSEWHERE
    frame = affine_fit(voxels[inside], here[inside])
    off = np.linalg.norm(place(frame, voxels[inside]) - here[inside], axis=1)
    good = off <= 3 * np.median(off) + 1e-12
    return affine_fit(voxels[inside][good], here[inside][good])


def lattice(shape: Sequence[int]) -> np.ndarray:
    """Choose voxels (N, D) spread evenly over a volume of D axes."""
    axes = [np.unique(np.linspace(0, n - 1, min(PROBES, n)).round().astype(int)) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def affine_fit(voxels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Fit the affine map (D, D + 1) from voxels (N, D) to values (N, D), by least squares."""
    known = np.concatenate([voxels, np.ones((len(voxels), 1))], 1)
    return np.linalg.lstsq(known, values, rcond=None)[0].T
