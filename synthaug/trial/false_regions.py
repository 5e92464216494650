"""Where false regions appear: predicted components that touch no true lesion, by their places in host coordinates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CELLS = 12
"""Of the map, along each axis."""

LOWEST = 1 / 3
"""Share of a host's height that is its lowest part."""


@dataclass(frozen=True)
class RegionMap:
    """Places of components.

    Attributes:
        places: (N, 3) host coordinates of their centres.
        ml: (N,) their volumes.
        cases: number of predictions that they are of.
    """

    places: np.ndarray
    ml: np.ndarray
    cases: int

    @classmethod
    def of_cases(cls, cases: Iterable[Mapping[str, Any]], which: str) -> "RegionMap":
        """Collect them from what `synthaug.training.artefacts.read_components` gives.

        Args:
            cases: of one arm.
            which: ``"false"`` or ``"true"``.
        """
        cases = list(cases)
        rows = [row for case in cases for row in case[which]]
        places = np.array([row["place"] for row in rows], float).reshape(-1, 3)
        return cls(places, np.array([row["ml"] for row in rows], float), len(cases))

    @property
    def per_case(self) -> float:
        """Mean number of components."""
        return len(self.ml) / max(1, self.cases)

    @property
    def ml_per_case(self) -> float:
        """Mean volume of all of a case's components."""
        return float(self.ml.sum()) / max(1, self.cases)

    @property
    def lowest(self) -> float | None:
        """Share of the components whose centres lie in the lowest third of the host; None without any."""
        return float((self.places[:, 2] < LOWEST).mean()) if len(self.places) else None

    def grid(self) -> np.ndarray:
        """Count the components in each cell of the host's box, per case, (12, 12, 12); beyond it, in the outermost."""
        cell = np.clip(np.floor(self.places * CELLS).astype(int), 0, CELLS - 1)
        counts = np.zeros((CELLS,) * 3)
        np.add.at(counts, tuple(cell.T), 1)
        return counts / max(1, self.cases)
