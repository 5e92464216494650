"""Frames of nnU-Net's preprocessed cases: how the axes of their arrays lie in the patient, and where the host is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from synthaug.adapters.nnunet.task import Task
from synthaug.frames import host_frame
from synthaug.host.rule import BLOCKED

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def case_affine(properties: Mapping[str, Any], transpose: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Make the affine (4, 4), voxel indices of a preprocessed array to mm along the patient's axes.

    Its origin is that of the array, for host coordinates do not depend on it. nnU-Net reads arrays in the order Z, Y, X
    of the file, and transposes them by the plans.

    Args:
        properties: of the case, in which the reader keeps the file's orientation; RAS where it does not.
        transpose: ``transpose_forward`` of the plans.
        spacing_mm: voxel size of the array.
    """
    directions = _directions(properties)[:, ::-1][:, list(transpose)]
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing_mm)
    return affine


def _directions(properties: Mapping[str, Any]) -> np.ndarray:
    """Directions (3, 3) of the file's axes X, Y, Z, one a column, RAS."""
    if "sitk_stuff" in properties:
        return LPS_TO_RAS @ np.reshape(properties["sitk_stuff"]["direction"], (3, 3))
    if "nibabel_stuff" in properties:
        known = properties["nibabel_stuff"]
        linear = np.asarray(known.get("reoriented_affine", known["original_affine"]), np.float64)[:3, :3]
        return linear / np.linalg.norm(linear, axis=0)
    return np.eye(3)


def case_tissue(task: Task, image: Any, label: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read a preprocessed case: raw intensities (C, X, Y, Z), the label's view and host tissue (1, X, Y, Z)."""
    voxels, values = (torch.from_numpy(np.array(a[:])) for a in (image, label))
    raw, view = task.units.raw(voxels[None].float())[0], task.view(values[None])[0]
    # what is avoided is no lesion, and no tissue to take statistics from either
    return raw, view, task.host(raw, values) & (view != BLOCKED)


def frames_of_cases(
    dataset: nnUNetBaseDataset, cases: Sequence[str], task: Task, transpose: Sequence[int]
) -> dict[str, np.ndarray]:
    """Find the frame (3, 4) of each case; one without host tissue, which gets no lesion, has its whole array's."""
    frames = {}
    for case in cases:
        image, label, _, properties = dataset.load_case(case)
        tissue = case_tissue(task, image, label)[2][0].numpy()
        affine = case_affine(properties, transpose, task.spacing_mm)
        frames[case] = host_frame(tissue if tissue.any() else np.ones_like(tissue), affine)
    return frames
