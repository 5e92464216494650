"""Configuration of a trial: a segmentation configuration, its arms, how patients rotate, and what is compared."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from synthaug.config import Section
from synthaug.training.run_config import Seed

REFERENCE = "none"
OWN = ("seed", "data.train", "data.validation", "data.folds", "data.fold", "data.folder", "data.phantom", "threads")
"""Keys that the trial itself sets, or that are the same in all arms."""


class Arm(Section):
    """One way to train.

    Attributes:
        name: of its folder and in tables.
        overrides: changes of the base configuration, ``"insertion.place=home"``.
        reference: whether the others are compared with it.
    """

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    overrides: tuple[str, ...] = ()
    reference: bool = False

    @field_validator("overrides")
    @classmethod
    def _not_the_trials(cls, overrides: tuple[str, ...]) -> tuple[str, ...]:
        for override in overrides:
            key = override.partition("=")[0]
            if key in OWN:
                raise ValueError(f"overrides: {key} is the same in all arms; the trial sets it, got {override!r}")
        return overrides


class RotationConfig(Section):
    """Who trains and who is tested: folds, or few patients that train and all others tested.

    Attributes:
        folds: each patient is tested once, by a training on the patients of the other folds.
        train_patients: size of each training set; the others are tested.
        rotations: number of training sets, in which patients occur as evenly as can be.
        test_patients: at most so many are tested in each rotation, with `train_patients`.
        always: patients that train in every rotation, beside those drawn, and are never tested.
        seed: of the draw of patients.
    """

    folds: Annotated[int, Field(ge=2)] | None = None
    train_patients: PositiveInt | None = None
    rotations: PositiveInt | None = None
    test_patients: PositiveInt | None = None
    always: tuple[str, ...] = ()
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_way(self):
        few = self.train_patients is not None and self.rotations is not None
        if (self.folds is None) != few or (self.folds is not None and (self.train_patients or self.rotations)):
            raise ValueError("expected either folds, or train_patients together with rotations")
        if self.folds is not None and self.test_patients is not None:
            raise ValueError("test_patients: expected train_patients and rotations; with folds all patients are tested")
        return self


class EndpointConfig(Section):
    """The one figure that decides.

    Attributes:
        regions: regions or classes that are averaged; all regions of the classes where not given, else the classes.
        metric: of whole volumes.
    """

    regions: tuple[str, ...] | None = None
    metric: Literal["dice", "lesion_dice"] = "dice"


class TrialConfig(Section):
    """Configuration of a trial.

    Attributes:
        base: file or name of a segmentation configuration.
        overrides: changes of it for all arms.
        arms: ways to train; without a reference among them, training without insertion is one.
        patients: that take part; all labelled ones where not given.
        rotation: who trains and who is tested.
        seeds: of the trainings; each rotation is trained with each of them.
        endpoint: what decides.
        looks: how often the results may be judged, the end included.
        alpha: chance of a difference found where there is none, of all looks and arms together.
        worthwhile: smallest gain of the endpoint that would be worth the insertion.
        threads: of each training.
        workers: trainings at a time.
        nice: niceness of the trainings, 0 to 19.
    """

    base: str
    overrides: tuple[str, ...] = ()
    arms: tuple[Arm, ...]
    patients: tuple[str, ...] | None = None
    rotation: RotationConfig
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1)
    endpoint: EndpointConfig = EndpointConfig()
    looks: PositiveInt = 1
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    worthwhile: PositiveFloat = 0.01
    threads: PositiveInt = 1
    workers: PositiveInt = 1
    nice: Annotated[int, Field(ge=0, le=19)] = 10

    @field_validator("arms")
    @classmethod
    def _one_reference(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        names = [arm.name for arm in arms]
        references = [arm.name for arm in arms if arm.reference]
        if len(references) > 1:
            raise ValueError(f"arms: expected one reference, got {', '.join(references)}")
        if not references:
            if REFERENCE in names:
                raise ValueError(f"arms: {REFERENCE} is the reference where none is named; mark one: reference: true")
            arms = (Arm(name=REFERENCE, overrides=("insertion=null",), reference=True), *arms)
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"arms: expected different names, got {', '.join(sorted(repeated))} twice")
        if len(arms) < 2:
            raise ValueError("arms: expected one or more beside the reference, got none")
        return arms

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len({*seeds}) < len(seeds):
            raise ValueError(f"seeds: expected different ones, got {', '.join(map(str, seeds))}")
        return seeds

    @property
    def reference(self) -> Arm:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.reference)

    @property
    def compared(self) -> Sequence[Arm]:
        """The other arms."""
        return [arm for arm in self.arms if not arm.reference]


def one_line(value: Any) -> str:
    """Write a value as YAML on one line, for an override; names that look like numbers get quotes.

    Example:
        >>> one_line(["2013_11", "TCIA01_201"])
        "['2013_11', TCIA01_201]"
    """
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("\n...\n").strip()
