"""Cutting of lesions out of labelled cases: masks, intensities and the rows of a bank."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from synthaug.checks import in_short
from synthaug.classes import NO_LESIONS, Classes
from synthaug.frames import cropped, host_frame
from synthaug.host import HostSample
from synthaug.host.rule import HostRule
from synthaug.host.space import Space

logger = logging.getLogger(__name__)

MARGIN_VOX = 3
MIN_VOXELS = 27
UNKNOWN_FRAME = np.full((3, 4), np.nan)


class LesionCutter:
    """Cuts lesions out of cases and collects them.

    Args:
        classes: vocabulary of the labels.
        channels: canonical names, whose intensities are kept.
        per: ``"lesion"`` for connected components one by one, ``"case"`` for all of a case's lesions as one.
        min_voxels: smallest lesion that is kept.
        space: host rule and units; those of skull-stripped images where not given.

    Raises:
        ValueError: an unknown `per`, or channels that the rule looks at and that are not there.
    """

    def __init__(
        self, classes: Classes, channels: tuple[str, ...], per: str, min_voxels: int, space: Space | None = None
    ):
        if per not in ("lesion", "case"):
            raise ValueError(f"per: expected 'lesion' or 'case', got {per!r}")
        self.classes, self.channels, self.per, self.min_voxels = classes, channels, per, min_voxels
        self.space = space or Space()
        self.space.check(channels, classes)
        self.host_given = False
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[str] = []

    def skip(self, message: str) -> None:
        """Note, and log as a warning, that something is left out."""
        logger.warning("lesion bank: left out: %s", message)
        self.skipped.append(message)

    def add(
        self,
        name: str,
        group: str | None,
        image: np.ndarray,
        label: np.ndarray,
        spacing_mm: Sequence[float],
        host: np.ndarray | None = None,
        affine: np.ndarray | None = None,
    ) -> None:
        """Cut the lesions of a case; what cannot be used is noted in `skipped`.

        Args:
            name: the case's.
            group: the case's patient.
            image: (C, X, Y, Z) in the channels' order.
            label: (X, Y, Z) integer.
            spacing_mm: voxel size.
            host: (X, Y, Z) bool, host tissue; by the rule where not given.
            affine: (4, 4), voxel indices to mm, without which the lesions' places in their host are not known.
        """
        rule = self.space.rule
        self.host_given = self.host_given or host is not None
        if host is None and rule != HostRule():
            lesions = tuple(self.classes.values.values())
            volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
            host = rule.of_volume(volume, torch.from_numpy(label), self.channels, lesions, spacing_mm).numpy()
        label = rule.lesions_of(label)
        if problem := self.classes.strange_values(label):
            return self.skip(f"{name}: {problem}; {NO_LESIONS}")
        mask = self.classes.index_map(label)
        components = cc3d.connected_components(mask > 0, connectivity=26) if self.per == "lesion" else (mask > 0)
        sizes = np.bincount(components.ravel().astype(np.int64))
        kept = [i for i in range(1, len(sizes)) if sizes[i] >= self.min_voxels]
        small = len([s for s in sizes[1:] if 0 < s < self.min_voxels])
        if small:
            self.skipped.append(f"{name}: {small} components below {self.min_voxels} voxels")
        if not kept:
            return self.skip(f"{name}: no lesion of at least {self.min_voxels} voxels")
        volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        given, fixed = None if host is None else torch.from_numpy(host), self.space.units.statistics(self.channels)
        sample = HostSample.of(volume, torch.from_numpy(mask), given, fixed=fixed)
        z = self.space.units.clipped(sample.to_model(volume), self.channels)
        frame = None if affine is None else host_frame(sample.tissue.numpy(), affine)
        for number, component in enumerate(sorted(kept, key=lambda i: -sizes[i])):
            lesion_name = f"{name}/{number}" if self.per == "lesion" else name
            own = np.where(components == component, mask, 0)
            self.rows.append(
                lesion_row(lesion_name, group, own, z, spacing_mm, len(self.classes), self.min_voxels, frame)
            )

    def collected(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Collect all lesions that were added as header and tensors of a bank.

        Raises:
            ValueError: there is none.
        """
        if not self.rows:
            reasons = in_short(self.skipped) or "no case was given"
            raise ValueError(f"lesion bank: expected at least one lesion, got none ({reasons})")
        header: dict[str, Any] = {
            "classes": list(self.classes.names),
            "values": dict(self.classes.values),
            "channels": list(self.channels),
            "per": self.per,
            "skipped": self.skipped,
        }
        if self.host_given and self.space == Space():
            header["space"] = None  # the caller's masks say what no rule does
        elif self.space != Space():
            header["space"] = self.space.model_dump(mode="json")
        return header | names_of(self.rows), tensors_of(self.rows)


def lesion_row(
    name: str,
    group: str | None,
    mask: np.ndarray,
    z: Tensor,
    spacing_mm: Sequence[float],
    classes: int,
    min_voxels: int = MIN_VOXELS,
    frame: np.ndarray | None = None,
) -> dict[str, Any]:
    """Make a bank's row of one lesion: its tight box and `MARGIN_VOX` around it, continued where the volume ends.

    Args:
        name: the lesion's, unique in its bank.
        group: its patient.
        mask: (X, Y, Z) uint8, k + 1 in class k of this lesion, 0 elsewhere.
        z: (C, X, Y, Z) float32 model intensities on the CPU.
        spacing_mm: voxel size.
        classes: their number.
        min_voxels: a class of fewer has no statistics.
        frame: (3, 4) of the volume, voxel indices to host coordinates, where it is known.
    """
    found = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    tight = tuple(slice(int(f[0]), int(f[-1]) + 1) for f in found)
    padded_mask = np.pad(mask[tight], MARGIN_VOX)
    x, y, depth = np.ix_(
        *(
            np.arange(s.start - MARGIN_VOX, s.stop + MARGIN_VOX).clip(0, n - 1)
            for s, n in zip(tight, mask.shape, strict=True)
        )
    )
    box = z.numpy()[:, x, y, depth]
    mean, std = _class_statistics(padded_mask, box, classes, min_voxels)
    return {
        "name": name,
        "group": group,
        "mask": torch.from_numpy(padded_mask.reshape(-1)),
        "intensities": torch.from_numpy(rearrange(box, "c x y z -> c (x y z)")).half(),
        "size": [s.stop - s.start for s in tight],
        "spacing_mm": [float(s) for s in spacing_mm],
        "voxels": np.bincount(mask[tight].ravel(), minlength=classes + 1)[1:].tolist(),
        "mean": mean,
        "std": std,
        "frame": UNKNOWN_FRAME if frame is None else cropped(frame, [t.start - MARGIN_VOX for t in tight]),
    }


def _class_statistics(mask: np.ndarray, box: np.ndarray, classes: int, min_voxels: int) -> tuple[Tensor, Tensor]:
    shape = (classes, len(box))
    mean, std = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    for k in range(classes):
        values = box[:, mask == k + 1]
        if values.shape[1] >= min_voxels:
            mean[k], std[k] = values.mean(1), values.std(1)
    return torch.from_numpy(mean), torch.from_numpy(std)


def names_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make the names and groups of a bank's header."""
    return {"names": [row["name"] for row in rows], "groups": [row["group"] for row in rows]}


def tensors_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Join rows of `lesion_row` to the tensors of a bank."""
    return {
        "masks": torch.cat([row["mask"] for row in rows]),
        "intensities": torch.cat([row["intensities"] for row in rows], dim=1),
        "sizes": torch.tensor([row["size"] for row in rows], dtype=torch.int32),
        "spacing_mm": torch.tensor([row["spacing_mm"] for row in rows], dtype=torch.float64),
        "voxels": torch.tensor([row["voxels"] for row in rows], dtype=torch.int64),
        "class_mean": torch.stack([row["mean"] for row in rows]),
        "class_std": torch.stack([row["std"] for row in rows]),
        "frames": torch.from_numpy(np.stack([row["frame"] for row in rows])),
    }
