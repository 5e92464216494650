"""nnU-Net's raw data: ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``dataset.json``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synthaug.cohort.encoding import json_bytes
from synthaug.cohort.layouts.base import Layout
from synthaug.cohort.store import Content

if TYPE_CHECKING:
    from synthaug.cohort.description import Written


class NNUNetLayout(Layout):
    """Lays a cohort out as nnU-Net v2 does, which wants label values 1, 2, 3, ..."""

    @property
    def label_values(self) -> dict[str, int]:
        """Class name to its place among the classes, in the order of the hosts' values, from 1."""
        return {name: i + 1 for i, name in enumerate(super().label_values)}

    def image_paths(self, name: str) -> list[str]:
        """Name one file for each channel, numbered."""
        return [f"imagesTr/{name}_{i:04d}.nii.gz" for i in range(len(self.channels))]

    def label_path(self, name: str) -> str:
        """Name the label, one file for each case."""
        return f"labelsTr/{name}.nii.gz"

    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write ``dataset.json`` as nnU-Net's planning reads it."""
        content = {
            **self.about_in_short,
            "channel_names": {str(i): name for i, name in enumerate(self.channels)},
            "labels": {"background": 0, **self.label_values},
            "numTraining": len(written),
            "file_ending": ".nii.gz",
            "provenance": self.provenance_entry(provenance),
        }
        return {"dataset.json": json_bytes(content)}
