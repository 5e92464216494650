"""Which patients each rotation of a trial trains on, and which it tests."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from synthaug.data.folds import patient_folds
from synthaug.trial.config import TrialConfig


@dataclass(frozen=True)
class Rotation:
    """Patients of one rotation, sorted; none is on both sides."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def rotations(patients: Iterable[str], config: TrialConfig) -> list[Rotation]:
    """Draw the rotations of a trial.

    By folds, each patient is tested once. With `train_patients`, each set has the patients that were in the fewest sets
    so far, by lot among equals: the numbers of sets that two patients are in differ by one at most.

    Args:
        patients: names, in any order and as often as they like.
        config: description of the trial.

    Raises:
        ValueError: too few patients.

    Example:
        >>> few = TrialConfig(base="segmentation_tiny", train_patients=2, rotations=3, arms=ARMS)  # doctest: +SKIP
        >>> [len(rotation.test) for rotation in rotations("abcdef", few)]  # doctest: +SKIP
        [4, 4, 4]
    """
    names = sorted({*patients})
    if config.folds is not None:
        held_out = patient_folds(names, config.folds, config.rotation_seed)
        return [_rotation(names, {*names} - tested) for tested in held_out]
    count, number = config.train_patients, config.rotations
    assert count is not None and number is not None  # a description has both or folds
    if len(names) <= count:
        raise ValueError(f"train_patients: expected fewer than the {len(names)} labelled patients, got {count}")
    random, used = np.random.default_rng(config.rotation_seed), np.zeros(len(names), int)
    found = []
    for _ in range(number):
        chosen = np.lexsort((random.random(len(names)), used))[:count]
        used[chosen] += 1
        found.append(_rotation(names, {names[i] for i in chosen}))
    return found


def _rotation(names: list[str], train: set[str]) -> Rotation:
    return Rotation(tuple(n for n in names if n in train), tuple(n for n in names if n not in train))
