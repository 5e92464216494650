"""BraTS: a folder for each case, ``<case>_flair.nii.gz`` as in 2018 or ``<case>-t2f.nii.gz`` as from 2023 on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synthaug.cohort.encoding import json_bytes
from synthaug.cohort.layouts.base import Layout
from synthaug.cohort.store import Content

if TYPE_CHECKING:
    from synthaug.cohort.description import Written

TAGS_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
"""Canonical channel name to the tag in file names of BraTS 2023 and later."""


class BraTSLayout(Layout):
    """Lays a cohort out as BraTS does, in the years that the vocabulary says."""

    @property
    def is_recent(self) -> bool:
        """Whether files are named as from 2023 on."""
        return self.classes.name in ("BRATS23", "BRATS24")

    def image_paths(self, name: str) -> list[str]:
        """Name one file for each channel, in the case's folder."""
        tags = [TAGS_2023.get(c, c) if self.is_recent else c for c in self.channels]
        return [self._path(name, tag) for tag in tags]

    def label_path(self, name: str) -> str:
        """Name the label, ``seg`` beside the channels."""
        return self._path(name, "seg")

    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write a ``dataset.json``, which BraTS has not: what the data set is, its channels and labels."""
        return {"dataset.json": json_bytes(self.facts(provenance, written, self.classes.values))}

    def _path(self, name: str, tag: str) -> str:
        return f"{name}/{name}{'-' if self.is_recent else '_'}{tag}.nii.gz"
