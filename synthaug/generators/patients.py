"""Whom a generator has seen in its training."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from synthaug.data.dataset import named_cases
from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.hub import SHIPPED
from synthaug.generators.registry import BUILT_IN
from synthaug.profile.profile import FILE as PROFILE
from synthaug.profile.profile import Profile

PATIENTS = "patients.json"
"""Beside a generator's weights: the patients that it has seen, a list of names."""


def generator_patients(generator: str | os.PathLike | TumorGenerator) -> set[str] | None:
    """Find the patients, or the cases, that a trained generator has seen, those it was watched on included.

    They are in `patients.json` beside its weights, or follow from the configuration of the training run, or from the
    profile, that its folder lies in; None where nothing says it. Those that need no training have seen nobody.
    """
    if isinstance(generator, TumorGenerator):
        return None
    if generator in BUILT_IN:
        return set()
    folder = SHIPPED / generator if (SHIPPED / generator).is_dir() else Path(generator)
    if (folder / PATIENTS).is_file():
        return {*map(str, json.loads((folder / PATIENTS).read_text(encoding="utf-8")))}
    home = folder.resolve().parent
    if (home / PROFILE).is_file():  # of `synthaug fit --train`
        told = Profile.load(home / PROFILE)
        data: Any = {"folder": told.data.folder, "layout": told.data.layout, "channels": told.names}
        return _patients_in(data | {"group_pattern": told.data.group_pattern})
    file = home / "config.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8")).get("data") if file.is_file() else None
    if not isinstance(data, dict):
        return None
    if data.get("train") is not None:
        return {*data["train"], *(data.get("validation") or ())}
    return _patients_in(data)


def _patients_in(data: Mapping[str, Any]) -> set[str] | None:
    """List the patients of a data section's folder; None where it is not there any more."""
    if not data.get("folder") or not Path(data["folder"]).is_dir():
        return None
    cases = named_cases(Path(data["folder"]), data["layout"], data["channels"], data.get("group_pattern"))
    return {case.group for case in cases}
