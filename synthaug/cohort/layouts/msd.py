"""The Medical Segmentation Decathlon: ``imagesTr/<case>.nii.gz`` with all channels, ``labelsTr``, ``dataset.json``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synthaug.cohort.encoding import json_pieces
from synthaug.cohort.layouts.base import UNSCALED, Layout, StoredChannel
from synthaug.cohort.store import Content
from synthaug.data.nifti import nifti_bytes

if TYPE_CHECKING:
    from synthaug.cohort.description import Written


class MSDLayout(Layout):
    """Lays a cohort out as the Medical Segmentation Decathlon does: one 4-D image for each case."""

    def image_paths(self, name: str) -> list[str]:
        """Name one file for all channels."""
        return [f"imagesTr/{name}.nii.gz"]

    def label_path(self, name: str) -> str:
        """Name the label, one file for each case."""
        return f"labelsTr/{name}.nii.gz"

    def image_contents(self, channels: Sequence[StoredChannel]) -> list[bytes]:
        """Encode all channels in one file: in their common dtype, or in float32 where scale factors differ."""
        first = channels[0]
        if len(channels) == 1:
            return super().image_contents(channels)
        header = first.like.header
        same_scale = len({c.scaling for c in channels}) == 1
        if same_scale and (first.scaling == UNSCALED or len({c.raw.dtype for c in channels}) == 1):
            return [nifti_bytes(header, np.stack([c.raw for c in channels], -1), self.compression)]
        scaled = [(c.raw.astype(np.float64) * c.like.slope + c.like.inter).astype(np.float32) for c in channels]
        return [nifti_bytes(header, np.stack(scaled, -1), self.compression, UNSCALED)]

    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write ``dataset.json`` with the list of all pairs of image and label."""
        content = {
            **self.about_in_short,
            "release": provenance["versions"]["synthaug"],
            "tensorImageSize": "4D" if len(self.channels) > 1 else "3D",
            "modality": {str(i): name for i, name in enumerate(self.channels)},
            "labels": {"0": "background", **{str(value): name for name, value in self.label_values.items()}},
            "numTraining": len(written),
            "numTest": 0,
            "training": written.items(lambda record: self._pair(record["case"])),
            "test": [],
            "provenance": self.provenance_entry(provenance),
        }
        return {"dataset.json": json_pieces(content)}

    def _pair(self, name: str) -> dict[str, str]:
        return {"image": f"./{self.image_paths(name)[0]}", "label": f"./{self.label_path(name)}"}
