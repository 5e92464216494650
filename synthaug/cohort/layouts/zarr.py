"""OME-Zarr 0.5: ``<case>.ome.zarr`` with the image (c, z, y, x) and ``labels/tumour`` (z, y, x), in chunks.

Every channel and the label are one object each, a shard of chunks that can be read by themselves: few requests to
write, and nothing is read that is not needed. OME-Zarr has a scale but no affine; that is kept beside, in ``synthaug``.
"""

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from einops import rearrange

from synthaug.cohort.encoding import json_bytes
from synthaug.cohort.layouts.base import UNSCALED, Layout, StoredChannel
from synthaug.cohort.store import Content, Store
from synthaug.data.ome_zarr import ABOUT, ENDING, IMAGE, LABEL, VERSION, load_zarr

if TYPE_CHECKING:
    from synthaug.cohort.config import CohortConfig
    from synthaug.cohort.description import Written
    from synthaug.cohort.hosts import Host

TUMOUR = LABEL.split("/")[-1]
AXES = ("z", "y", "x")


class ZarrLayout(Layout):
    """Lays a cohort out as one OME-Zarr image for each case.

    Args:
        config: the cohort's configuration; `packing` says dtype and chunks.

    Raises:
        ModuleNotFoundError: zarr is not installed, or is older than version 3.
    """

    def __init__(self, config: "CohortConfig"):
        super().__init__(config)
        self._zarr, self.packing = load_zarr(), config.packing

    def image_paths(self, name: str) -> list[str]:
        """Name the folder of a case."""
        return [f"{name}{ENDING}"]

    def label_path(self, name: str) -> str:
        """Name the folder of a case's label."""
        return f"{name}{ENDING}/{LABEL}"

    def case_files(
        self, name: str, host: "Host", image: np.ndarray | None, label: np.ndarray | None
    ) -> dict[str, bytes]:
        """Write the objects of a case."""
        channels = [self._channel(host, i, image) for i in range(len(self.channels))]
        values, scaling = self._values(name, channels)
        _, marked = self._label_values(name, host, label)
        spacing, affine = host.spacing_mm[::-1], host.stored.volume.affine.tolist()
        store = self._zarr.storage.MemoryStore()
        case = self._zarr.create_group(store, attributes={"ome": self._image(name, values, spacing), ABOUT: {}})
        case.attrs[ABOUT] = {"affine": affine, "channels": list(self.channels), **scaling}
        self._array(case, IMAGE, rearrange(values, "c x y z -> c z y x"), ("c", *AXES))
        labels = case.create_group("labels", attributes={"ome": {"version": VERSION, "labels": [TUMOUR]}})
        tumour = labels.create_group(TUMOUR, attributes={"ome": self._labels(spacing), ABOUT: {"affine": affine}})
        self._array(tumour, "0", rearrange(marked, "x y z -> z y x"), AXES)
        found = sorted(store._store_dict.items())  # the memory's own dictionary, without a round through its event loop
        return {f"{name}{ENDING}/{path}": content.to_bytes() for path, content in found}

    def read_back(
        self, store: Store, record: Mapping[str, Any], channel: str
    ) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
        """Read one channel and the label of a case that was written, each (X, Y, Z)."""
        of_case = self._zarr.storage.MemoryStore(_Objects(store, f"{record['case']}{ENDING}/", self._zarr))
        case: Any = self._zarr.open_group(of_case, mode="r", zarr_format=3)  # arrays and groups alike, by name
        about = case.attrs[ABOUT]
        affine = np.array(about["affine"])
        stored = rearrange(case[IMAGE][self.channels.index(channel)], "z y x -> x y z")
        image = stored * about.get("slope", 1.0) + about.get("intercept", 0.0)
        label = rearrange(case[f"{LABEL}/0"][:], "z y x -> x y z")
        return nib.Nifti1Image(image.astype(np.float32), affine), nib.Nifti1Image(label.astype(np.int16), affine)

    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write a ``dataset.json``: what the data set is, its channels and labels."""
        return {"dataset.json": json_bytes(self.facts(provenance, written, self.label_values))}

    def _values(self, name: str, channels: Sequence[StoredChannel]) -> tuple[np.ndarray, dict[str, Any]]:
        """Values (C, X, Y, Z) as they are written, and their scaling where they are stored values of a file."""
        stored = {(channel.raw.dtype.newbyteorder("="), channel.scaling) for channel in channels}
        if self.packing.dtype == "source" and len(stored) == 1:
            values = np.stack([c.raw for c in channels])
            scaling = channels[0].scaling
            words = {} if scaling == UNSCALED else {"slope": scaling[0], "intercept": scaling[1]}
            return values.astype(values.dtype.newbyteorder("=")), words
        scaled = np.stack([c.raw.astype(np.float64) * c.like.slope + c.like.inter for c in channels])
        dtype = np.dtype(self.packing.dtype if self.packing.dtype == "float16" else "float32")
        if (largest := np.abs(scaled).max()) > np.finfo(dtype).max:
            raise ValueError(f"{name}: the image has values up to {largest:g}, which {dtype} cannot hold")
        return scaled.astype(dtype), {}

    def _array(self, group: Any, path: str, values: np.ndarray, axes: Sequence[str]) -> None:
        side = self.packing.chunk_vox
        spatial = values.shape[-3:]
        whole = tuple(-(-n // side) * side for n in spatial)
        ahead = (1,) * (values.ndim - 3)
        options = {"chunks": (*ahead, side, side, side), "shards": (*ahead, *whole), "dimension_names": axes}
        written = {"write_empty_chunks": True}  # so that an object that is not there is missing, and not empty
        group.create_array(path, shape=values.shape, dtype=values.dtype, config=written, **options)[:] = values

    def _image(self, name: str, values: np.ndarray, spacing: Sequence[float]) -> dict[str, Any]:
        lowest, highest = values.min(axis=(1, 2, 3)).tolist(), values.max(axis=(1, 2, 3)).tolist()
        channels = [
            {"label": str(label), "color": "FFFFFF", "window": {"min": low, "max": high, "start": low, "end": high}}
            for label, low, high in zip(self.channels, lowest, highest, strict=True)
        ]
        scales = _multiscales(name, [{"name": "c", "type": "channel"}], [1.0], spacing)
        return {"version": VERSION, "multiscales": scales, "omero": {"channels": channels}}

    def _labels(self, spacing: Sequence[float]) -> dict[str, Any]:
        values = self.label_values
        hues = {v: colorsys.hsv_to_rgb(i / len(values), 1, 1) for i, v in enumerate(values.values())}
        colours = [{"label-value": v, "rgba": [*(round(255 * c) for c in rgb), 255]} for v, rgb in hues.items()]
        names = [{"label-value": value, "class": name} for name, value in values.items()]
        about = {"colors": colours, "properties": names, "source": {"image": "../../"}}
        return {"version": VERSION, "multiscales": _multiscales(TUMOUR, [], [], spacing), "image-label": about}


def _multiscales(name: str, ahead: list[dict], scale_ahead: list[float], spacing: Sequence[float]) -> list[dict]:
    axes = [*ahead, *({"name": axis, "type": "space", "unit": "millimeter"} for axis in AXES)]
    scale = {"type": "scale", "scale": [*scale_ahead, *map(float, spacing)]}
    return [{"name": name, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}]


class _Objects(dict):
    """The objects of a case in a store, read when they are asked for."""

    def __init__(self, store: Store, prefix: str, zarr: Any):
        super().__init__()
        self._store, self._prefix, self._zarr = store, prefix, zarr

    def __missing__(self, path: str) -> Any:
        try:
            content = self._store.read(self._prefix + path)
        except FileNotFoundError:
            raise KeyError(path) from None
        return self._zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(content)
