"""Scores of a trial's runs, and each arm's differences from the reference on the same cases, rotations and seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthaug.training.artefacts import read_components, read_rows
from synthaug.training.run import read_metrics
from synthaug.trial.false_regions import RegionMap
from synthaug.trial.plan import Plan, Run
from synthaug.trial.runs import complete_pairs, is_done
from synthaug.trial.statistics import Estimate, estimate

ENDPOINT = "endpoint"
Key = tuple[str, str, str]
"""Region or class, size class, metric."""


@dataclass(frozen=True)
class Cost:
    """What an arm takes.

    Attributes:
        seconds: of a run's steps, mean.
        insertion_share: of the time of a step.
        asked: insertions, per run.
        done: of them.
    """

    seconds: float
    insertion_share: float
    asked: float
    done: float


@dataclass(frozen=True)
class Results:
    """Everything that a page shows.

    Attributes:
        plan: of the trial.
        pairs: rotations and seeds of which all arms are done.
        rows: of their last validations, each with ``arm``, ``rotation`` and ``seed``.
        scores: arm to (patient, rotation, seed) to key to mean over the patient's cases.
        maps: arm to places of its false regions.
        lesions: places of the true lesions.
        costs: arm to what it takes.
    """

    plan: Plan
    pairs: tuple[tuple[int, int], ...]
    rows: list[dict[str, Any]]
    scores: dict[str, dict[tuple[str, int, int], dict[Key, float]]]
    maps: dict[str, RegionMap]
    lesions: RegionMap
    costs: dict[str, Cost]

    @property
    def reference(self) -> str:
        """Name of the arm that the others are compared with."""
        return self.plan.config.reference.name

    @property
    def names(self) -> tuple[str, ...]:
        """Regions and classes, as they were scored."""
        return tuple(dict.fromkeys(row["region"] for row in self.rows))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that no arm may lose in: all of them, the classes where there are none, and those of the endpoint."""
        nested = [row["region"] for row in self.rows if row["kind"] == "region"]
        return tuple(dict.fromkeys((*(nested or self.names), *self.plan.regions)))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Size classes of lesions, without all."""
        return tuple(dict.fromkeys(row["size"] for row in self.rows if row["size"] != "all"))

    @property
    def endpoint(self) -> Key:
        """Key of the figure that decides."""
        return ENDPOINT, "all", self.plan.config.endpoint.metric

    def mean(self, arm: str, key: Key) -> float | None:
        """Average a figure over patients, a patient's over its rotations and seeds; None where nobody has it."""
        of_patients: dict[str, list[float]] = {}
        for (patient, _, _), values in self.scores[arm].items():
            if key in values:
                of_patients.setdefault(patient, []).append(values[key])
        return float(np.mean([np.mean(v) for v in of_patients.values()])) if of_patients else None

    def cells(self, arm: str, key: Key) -> dict[tuple[str, int], float]:
        """Differences from the reference by patient and rotation, means over the seeds; where both have the figure."""
        ours, theirs = self.scores[arm], self.scores[self.reference]
        found: dict[tuple[str, int], list[float]] = {}
        for at, values in ours.items():
            if key in values and key in theirs[at]:
                found.setdefault(at[:2], []).append(values[key] - theirs[at][key])
        return {cell: float(np.mean(values)) for cell, values in found.items()}

    def difference(self, arm: str, key: Key) -> Estimate | None:
        """Estimate the difference from the reference; None where no case has the figure in both arms."""
        cells = self.cells(arm, key)
        return estimate(cells, clustered=self.plan.config.rotation.folds is None) if cells else None


def read_results(plan: Plan) -> Results:
    """Read what is done of a trial, complete pairs alone.

    Raises:
        ValueError: no pair is complete.
    """
    pairs = complete_pairs(plan.runs)
    if not pairs:
        done = sum(map(is_done, plan.runs))
        raise ValueError(f"{plan.out}: no rotation and seed is done in all arms yet; {done} runs are")
    runs = [run for run in plan.runs if run.pair in pairs]
    rows = [row for run in runs for row in _last_rows(run)]
    cases = {
        arm.name: [c for r in runs if r.arm == arm.name for c in read_components(r.folder)] for arm in plan.config.arms
    }
    reference = plan.config.reference.name
    return Results(
        plan=plan,
        pairs=tuple(pairs),
        rows=rows,
        scores={arm.name: _scores((r for r in rows if r["arm"] == arm.name), plan) for arm in plan.config.arms},
        maps={arm: RegionMap.of_cases(found, "false") for arm, found in cases.items()},
        lesions=RegionMap.of_cases({case["case"]: case for case in cases[reference]}.values(), "true"),
        costs={arm.name: _cost([run for run in runs if run.arm == arm.name]) for arm in plan.config.arms},
    )


def _last_rows(run: Run) -> list[dict[str, Any]]:
    """Read the rows of a run's last validation."""
    rows = read_rows(run.folder)
    last = max(row["step"] for row in rows)
    own = {"arm": run.arm, "rotation": run.rotation, "seed": run.seed}
    return [own | row for row in rows if row["step"] == last]


def _scores(rows: Iterable[Mapping[str, Any]], plan: Plan) -> dict[tuple[str, int, int], dict[Key, float]]:
    """Average the cases of each patient in each run, and add the endpoint."""
    values: dict[tuple[str, int, int], dict[Key, list[float]]] = {}
    for row in rows:
        mine = values.setdefault((row["group"], row["rotation"], row["seed"]), {})
        for metric in ("dice", "lesion_dice", "lesion_recall", "false_positives"):
            if row.get(metric) is not None:
                mine.setdefault((row["region"], row["size"], metric), []).append(row[metric])
    return {at: _with_endpoint({k: float(np.mean(v)) for k, v in mine.items()}, plan) for at, mine in values.items()}


def _with_endpoint(values: dict[Key, float], plan: Plan) -> dict[Key, float]:
    metric = plan.config.endpoint.metric
    parts = [values[name, "all", metric] for name in plan.regions if (name, "all", metric) in values]
    return values | ({(ENDPOINT, "all", metric): float(np.mean(parts))} if parts else {})


def _cost(runs: Sequence[Run]) -> Cost:
    """Average what runs took; of a run that was stopped too, for its steps are timed."""
    seconds, shares, asked, done = [], [], [], []
    for run in runs:
        rows, steps, inserting, before = read_metrics(run.folder), 0.0, 0.0, 0
        for row in rows:
            if "seconds_per_step" in row:
                steps += row["seconds_per_step"] * (row["step"] - before)
                inserting += row.get("insertion_seconds_per_step", 0.0) * (row["step"] - before)
                before = row["step"]
        seconds.append(steps)
        shares.append(inserting / steps if steps else 0.0)
        counts = next((row["insertion"] for row in reversed(rows) if "insertion" in row), {"asked": 0, "done": 0})
        asked.append(counts["asked"])
        done.append(counts["done"])
    return Cost(*(float(np.mean(values)) for values in (seconds, shares, asked, done)))


def pair_rows(results: Results) -> list[dict[str, Any]]:
    """List every score beside the reference's of the same case, rotation and seed, for a table on disk."""
    theirs = {_at(row): row for row in results.rows if row["arm"] == results.reference}
    found = []
    for row in results.rows:
        for metric in ("dice", "lesion_dice", "lesion_recall", "false_positives"):
            own, other = row.get(metric), theirs[_at(row)].get(metric)
            if row["arm"] != results.reference and (own is not None or other is not None):
                head = {k: row[k] for k in ("arm", "rotation", "seed", "group", "case", "region", "size")}
                difference = None if own is None or other is None else own - other
                found.append(head | {"metric": metric, "value": own, "reference": other, "difference": difference})
    return found


def _at(row: Mapping[str, Any]) -> tuple:
    return tuple(row[key] for key in ("rotation", "seed", "case", "region", "size"))
