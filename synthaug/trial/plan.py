"""What a trial runs: the cases it found, the rotations, a training for each arm, rotation and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from synthaug.config import ConfigError, differences, read_config
from synthaug.data import Case, find_cases
from synthaug.files import replace_file
from synthaug.training.cases import phantoms_in
from synthaug.training.segmentation_config import SegmentationConfig
from synthaug.trial.config import TrialConfig
from synthaug.trial.rotation import Rotation, rotations

DESCRIPTION = "trial.yaml"
MAY_CHANGE = ("trial.workers", "trial.nice", "trial.base")
"""Keys that a continued trial may have otherwise; what is in the base's file is compared, not its name."""

Unit = tuple[int, int]
"""Rotation and seed: what all arms have to do before it is a pair."""


@dataclass(frozen=True)
class Run:
    """One training: its arm, rotation and seed, its folder, its changes of the base, and its number of steps."""

    arm: str
    rotation: int
    seed: int
    folder: Path
    steps: int
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Arm, rotation and seed in words."""
        return f"{self.arm}, rotation {self.rotation}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """File of what the training prints."""
        return self.folder.with_name(f"{self.folder.name}.log")


@dataclass(frozen=True)
class Trial:
    """A trial in its folder.

    Attributes:
        config: description by the user.
        out: folder of the trial.
        patients: name of each case to its patient.
        arms: name to configuration of its trainings, as JSON, but for what differs between them.
        base: file of the configuration that the runs change; None for a trial that is only looked at.
        data: overrides that name the data.
    """

    config: TrialConfig
    out: Path
    patients: dict[str, str]
    arms: dict[str, dict[str, Any]]
    base: Path | None = None
    data: tuple[str, ...] = ()

    @property
    def rotations(self) -> list[Rotation]:
        """Patients of each rotation."""
        return rotations(self.patients.values(), self.config)

    @property
    def units(self) -> list[Unit]:
        """Rotations and seeds, in the order in which they are run: all rotations with one seed first."""
        return [(rotation, seed) for seed in self.config.seeds for rotation in range(len(self.rotations))]

    def runs(self) -> list[Run]:
        """List the trainings; the arms of a pair follow one another, so that a stopped trial has whole pairs."""
        drawn = self.rotations
        return [self._run(arm, drawn[r], r, seed) for r, seed in self.units for arm in self.arms]

    def _run(self, name: str, drawn: Rotation, rotation: int, seed: int) -> Run:
        arm = next(arm for arm in self.config.arms if arm.name == name)
        split = {"train": self._cases(drawn.train), "validation": self._cases(drawn.test)}
        own = [f"data.{key}={json.dumps(cases)}" for key, cases in split.items()] + [f"seed={seed}"]
        own += [f"insertion.seed={seed}"] if self.arms[name]["insertion"] is not None else []
        steps = self.arms[name]["optimizer"]["steps"]
        overrides = (*self.config.overrides, *arm.overrides, *self.data, *own)
        return Run(name, rotation, seed, self.out / "runs" / name / f"r{rotation}-s{seed}", steps, overrides)

    def _cases(self, patients: Sequence[str]) -> list[str]:
        return [case for case, patient in self.patients.items() if patient in patients]

    @property
    def description(self) -> dict[str, Any]:
        """What `trial.yaml` keeps, plain data."""
        return {"trial": self.config.model_dump(mode="json"), "patients": self.patients, "arms": self.arms}


def open_trial(
    config: TrialConfig, base: Path, out: Path, data: Path | None = None, profile: Path | None = None
) -> Trial:
    """Find the cases, check the configuration of every arm, and keep the description in the trial's folder.

    Args:
        config: description.
        base: file of the segmentation configuration.
        out: folder of the trial, made where it is not there.
        data: folder of the cases; that of the configuration or of the profile, or its phantoms, where not given.
        profile: profile of the data set.

    Raises:
        ConfigError: a configuration that does not fit, no cases, or `out` holds another trial.
        ValueError: too few patients.
    """
    given = [] if profile is None else [f"data.profile={json.dumps(str(profile))}"]
    given += [] if data is None else [f"data.folder={json.dumps(str(data))}", "data.phantom=null"]
    # no patient is held out yet
    split = ["data.train=null", 'data.validation=["?"]', "data.folds=null", "data.fold=null"]
    first = read_config(base, SegmentationConfig, [*config.overrides, *given, *split])
    known = tuple(dict.fromkeys((*first.data.all_regions, *first.data.vocabulary.names)))
    if unknown := [name for name in config.endpoint or () if name not in known]:
        raise ConfigError(f"endpoint: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    folder = first.data.folder or _phantoms(first, out)
    cache = first.data.cache or out / "cache"
    given += [f"data.folder={json.dumps(str(folder))}", "data.phantom=null", f"data.cache={json.dumps(str(cache))}"]
    given += ["data.folds=null", "data.fold=null", f"threads={config.threads}", "report=false"]
    given += [f"validation.every={first.optimizer.steps}", "validation.components=true"]
    arms = {}
    for arm in config.arms:
        try:
            settings = read_config(base, SegmentationConfig, [*config.overrides, *arm.overrides, *given, *split])
            _refuse_leaks(settings)
        except ConfigError as error:
            raise ConfigError(f"arm {arm.name}: {error}") from error
        arms[arm.name] = _shared(settings.model_dump(mode="json"))
    patients = {case.name: case.group for case in _labelled(first, folder, config)}
    rotations(patients.values(), config)  # raises where the patients are too few
    trial = Trial(config, out, patients, arms, base, tuple(given))
    _keep(trial)
    return trial


def load_trial(out: Path) -> Trial:
    """Read a trial from its folder, to look at what it has.

    Raises:
        ConfigError: there is none.
    """
    file = out / DESCRIPTION
    if not file.is_file():
        raise ConfigError(f"{out}: expected the folder of a trial, with {DESCRIPTION}; there is none")
    kept = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Trial(TrialConfig.model_validate(kept["trial"]), out, kept["patients"], kept["arms"])


def _phantoms(config: SegmentationConfig, out: Path) -> Path:
    assert config.data.phantom is not None  # a configuration has a folder or phantoms
    return phantoms_in(out, config.data.phantom, config.data.vocabulary)


def _labelled(config: SegmentationConfig, folder: Path, trial: TrialConfig) -> list[Case]:
    data = config.data
    try:
        cases = find_cases(folder, data.layout, data.channels, data.group_pattern)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    labelled = [case for case in cases if case.label is not None and case.split != "test"]
    if trial.patients is None:
        return labelled
    known = {name for case in labelled for name in (case.name, case.group)}
    if unknown := [name for name in trial.patients if name not in known]:
        raise ConfigError(f"patients: no labelled case or patient is called {', '.join(unknown)}")
    return [case for case in labelled if {case.name, case.group} & {*trial.patients}]


def _refuse_leaks(config: SegmentationConfig) -> None:
    """Refuse trainings that follow the scores of validation, since those patients are the ones that are tested."""
    adaptive = config.insertion is not None and config.insertion.adaptive is not None
    plateau = config.optimizer.schedule == "plateau"
    for wrong, key in (
        (config.early_stopping is not None, "early_stopping"),
        (plateau, "optimizer.schedule: plateau"),
        (adaptive, "insertion.adaptive"),
    ):
        if wrong:
            raise ConfigError(f"{key} would follow the scores of the patients that are tested: leave it out")


def _shared(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs between the runs of an arm, and where the data lie."""
    data = {k: v for k, v in content["data"].items() if k not in ("folder", "cache", "train", "validation", "workers")}
    insertion = content["insertion"] and {k: v for k, v in content["insertion"].items() if k != "seed"}
    rest = {k: v for k, v in content.items() if k != "seed"}
    return rest | {"data": data, "insertion": insertion}


def _keep(trial: Trial) -> None:
    """Write the description, or compare it with the one that is there."""
    file = trial.out / DESCRIPTION
    if file.is_file():
        kept: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        if wrong := differences(kept, trial.description, MAY_CHANGE):
            raise ConfigError(f"{trial.out} holds another trial ({'; '.join(wrong)}): give another --out")
    replace_file(file, yaml.safe_dump(trial.description, sort_keys=False))
