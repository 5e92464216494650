"""Provenance of a cohort: versions, checksums of bank and weights, one hash over all that matters."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import nibabel
import numpy
import torch

from synthaug.cohort.config import CohortConfig
from synthaug.data.cases import Case
from synthaug.files import file_sha256
from synthaug.host.space import Space
from synthaug.review import read_rejected

FREE = {"cases", "workers", "profile", "exclude"}
"""Keys that do not decide what is written: where things lie (files count by content), and how many threads write."""

PACKING = {"webdataset": ("shard_cases",), "zarr": ("dtype", "chunk_vox")}
"""Keys of `packing` that decide what is written, by layout."""


def identity(config: CohortConfig, hosts: Sequence[Case], generator: dict[str, Any], folds: Any) -> dict[str, Any]:
    """Collect all that decides what a cohort's cases look like; files count by content, not by place.

    Args:
        config: the cohort's configuration.
        hosts: its host cases.
        generator: what `synthaug.generators.identity.generator_facts` says.
        folds: folds of the real data set, or None.
    """
    options = {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}
    options["lesions"].pop("bank")
    options["splits"].pop("folds")
    options.pop("generator")
    options["packing"] = {k: v for k, v in options["packing"].items() if k in PACKING.get(config.layout, ())}
    if not options["packing"]:
        options.pop("packing")
    bank = config.lesions.bank
    excluded = {} if config.exclude is None else {"excluded": list(read_rejected(config.exclude))}
    space = {} if config.space == Space() else {"space": config.space.model_dump(mode="json")}
    return {
        **space,
        **excluded,
        "config": options,
        "bank_sha256": None if bank is None else file_sha256(bank),
        "generator": generator,
        "folds_sha256": None if folds is None else _hash(folds),
        "hosts": [[case.name, case.group] for case in hosts],
        "versions": versions(),
    }


def identity_sha256(of: dict[str, Any]) -> str:
    """Hash an identity; rows of the manifest carry the hash."""
    return _hash(of)


def versions() -> dict[str, str]:
    """List the versions of the packages that take part in making voxels."""
    from synthaug import __version__

    return {
        "synthaug": __version__,
        "torch": torch.__version__.split("+")[0],
        "numpy": numpy.__version__,
        "nibabel": nibabel.__version__,
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8")).hexdigest()
