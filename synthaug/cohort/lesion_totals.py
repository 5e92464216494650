"""What the lesions of a cohort come to: their number, diameters and volumes by class, without keeping any of them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class LesionTotals:
    """What the rows of a manifest come to.

    Diameters are rounded to 0.001 mm in a manifest: however many lesions there are, not many of them differ.

    Attributes:
        count: number of lesions.
        diameters_mm: how many lesions have each diameter.
        class_ml: volume of each class in all, in the order of the first row.
    """

    count: int = 0
    diameters_mm: Counter[float] = field(default_factory=Counter)
    class_ml: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "LesionTotals":
        """Sum up rows of a manifest."""
        totals = cls()
        for row in rows:
            totals.count += 1
            totals.diameters_mm[row["diameter_mm"]] += 1
            for name, ml in row["class_ml"].items():
                totals.class_ml[name] = totals.class_ml.get(name, 0.0) + ml
        return totals

    @property
    def median_mm(self) -> float:
        """Median of the diameters of one lesion or more."""
        return (self._ranked((self.count - 1) // 2) + self._ranked(self.count // 2)) / 2

    def _ranked(self, rank: int) -> float:
        """The diameter that so many lesions come before, in ascending order."""
        before = 0
        for diameter, number in sorted(self.diameters_mm.items()):
            before += number
            if before > rank:
                return diameter
        raise IndexError(f"expected a rank below {self.count}, got {rank}")
