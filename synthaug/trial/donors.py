"""The check that no arm inserts, or paints as it was taught by, lesions of patients that it is tested on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from synthaug.config import ConfigError
from synthaug.data.cases import Case
from synthaug.data.dataset import named_cases
from synthaug.generators.learned.hub import SHIPPED
from synthaug.generators.registry import BUILT_IN
from synthaug.lesions.bank import LesionBank
from synthaug.profile.profile import FILE as PROFILE
from synthaug.profile.profile import Profile
from synthaug.training.segmentation_config import SegmentationConfig
from synthaug.trial.rotation import Rotation

PATIENTS = "patients.json"
"""Beside a generator's weights: the patients that it has seen, a list of names."""


def refuse_tested_donors(
    runs: Mapping[tuple[str, int], tuple[SegmentationConfig, Rotation]], cases: Sequence[Case]
) -> tuple[str, ...]:
    """Check the generators and banks of all arms; a bank that a trainer makes holds training patients alone.

    Args:
        runs: arm and rotation to the run's configuration and patients.
        cases: of the trial, for the patient of a case's name.

    Returns:
        Arms whose generator does not say whom it has seen.

    Raises:
        ConfigError: an arm and the tested patients that its generator or its bank has seen.
    """
    patient_of = {case.name: case.group for case in cases}
    seen: dict[str, set[str] | None] = {}
    unknown: dict[str, None] = {}
    for (arm, _), (config, rotation) in runs.items():
        options = config.insertion
        if options is None:
            continue
        if options.generator not in BUILT_IN:
            if options.generator not in seen:
                seen[options.generator] = generator_patients(options.generator)
            _refuse(arm, f"the generator {options.generator}", seen[options.generator], rotation, patient_of)
            if seen[options.generator] is None:
                unknown[arm] = None
        for bank in (options.bank, options.painted.bank if options.painted else None):
            if bank is not None:
                if str(bank) not in seen:
                    seen[str(bank)] = {*LesionBank.load(bank).groups}
                _refuse(arm, f"the bank {bank}", seen[str(bank)], rotation, patient_of)
    return tuple(unknown)


def _refuse(arm: str, what: str, seen: set[str] | None, rotation: Rotation, patient_of: Mapping[str, str]) -> None:
    """Raise where tested patients are among those seen, which may be named by their cases."""
    known = {patient_of.get(name, name) for name in seen or ()}
    if shared := sorted(known & {*rotation.test}):
        raise ConfigError(f"arm {arm}: {what} has seen {', '.join(shared)}, tested here; give one that has not")


def generator_patients(generator: str) -> set[str] | None:
    """Find the patients, or the cases, that a trained generator has seen, those it was watched on included.

    They are in `patients.json` beside its weights, or follow from the configuration of the training run, or from the
    profile, that its folder lies in; None where nothing says it.
    """
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
