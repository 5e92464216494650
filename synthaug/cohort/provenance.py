"""What a cohort was made from and with: versions, checksums of bank and weights, one hash over all that matters."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy
import torch

from synthaug.cohort.config import CohortConfig
from synthaug.data.cases import Case
from synthaug.generators.base import TumorGenerator
from synthaug.generators.hub import SHIPPED
from synthaug.generators.registry import BUILT_IN

FREE = {"cases", "workers"}
"""Keys of the configuration that do not decide what is written: where things lie, and how many threads write."""


def identity(config: CohortConfig, hosts: Sequence[Case], generator: dict[str, Any], folds: Any) -> dict[str, Any]:
    """Everything that decides what a cohort's cases look like; files count by content, not by place.

    Args:
        config: of the cohort.
        hosts: its host cases.
        generator: of `generator_facts`.
        folds: of the real data set, or None.
    """
    options = {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}
    options["lesions"].pop("bank")
    options["splits"].pop("folds")
    options.pop("generator")
    bank = config.lesions.bank
    return {
        "config": options,
        "bank_sha256": None if bank is None else file_sha256(bank),
        "generator": generator,
        "folds_sha256": None if folds is None else _hash(folds),
        "hosts": [[case.name, case.group] for case in hosts],
        "versions": versions(),
    }


def identity_sha256(of: dict[str, Any]) -> str:
    """One hash of an identity, which rows of the manifest carry."""
    return _hash(of)


def versions() -> dict[str, str]:
    """Versions of what takes part in making voxels."""
    from synthaug import __version__

    return {
        "synthaug": __version__,
        "torch": torch.__version__.split("+")[0],
        "numpy": numpy.__version__,
        "nibabel": nibabel.__version__,
    }


def generator_facts(config: CohortConfig, given: TumorGenerator | None, generator: TumorGenerator) -> dict[str, Any]:
    """Name of a generator and sha256 of its weights: of its safetensors files, or of its parameters without files."""
    if given is not None:
        return {"name": type(given).__name__, "sha256": parameters_sha256(generator)}
    name = config.generator_name
    if name in BUILT_IN:
        return {"name": name, "sha256": None}
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if len(files) == 1:
        weights = file_sha256(files[0])
    else:
        weights = parameters_sha256(generator)
    return {"name": Path(name).name if folder.is_dir() and "/" in name else name, "sha256": weights}


def parameters_sha256(generator: TumorGenerator) -> str | None:
    """A hash over the parameters of all networks that an object holds; None where it holds none."""
    networks = {name: value for name, value in sorted(vars(generator).items()) if isinstance(value, torch.nn.Module)}
    if not networks:
        return None
    total = hashlib.sha256()
    for name, network in networks.items():
        for key, tensor in sorted(network.state_dict().items()):
            total.update(f"{name}.{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8")).hexdigest()
