"""The description of a trial: the training, its arms, the rotation of patients, and how the result is judged."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from synthaug.config import Section, read_config
from synthaug.shipped import find_config
from synthaug.training.run_config import Seed


class ArmConfig(Section):
    """One way to train: a name and its changes of the training's configuration."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$")]
    overrides: tuple[str, ...] = ()
    reference: bool = False


class TrialConfig(Section):
    """Description of a trial.

    Attributes:
        base: name or file of the segmentation configuration that all arms share; a file is looked for beside the
            trial's first.
        overrides: changes of it for all arms, ``"optimizer.steps=400"``.
        arms: two or more; one is the reference, from which the differences are taken.
        patients: those to rotate, patients or cases; all labelled ones where not given.
        folds: each patient is tested once by folds, or
        train_patients: number of patients in each training set, all others being tested, and
        rotations: number of such sets, which take all patients equally often.
        rotation_seed: seed of the draw of patients.
        seeds: seeds of the trainings; each rotation is trained with each of them.
        endpoint: regions or classes whose mean Dice decides; all regions where not given.
        looks: pages written on the way, at even shares of the pairs; further looks may be taken at any time.
        alpha: probability of a wrong claim, over all looks and arms.
        worthwhile: smallest gain of the endpoint that would matter.
        threads: CPU threads of a training.
        workers: trainings at a time.
        nice: niceness of the trainings, so that other work goes first.
    """

    base: str
    overrides: tuple[str, ...] = ()
    arms: Annotated[tuple[ArmConfig, ...], Field(min_length=2)]
    patients: Annotated[tuple[str, ...], Field(min_length=3)] | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    train_patients: PositiveInt | None = None
    rotations: PositiveInt | None = None
    rotation_seed: Seed = 0
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    endpoint: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    looks: PositiveInt = 1
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    worthwhile: Annotated[float, Field(ge=0, lt=1)] = 0.01
    threads: PositiveInt = 1
    workers: PositiveInt = 1
    nice: Annotated[NonNegativeInt, Field(le=19)] = 10

    @field_validator("arms")
    @classmethod
    def _one_reference(cls, arms):
        names = [arm.name for arm in arms]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"arms: expected different names, {', '.join(repeated)} is given twice")
        references = [arm.name for arm in arms if arm.reference]
        if len(references) != 1:
            raise ValueError(f"arms: expected one with reference: true, got {', '.join(references) or 'none'}")
        return arms

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds):
        if len({*seeds}) != len(seeds):
            raise ValueError(f"seeds: expected different ones, got {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _one_rotation(self):
        few = (self.train_patients, self.rotations)
        if (self.folds is None) == (few == (None, None)) or few.count(None) == 1:
            raise ValueError("expected either folds, or train_patients and rotations together")
        return self

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return next(arm.name for arm in self.arms if arm.reference)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the other arms."""
        return tuple(arm.name for arm in self.arms if not arm.reference)


def read_trial(name_or_file: str | Path, changes: tuple[str, ...] | list[str] = ()) -> tuple[TrialConfig, Path]:
    """Read the description of a trial.

    Args:
        name_or_file: a YAML file, or the name of one that comes with synthaug.
        changes: ``"key=value"``; a key of the trial changes the trial, any other the configuration of all arms.

    Returns:
        The description, and the file of its base.

    Raises:
        ValueError: no such file, or one of the two is wrong.
    """
    file = find_config(name_or_file)
    own = [change for change in changes if change.partition("=")[0].partition(".")[0] in TrialConfig.model_fields]
    config = read_config(file, TrialConfig, own)
    config = config.model_copy(update={"overrides": (*config.overrides, *(c for c in changes if c not in own))})
    beside = file.parent / config.base
    return config, find_config(beside if beside.is_file() else config.base)
