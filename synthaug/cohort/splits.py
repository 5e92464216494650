"""Folds without leaks: a synthetic case is only ever trained on, and only where its host and its donors are.

The real data set's folds come from nnU-Net's ``splits_final.json`` (a list of ``{"train": [...], "val": [...]}``), or
are made by patient (`synthaug.data.folds`). A synthetic case holds voxels of its host and, with paste, of its donors,
and its label has their shapes: it joins the training set of a fold where none of these patients is validated.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from synthaug.cohort.encoding import Items
from synthaug.config import ConfigError
from synthaug.data.folds import patient_folds
from synthaug.data.groups import GroupOf

Folds = list[dict[str, list[str]]]


def read_folds(path: Path) -> Folds:
    """Read the folds of an nnU-Net file.

    Raises:
        ConfigError: it cannot be read or is of another form.
    """
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"splits.folds: {path} cannot be read as JSON: {error}") from error
    fits = isinstance(folds, list) and folds and all(isinstance(f, dict) and {"train", "val"} <= set(f) for f in folds)
    if not fits:
        raise ConfigError(f'splits.folds: {path}: expected a list of {{"train": [...], "val": [...]}}')
    return [{side: [str(name) for name in fold[side]] for side in ("train", "val")} for fold in folds]


def made_folds(cases: Mapping[str, str], count: int, seed: int) -> Folds:
    """Make folds by patient.

    Args:
        cases: name of each real case to its patient.
        count: number of folds.
        seed: decides the order of the patients.

    Raises:
        ConfigError: fewer patients than folds.
    """
    try:
        validated = patient_folds(cases.values(), count, seed)
    except ValueError as error:
        raise ConfigError(f"splits.folds: {error}") from error
    return [
        {
            "train": sorted(name for name, patient in cases.items() if patient not in held_out),
            "val": sorted(name for name, patient in cases.items() if patient in held_out),
        }
        for held_out in validated
    ]


class LeakProof:
    """Adds synthetic cases to the training sets that they may join.

    Args:
        folds: names of the real cases in each.
        patients: name of each real case to its patient.
        group_of: finds the patient of a case that `patients` does not have.
        outside: ``"refuse"`` or ``"train"``: what becomes of hosts and donors that no fold mentions.

    Raises:
        ConfigError: a patient who is trained on and validated in one fold.
    """

    def __init__(self, folds: Folds, patients: Mapping[str, str], group_of: GroupOf, outside: str):
        self.folds, self.outside = folds, outside
        self._validated: list[set[str]] = []
        self._known: set[str] = set()
        for number, fold in enumerate(folds):
            train, validated = (
                {patients[name] if name in patients else group_of(name) for name in fold[side]}
                for side in ("train", "val")
            )
            if both := sorted(train & validated):
                raise ConfigError(f"splits: fold {number} trains on and validates patient {', '.join(both)}")
            self._validated.append(validated)
            self._known |= train | validated

    def check(self, patients: Iterable[str | None], what: str) -> None:
        """Check that the folds know these hosts or donors.

        Raises:
            ConfigError: they do not, and `outside` is ``"refuse"``.
        """
        strangers = sorted({str(p) for p in patients if p not in self._known})
        if strangers and self.outside == "refuse":
            raise ConfigError(
                f"splits: the folds do not mention {len(strangers)} of the {what}: {', '.join(strangers[:5])}. "
                "If their patients are in no fold, splits.outside=train takes them into every training set"
            )

    def with_cases(
        self, records: Iterable[Mapping[str, Any]], name: Callable[[str], str] = str
    ) -> list[dict[str, Items | list[str]]]:
        """Add the synthetic cases to the folds, validation untouched.

        Args:
            records: of the synthetic cases; read anew for each fold, when it is written.
            name: names a real case in the cohort.
        """

        def trained(fold: dict[str, list[str]], validated: set[str]) -> Iterator[str]:
            yield from map(name, fold["train"])
            yield from (r["case"] for r in records if not self._patients(r) & validated)

        return [
            {"train": Items(partial(trained, fold, validated)), "val": [name(n) for n in fold["val"]]}
            for fold, validated in zip(self.folds, self._validated, strict=True)
        ]

    @staticmethod
    def _patients(record: Mapping[str, Any]) -> set[str]:
        donors = {row["donor_group"] for row in record["lesions"] if row["donor_group"] is not None}
        return {record["host_group"], *donors}
