"""Validations of a generator on held-out patients during its training.

They are kept in the run's folder, for a run that goes on or is finished.
"""

import json
import math
from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError

from synthaug.config import ConfigError, Section, problem
from synthaug.files import replace_file

FILE = "looks.json"


class Validations(Section):
    """How far the held-out lesions were from the real ones, validation by validation.

    Attributes:
        seconds: of training until the last one, of all sittings.
        found: step to distance, in order of the steps; infinite where there was none to be measured.
    """

    seconds: NonNegativeFloat = 0.0
    found: dict[PositiveInt, NonNegativeFloat] = Field(default_factory=dict)

    @property
    def best(self) -> float:
        """Give the least distance; infinite without any."""
        return min(self.found.values(), default=math.inf)

    @property
    def since(self) -> int:
        """Count those after the best one."""
        distances = list(self.found.values())
        return len(distances) - 1 - distances.index(self.best) if distances else 0

    def with_one(self, step: int, distance: float, seconds: float) -> "Validations":
        """Add one; of two at one step, as after a run that was killed, the better one counts."""
        distance = math.inf if math.isnan(distance) else distance
        found = self.found | {step: min(distance, self.found.get(step, math.inf))}
        return Validations(seconds=seconds, found=dict(sorted(found.items())))

    def save(self, out: Path) -> None:
        """Write them into a run's folder."""
        replace_file(out / FILE, json.dumps(self.model_dump(), indent=1) + "\n")

    @classmethod
    def load(cls, out: Path) -> "Validations":
        """Read those in a run's folder; none where it has none.

        Raises:
            ConfigError: the file was damaged.
        """
        file = out / FILE
        if not file.is_file():
            return cls()
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise ConfigError(f"{file}: {'; '.join(problem(item, cls) for item in error.errors())}") from error
        except ValueError as error:
            raise ConfigError(f"{file}: not JSON: {error}") from error
