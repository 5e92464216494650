"""How a cohort lies on disk: the names of a case's files in four layouts, and what is in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.config import CohortConfig
from synthaug.cohort.hosts import Host
from synthaug.config import ConfigError
from synthaug.data.bids import DERIVATIVES, SUFFIXES, bids_name
from synthaug.data.nifti import Stored, nifti_bytes, volumes_first

PIPELINE = f"{DERIVATIVES}/tumours"
BRATS_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
UNSCALED = (1.0, 0.0)

LayoutName = Literal["nnunet", "msd", "bids", "brats"]


@dataclass(frozen=True)
class Channel:
    """One channel of a case, ready to be written.

    Attributes:
        like: the file it came from.
        raw: (X, Y, Z) stored values.
    """

    like: Stored
    raw: np.ndarray

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept of the stored values."""
        return self.like.slope, self.like.inter


class Layout:
    """One of the four layouts, for one cohort.

    Args:
        config: of the cohort.

    Raises:
        ConfigError: BIDS, and a channel that it has no name for.
    """

    def __init__(self, config: CohortConfig):
        self.name: LayoutName = config.layout
        self.channels, self.prefix, self.level = config.channels, config.prefix, config.compression
        self.classes = config.vocabulary
        unnamed = [c for c in config.channels if c not in SUFFIXES]
        if self.name == "bids" and unnamed:
            raise ConfigError(f"layout: BIDS has no anatomical suffix for {', '.join(unnamed)}; choose another layout")

    @property
    def label_values(self) -> dict[str, int]:
        """Class name to value in the written labels; nnU-Net wants 1, 2, 3, ..., the others keep the hosts' own."""
        values = self.classes.values
        if self.name != "nnunet":
            return dict(values)
        return {name: i + 1 for i, name in enumerate(sorted(values, key=values.get))}

    def synthetic_name(self, index: int) -> str:
        """Name of a synthetic case."""
        name = f"{self.prefix}{index:06d}" if self.name == "bids" else f"{self.prefix}_{index:06d}"
        return f"sub-{name}" if self.name == "bids" else name

    def real_name(self, name: str) -> str:
        """Name of a real case that is written beside the synthetic ones."""
        return bids_name(re.sub("^sub-", "", name)) if self.name == "bids" else name

    def image_paths(self, name: str) -> list[str]:
        """Files of a case's images, one for each channel, or one for all."""
        if self.name == "nnunet":
            return [f"imagesTr/{name}_{i:04d}.nii.gz" for i in range(len(self.channels))]
        if self.name == "msd":
            return [f"imagesTr/{name}.nii.gz"]
        if self.name == "bids":
            return [f"{name}/anat/{name}_{SUFFIXES[c]}.nii.gz" for c in self.channels]
        recent = self.classes.name in ("BRATS23", "BRATS24")
        tags = [BRATS_2023.get(c, c) if recent else c for c in self.channels]
        return [f"{name}/{name}{'-' if recent else '_'}{tag}.nii.gz" for tag in tags]

    def label_path(self, name: str) -> str:
        """File of a case's label."""
        if self.name in ("nnunet", "msd"):
            return f"labelsTr/{name}.nii.gz"
        if self.name == "bids":
            return f"{PIPELINE}/{name}/anat/{name}_desc-tumour_dseg.nii.gz"
        return f"{name}/{name}{'-' if self.classes.name in ('BRATS23', 'BRATS24') else '_'}seg.nii.gz"

    def case_files(self, name: str, host: Host, image: np.ndarray | None, label: np.ndarray | None) -> dict[str, bytes]:
        """The files of a case, by path in the cohort's folder; the label comes last.

        A voxel that did not change keeps its stored value, bit for bit; changed ones are rounded and clipped to the
        range of the file's dtype, through its scale factors.

        Args:
            name: of the new case.
            host: where everything else comes from.
            image: (C, x, y, z) of the host's box, or None for the host as it is.
            label: (x, y, z), likewise.
        """
        channels = [self._channel(host, i, image) for i in range(len(self.channels))]
        paths = self.image_paths(name)
        if self.name == "msd":
            contents = [self._stacked(channels)]
        else:
            contents = [self._single(channel) for channel in channels]
        files = dict(zip(paths, contents, strict=True))
        return files | {self.label_path(name): self._label(name, host, label)}

    def _channel(self, host: Host, number: int, image: np.ndarray | None) -> Channel:
        channel = self.channels[number]
        path = host.case.images[channel]
        names = [name for name, other in host.case.images.items() if other == path]
        like = host.stored.files[path]
        raw = volumes_first(like.raw)[names.index(channel)]
        if image is not None:
            raw = raw.copy()
            changed = image[number] != host.image[0, number].numpy()
            raw[host.box][changed] = like.stored_values(image[number][changed])
        return Channel(like, raw)

    def _single(self, channel: Channel) -> bytes:
        return nifti_bytes(channel.like.header, channel.raw, self.level)

    def _stacked(self, channels: Sequence[Channel]) -> bytes:
        """All channels in one file: in their common dtype, or scaled in float32 where scale factors differ."""
        first = channels[0]
        if len(channels) == 1:
            return self._single(first)
        if len({c.scaling for c in channels}) == 1 and (
            first.scaling == UNSCALED or len({c.raw.dtype for c in channels}) == 1
        ):
            return nifti_bytes(first.like.header, np.stack([c.raw for c in channels], -1), self.level)
        scaled = [(c.raw.astype(np.float64) * c.like.slope + c.like.inter).astype(np.float32) for c in channels]
        return nifti_bytes(first.like.header, np.stack(scaled, -1), self.level, UNSCALED)

    def _label(self, name: str, host: Host, label: np.ndarray | None) -> bytes:
        stored = host.stored.label
        like = host.stored.files[host.case.images[self.channels[0]]] if stored is None else stored
        values = host.stored.volume.label
        values = np.zeros(like.raw.shape[:3], np.int16) if values is None else values.copy()
        if label is not None:
            values[host.box] = label
        dtype = np.dtype(np.uint8) if stored is None else stored.raw.dtype
        raw = renumbered(values, self.classes, self.label_values).astype(dtype)
        scaling = None if (like.slope, like.inter) == UNSCALED else UNSCALED
        if (raw != renumbered(values, self.classes, self.label_values)).any():
            raise ValueError(f"{name}: the label has values up to {values.max()}, which {dtype} cannot hold")
        return nifti_bytes(like.header, raw, self.level, scaling)


def renumbered(values: np.ndarray, classes: Classes, to: Mapping[str, int]) -> np.ndarray:
    """A label map in other values; itself where they are the same."""
    if all(classes.values[name] == value for name, value in to.items()):
        return values
    out = values.copy()
    for name, value in to.items():
        out[values == classes.values[name]] = value
    return out
