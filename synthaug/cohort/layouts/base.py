"""The base of layouts: makes a case's files of its host's, voxel for voxel; a layout adds names and descriptions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.store import Content, Store
from synthaug.data.nifti import Stored, nifti_bytes, nifti_of, volumes_first

if TYPE_CHECKING:
    from synthaug.cohort.config import CohortConfig
    from synthaug.cohort.description import Written
    from synthaug.cohort.hosts import Host

UNSCALED = (1.0, 0.0)
"""Slope and intercept of files whose stored values are the values."""


@dataclass(frozen=True)
class StoredChannel:
    """One channel of a case, ready to be written.

    Attributes:
        like: the host's file, whose header and dtype it takes.
        raw: (X, Y, Z) stored values.
    """

    like: Stored
    raw: np.ndarray

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept of the stored values."""
        return self.like.slope, self.like.inter


class Layout(ABC):
    """Names a case's files, makes their content, and describes the whole cohort.

    Args:
        config: the cohort's configuration.
    """

    def __init__(self, config: "CohortConfig"):
        self.channels, self.prefix, self.compression = config.names, config.prefix, config.compression
        self.classes, self.about = config.vocabulary, config.about

    @abstractmethod
    def image_paths(self, name: str) -> list[str]:
        """Name the files of a case's images in the cohort's folder, as many as `image_contents` gives."""

    @abstractmethod
    def label_path(self, name: str) -> str:
        """Name the file of a case's label in the cohort's folder."""

    @abstractmethod
    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write the layout's own files about the whole cohort, by path.

        Args:
            provenance: versions, generator, hash of the configuration.
            written: one record per case that has files, by index; they are read anew whenever they are iterated over.
        """

    @property
    def label_values(self) -> dict[str, int]:
        """Class name to value in the written labels, in the order of the values; the hosts' own."""
        values = self.classes.values
        return {name: values[name] for name in sorted(values, key=values.__getitem__)}

    def synthetic_name(self, index: int) -> str:
        """Name a synthetic case."""
        return f"{self.prefix}_{index:06d}"

    def real_name(self, name: str) -> str:
        """Name a real case that is written beside the synthetic ones."""
        return name

    def image_contents(self, channels: Sequence[StoredChannel]) -> list[bytes]:
        """Encode a case's image files: one for each channel."""
        return [nifti_bytes(channel.like.header, channel.raw, self.compression) for channel in channels]

    def case_files(
        self, name: str, host: "Host", image: np.ndarray | None, label: np.ndarray | None
    ) -> dict[str, bytes]:
        """Write the files of a case, as bytes by path in the cohort's folder; the label comes last.

        A voxel that did not change keeps its stored value, bit for bit; changed ones are rounded and clipped to the
        range of the file's dtype, through its scale factors.

        Args:
            name: name of the new case.
            host: host, whose files are changed.
            image: (C, x, y, z), the host's box with lesions, or None for the host as it is.
            label: (x, y, z), the box's label with lesions, or None for the host as it is.
        """
        contents = self.image_contents([self._channel(host, i, image) for i in range(len(self.channels))])
        files = dict(zip(self.image_paths(name), contents, strict=True))
        return files | {self.label_path(name): self._label(name, host, label)}

    def read_back(
        self, store: Store, record: Mapping[str, Any], channel: str
    ) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
        """Read one channel and the label of a case that was written, each (X, Y, Z)."""
        name, number = record["case"], self.channels.index(channel)
        paths = self.image_paths(name)
        volume = nifti_of(store.read(paths[number if len(paths) > 1 else 0]))
        if len(volume.shape) == 4:
            volume = volume.slicer[..., number]
        return volume, nifti_of(store.read(self.label_path(name)))

    @property
    def about_in_short(self) -> dict[str, str]:
        """First entries of a ``dataset.json``."""
        return self.about.model_dump(include={"name", "description", "reference", "licence"})

    def facts(self, provenance: Mapping[str, Any], written: "Written", labels: Mapping[str, int]) -> dict[str, Any]:
        """Make the ``dataset.json`` of layouts that have none of their own: the data set, its channels and labels."""
        return {
            **self.about.model_dump(mode="json"),
            "channels": list(self.channels),
            "labels": dict(labels),
            "cases": len(written),
            "provenance": self.provenance_entry(provenance),
        }

    @staticmethod
    def provenance_entry(provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Make the entry of a ``dataset.json`` that says where the cases come from."""
        return {**provenance, "manifest": "manifest.jsonl: one row for every synthetic lesion"}

    def _channel(self, host: "Host", number: int, image: np.ndarray | None) -> StoredChannel:
        channel = self.channels[number]
        path = host.case.images[channel]
        names = [name for name, other in host.case.images.items() if other == path]
        like = host.stored.files[path]
        raw = volumes_first(like.raw)[names.index(channel)]
        if image is not None:
            raw = raw.copy()
            changed = image[number] != host.image[0, number].numpy()
            raw[host.box][changed] = like.stored_values(image[number][changed])
        return StoredChannel(like, raw)

    def _label(self, name: str, host: "Host", label: np.ndarray | None) -> bytes:
        like, raw = self._label_values(name, host, label)
        scaling = None if (like.slope, like.inter) == UNSCALED else UNSCALED
        return nifti_bytes(like.header, raw, self.compression, scaling)

    def _label_values(self, name: str, host: "Host", label: np.ndarray | None) -> tuple[Stored, np.ndarray]:
        """The file whose header the label takes, and its stored values (X, Y, Z)."""
        stored = host.stored.label
        like = host.stored.files[host.case.images[self.channels[0]]] if stored is None else stored
        values = host.stored.volume.label
        values = np.zeros(like.raw.shape[:3], np.int16) if values is None else values.copy()
        if label is not None:
            values[host.box] = label
        dtype = np.dtype(np.uint8) if stored is None else stored.raw.dtype
        wanted = renumbered(values, self.classes, self.label_values)
        raw = wanted.astype(dtype)
        if (raw != wanted).any():
            raise ValueError(f"{name}: the label has values up to {values.max()}, which {dtype} cannot hold")
        return like, raw


def renumbered(values: np.ndarray, classes: Classes, to: Mapping[str, int]) -> np.ndarray:
    """Change the values of a label map; the map itself where they are the same."""
    if all(classes.values[name] == value for name, value in to.items()):
        return values
    out = values.copy()
    for name, value in to.items():
        out[values == classes.values[name]] = value
    return out
