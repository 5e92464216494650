"""Who trains and who is tested: folds, or small training sets in which patients occur evenly."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from synthaug.data.folds import patient_folds
from synthaug.trial.config import RotationConfig


@dataclass(frozen=True)
class Rotation:
    """The patients of one split.

    Attributes:
        train: patients that train, sorted.
        test: patients that are tested, sorted; none of them trains.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]


def rotations(patients: Iterable[str], config: RotationConfig) -> list[Rotation]:
    """Split patients as the configuration asks.

    Raises:
        ValueError: fewer patients than that needs, or one to train always who is not among them.
    """
    everybody = {*patients}
    if unknown := sorted({*config.always} - everybody):
        raise ValueError(f"always: no labelled case is of {', '.join(unknown)}")
    names = sorted(everybody - {*config.always})
    return [Rotation(tuple(sorted({*turn.train, *config.always})), turn.test) for turn in _drawn(names, config)]


def _drawn(names: list[str], config: RotationConfig) -> list[Rotation]:
    if config.folds is not None:
        held_out = patient_folds(names, config.folds, config.seed)
        return [Rotation(tuple(n for n in names if n not in test), tuple(sorted(test))) for test in held_out]
    size, count = config.train_patients, config.rotations
    assert size is not None and count is not None  # a configuration has both where it has no folds
    if len(names) <= size:
        raise ValueError(f"rotation: expected more than train_patients={size} patients, got {len(names)}")
    rng = np.random.default_rng(config.seed)
    trained, tested = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    found = []
    for _ in range(count):
        train = _rarest(names, trained, size, rng)
        others = [name for name in names if name not in train]
        test = _rarest(others, tested, config.test_patients or len(others), rng)
        found.append(Rotation(tuple(train), tuple(test)))
    return found


def _rarest(names: list[str], counts: dict[str, int], size: int, rng: np.random.Generator) -> list[str]:
    """Draw those that were drawn least often so far, and count them."""
    drawn = sorted(sorted(rng.permutation(names).tolist(), key=counts.__getitem__)[:size])
    for name in drawn:
        counts[name] += 1
    return drawn
