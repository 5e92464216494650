"""Identification of generators: by name, a checksum of the weights, and settings."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from synthaug.files import file_sha256
from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.hub import SHIPPED, generator_folder
from synthaug.generators.registry import BUILT_IN

SETTINGS = ("truncation", "crop_sizes", "table")
PAINTER_SETTINGS = ("steps", "scheduler", "guidance", "strength", "refined")
"""Attributes that change what a generator paints. Not the precision, which changes it by less than can be seen."""


def generator_facts(given: str | os.PathLike | TumorGenerator, generator: TumorGenerator) -> dict[str, Any]:
    """Return a generator's name and the sha256 of its weights: of its safetensors file, or of its parameters.

    Args:
        given: the user's name, folder or hub id, or the generator itself.
        generator: the generator that `given` was resolved to.
    """
    if isinstance(given, TumorGenerator):
        return {"name": type(given).__name__, "sha256": parameters_sha256(generator)}
    name = os.fspath(given)
    if name in BUILT_IN:
        return {"name": name, "sha256": None}
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else generator_folder(Path(name))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    weights = file_sha256(files[0]) if len(files) == 1 else parameters_sha256(generator)
    return {"name": Path(name).name if folder.is_dir() and "/" in name else name, "sha256": weights}


def settings_of(generator: TumorGenerator) -> dict[str, Any]:
    """Return the settings of a generator that change what it paints, JSON-able."""
    painter = getattr(generator, "painter", None)
    found = {name: getattr(generator, name) for name in SETTINGS if hasattr(generator, name)}
    found |= {name: getattr(painter, name) for name in PAINTER_SETTINGS if hasattr(painter, name)}
    return json.loads(json.dumps(found))


def fingerprint(facts: dict[str, Any]) -> str:
    """Compute eight hexadecimal digits that tell generators of one name apart."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def parameters_sha256(generator: TumorGenerator) -> str | None:
    """Hash the parameters of all networks that an object holds; None where it holds none."""
    networks = {name: value for name, value in sorted(vars(generator).items()) if isinstance(value, torch.nn.Module)}
    if not networks:
        return None
    total = hashlib.sha256()
    for name, network in networks.items():
        for key, tensor in sorted(network.state_dict().items()):
            total.update(f"{name}.{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
