"""The trainings that a trial consists of: their folders, their overrides, and the checks before the first begins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from synthaug.config import ConfigError, read_config
from synthaug.data.cases import Case, find_cases
from synthaug.shipped import find_config
from synthaug.training.cases import write_phantoms
from synthaug.training.segmentation_config import SegmentationConfig
from synthaug.trial.config import TrialConfig, one_line
from synthaug.trial.donors import refuse_tested_donors
from synthaug.trial.rotation import Rotation, rotations


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        arm: name of its arm.
        rotation: number of its rotation, from 0.
        seed: of the training.
        folder: of the run.
        overrides: changes of the base configuration.
        config: what they make of it.
    """

    arm: str
    rotation: int
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    config: SegmentationConfig

    @property
    def pair(self) -> tuple[int, int]:
        """Rotation and seed, which the runs of all arms share that are compared."""
        return self.rotation, self.seed

    @property
    def words(self) -> str:
        """Name of the run for readers."""
        return f"{self.arm}, rotation {self.rotation}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A whole trial.

    Attributes:
        config: of the trial.
        out: folder of the trial.
        base: file of the segmentation configuration.
        cases: labelled cases that take part.
        rotations: who trains and who is tested.
        runs: in the order in which they are done: all arms of a rotation and seed, then the next.
        unknown: arms whose generator does not say which patients it has seen.
    """

    config: TrialConfig
    out: Path
    base: Path
    cases: tuple[Case, ...]
    rotations: tuple[Rotation, ...]
    runs: tuple[Run, ...]
    unknown: tuple[str, ...]

    @property
    def pairs(self) -> int:
        """Number of rotations times seeds."""
        return len(self.rotations) * len(self.config.seeds)

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions or classes that the endpoint averages."""
        data = self.runs[0].config.data
        return self.config.endpoint.regions or tuple(data.all_regions) or data.vocabulary.names


def make_plan(config: TrialConfig, out: Path, told: Sequence[str] = ()) -> Plan:
    """Plan a trial; nothing is written but phantoms, where the base configuration asks for them.

    Args:
        config: of the trial.
        out: folder of the trial.
        told: further overrides of the base configuration, such as ``"data.folder=/path"``.

    Raises:
        ConfigError: a base or an arm that cannot be trained, patients that are not there or too few, an endpoint of
            unknown regions, a generator or bank that holds tested patients, a training that follows their scores.
    """
    base = find_config(config.base)
    common = [*config.overrides, *told]
    looked = _checked(base, [*common, *_split(("?",), ("?",))], "base")
    if looked.data.phantom is not None:
        folder = out / "phantoms"
        if not folder.exists():
            out.mkdir(parents=True, exist_ok=True)
            write_phantoms(looked.data.phantom, looked.data.vocabulary, folder)
        common += ["data.phantom=null", f"data.folder={one_line(str(folder.resolve()))}"]
    if looked.data.cache is None and looked.data.spacing_mm is not None:
        common.append(f"data.cache={one_line(str((out / 'cache').resolve()))}")
    cases = _cases(looked, common, config.patients)
    try:
        turns = tuple(rotations((case.group for case in cases), config.rotation))
    except ValueError as error:
        raise ConfigError(f"rotation: {error}") from error
    runs = tuple(_runs(config, base, common, turns, out))
    unknown = refuse_tested_donors({(run.arm, run.rotation): (run.config, turns[run.rotation]) for run in runs}, cases)
    plan = Plan(config, out, base, tuple(cases), turns, runs, unknown)
    data = runs[0].config.data
    known = dict.fromkeys((*data.all_regions, *data.vocabulary.names))
    if wrong := [name for name in plan.regions if name not in known]:
        raise ConfigError(f"endpoint.regions: expected some of {', '.join(known)}, got {', '.join(wrong)}")
    return plan


def _runs(
    config: TrialConfig, base: Path, common: Sequence[str], turns: Sequence[Rotation], out: Path
) -> Iterator[Run]:
    checked: dict[tuple[str, int], SegmentationConfig] = {}
    for seed in config.seeds:
        for number, turn in enumerate(turns):
            for arm in config.arms:
                overrides = [*common, *arm.overrides, *_split(turn.train, turn.test), *_own(config, seed)]
                first = checked.get((arm.name, seed))
                found = first or _checked(base, overrides, f"arm {arm.name}")
                _refuse_followers(arm.name, found)
                if found.insertion is not None:
                    overrides.append(f"insertion.seed={seed}")
                if _has_open_hosts(found):
                    overrides.append(f"data.tumour_free.patients={one_line(_hosts(arm.name, found, turn))}")
                # the patients are all that differs between the rotations of an arm
                data = found.data.model_copy(update={"train": turn.train, "validation": turn.test})
                found = checked[arm.name, seed] = found.model_copy(update={"data": data})
                folder = out / "runs" / arm.name / f"rotation-{number}-seed-{seed}"
                yield Run(arm.name, number, seed, folder, tuple(overrides), found)


def _refuse_followers(arm: str, config: SegmentationConfig) -> None:
    """Refuse a training that follows the scores of validation, since those patients are the ones that are tested.

    Raises:
        ConfigError: it does; the key is named.
    """
    adaptive = config.insertion is not None and config.insertion.adaptive is not None
    follows = {
        "early_stopping": config.early_stopping is not None,
        "optimizer.schedule: plateau": config.optimizer.schedule == "plateau",
        "insertion.adaptive": adaptive,
    }
    if found := [key for key, on in follows.items() if on]:
        raise ConfigError(
            f"arm {arm}: {', '.join(found)} would follow the scores of the patients that are tested: leave it out"
        )


def _has_open_hosts(config: SegmentationConfig) -> bool:
    """Whether a configuration has tumour-free hosts and does not say of which patients."""
    return config.data.tumour_free is not None and config.data.tumour_free.patients is None


def _hosts(arm: str, config: SegmentationConfig, turn: Rotation) -> list[str]:
    """List the patients whose tumour-free hosts may train: all that are not tested.

    Raises:
        ConfigError: there is none.
    """
    free = config.data.tumour_free
    assert free is not None
    try:
        cases = find_cases(free.folder, free.layout, config.data.channels, config.data.group_pattern)
    except ValueError as error:
        raise ConfigError(f"arm {arm}: data.tumour_free: {error}") from error
    patients = sorted({case.group for case in cases} - {*turn.test})
    if not patients:
        raise ConfigError(f"arm {arm}: data.tumour_free: {free.folder} has hosts of tested patients alone")
    return patients


def _own(config: TrialConfig, seed: int) -> list[str]:
    return [f"seed={seed}", f"threads={config.threads}", "validation.components=true", "validation.lesionwise=true"]


def _split(train: Sequence[str], test: Sequence[str]) -> list[str]:
    sides = [f"data.train={one_line(list(train))}", f"data.validation={one_line(list(test))}"]
    return [*sides, "data.folds=null", "data.fold=null"]


def _checked(base: Path, overrides: Sequence[str], what: str) -> SegmentationConfig:
    try:
        return read_config(base, SegmentationConfig, overrides)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def _cases(base: SegmentationConfig, common: Sequence[str], patients: Sequence[str] | None) -> list[Case]:
    """Find the labelled cases of the patients that take part."""
    data = base.data
    # phantoms were written meanwhile
    folder = next((yaml.safe_load(c[12:]) for c in reversed(common) if c.startswith("data.folder=")), data.folder)
    assert folder is not None  # a configuration has a folder or phantoms
    try:
        cases = find_cases(folder, data.layout, data.channels, data.group_pattern)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    labelled = [case for case in cases if case.label is not None and case.split != "test"]
    if patients is None:
        return labelled
    if unknown := sorted({*patients} - {case.group for case in labelled}):
        raise ConfigError(f"patients: no labelled case is of {', '.join(unknown)}")
    return [case for case in labelled if case.group in patients]
