"""BIDS: ``sub-<case>/anat/*_T1w.nii.gz``; label maps are no raw data and lie in ``derivatives/tumours``."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synthaug.cohort.encoding import json_bytes, table_bytes, table_pieces, text_bytes
from synthaug.cohort.job import HIDDEN, OWN_FILES
from synthaug.cohort.layouts.base import Layout
from synthaug.cohort.store import Content
from synthaug.config import ConfigError
from synthaug.data.bids import DERIVATIVES, SUFFIXES, bids_name

if TYPE_CHECKING:
    from synthaug.cohort.config import CohortConfig
    from synthaug.cohort.description import Written

BIDS_VERSION = "1.10.0"
PIPELINE = f"{DERIVATIVES}/tumours"
PARTICIPANT_COLUMNS = {
    "origin": {
        "Description": "a real case as it was, or one with synthetic tumours",
        "Levels": {"real": "as it was", "synthetic": "with synthetic tumours"},
    },
    "host": {"Description": "name of the case that the image comes from"},
    "lesions": {"Description": "number of synthetic lesions"},
}


class BIDSLayout(Layout):
    """Lays a cohort out as the Brain Imaging Data Structure.

    Args:
        config: the cohort's configuration.

    Raises:
        ConfigError: a channel that BIDS has no name for.
    """

    def __init__(self, config: "CohortConfig"):
        super().__init__(config)
        unnamed = [c for c in config.names if c not in SUFFIXES]
        if unnamed:
            raise ConfigError(f"layout: BIDS has no anatomical suffix for {', '.join(unnamed)}; choose another layout")

    def synthetic_name(self, index: int) -> str:
        """Name a synthetic case, such as ``sub-synth000012``: a subject's label has letters and digits only."""
        return f"sub-{self.prefix}{index:06d}"

    def real_name(self, name: str) -> str:
        """Name a real case, without what BIDS does not allow."""
        return bids_name(re.sub("^sub-", "", name))

    def image_paths(self, name: str) -> list[str]:
        """Name one file for each channel, in the subject's ``anat``."""
        return [f"{name}/anat/{name}_{SUFFIXES[c]}.nii.gz" for c in self.channels]

    def label_path(self, name: str) -> str:
        """Name the label, a discrete segmentation among the derivatives."""
        return f"{PIPELINE}/{name}/anat/{name}_desc-tumour_dseg.nii.gz"

    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write both ``dataset_description.json``, participants, README, the labels' names and ``.bidsignore``."""
        about, name = self.about, self.about.name
        text = f"{about.description}.\n\nSource and licence: {about.licence}. Reference: {about.reference}.\n\n"
        text += "manifest.jsonl has one row for every synthetic lesion: host, donor, place, size, seed.\n"
        participants = (
            (r["case"], "real" if r["real"] else "synthetic", r["host"], len(r["lesions"])) for r in written
        )
        values = [(0, "background"), *((value, name) for name, value in self.label_values.items())]
        return {
            "dataset_description.json": self._dataset(name, "raw", provenance),
            "participants.tsv": table_pieces(("participant_id", *PARTICIPANT_COLUMNS), participants, "\t"),
            "participants.json": json_bytes(PARTICIPANT_COLUMNS),
            "README": text_bytes(text),
            ".bidsignore": text_bytes("".join(f"{name}\n" for name in (*OWN_FILES, f"{HIDDEN}/"))),
            f"{PIPELINE}/dataset_description.json": self._dataset(f"{name}: tumour labels", "derivative", provenance),
            f"{PIPELINE}/desc-tumour_dseg.tsv": table_bytes(("index", "name"), values, "\t"),
        }

    def _dataset(self, name: str, kind: str, provenance: Mapping[str, Any]) -> bytes:
        made_by = {
            "Name": "synthaug",
            "Version": provenance["versions"]["synthaug"],
            "Description": f"tumours made by the generator {provenance['generator']['name']}",
        }
        common = {"BIDSVersion": BIDS_VERSION, "License": self.about.licence, "Authors": list(self.about.authors)}
        return json_bytes({"Name": name, **common, "DatasetType": kind, "GeneratedBy": [made_by]})
