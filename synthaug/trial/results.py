"""Results of a trial: the rows of its runs, paired, judged at a look."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthaug.training.artefacts import read_components
from synthaug.training.run import read_metrics
from synthaug.trial.advice import Advice, advise, further_pairs, headline
from synthaug.trial.looks import Look, take_look
from synthaug.trial.plan import Run, Trial, Unit
from synthaug.trial.runs import finished, scores, whole_units
from synthaug.trial.statistics import (
    Interval,
    difference_table,
    endpoint_names,
    endpoint_rows,
    holm,
    paired,
    patient_means,
)


@dataclass(frozen=True)
class Cost:
    """Seconds of the steps of an arm's run, and the share of insertion in them, None where nothing is inserted."""

    seconds: float
    share: float | None


@dataclass(frozen=True)
class ArmResult:
    """One arm against the reference.

    Attributes:
        rows: paired rows, of `synthaug.trial.statistics.paired`.
        pairs: mean difference of the endpoint in each rotation and seed.
        patients: the same of each patient.
        found: mean and corrected interval.
        table: figures by region and size, of `difference_table`.
        advice: the verdict.
    """

    rows: list[dict[str, Any]]
    pairs: dict[Unit, float]
    patients: dict[str, float]
    found: Interval
    table: list[dict[str, Any]]
    advice: Advice


@dataclass(frozen=True)
class Results:
    """What a trial found so far.

    Attributes:
        look: the look that was taken.
        endpoint: regions or classes whose mean Dice decides.
        arms: name to result, the reference left out.
        headline: the recommendation.
        costs: of all arms.
        places: of false regions (N, 3), of all arms; None where they were not kept.
        scored: validations of a case in each arm, to which `places` belong.
        missing: arms of which no training is done.
    """

    look: Look
    endpoint: tuple[str, ...]
    arms: dict[str, ArmResult]
    headline: str
    costs: dict[str, Cost]
    places: dict[str, np.ndarray] | None
    scored: int
    missing: tuple[str, ...]

    @property
    def best(self) -> str:
        """The arm with the greatest difference."""
        return max(self.arms, key=lambda arm: self.arms[arm].found.mean)


def look_at(trial: Trial) -> Results | None:
    """Judge the pairs that are there; None where there are none. A look is recorded and spends its part of alpha.

    Raises:
        ValueError: an endpoint that the scores do not have.
    """
    units = whole_units(trial)
    if not units:
        return None
    config = trial.config
    runs = [run for run in trial.runs() if (run.rotation, run.seed) in units and finished(run)]
    rows = {arm: [row for run in runs if run.arm == arm for row in _rows(run, trial)] for arm in trial.arms}
    joined = {arm: paired(rows[arm], rows[config.reference]) for arm in config.compared if rows[arm]}
    if not rows[config.reference] or not joined:
        return None
    first = next(iter(joined.values()))
    endpoint = endpoint_names(first, config.endpoint)
    watched = {*endpoint, *endpoint_names(first, None)}
    differences = {arm: endpoint_rows(of_arm, endpoint) for arm, of_arm in joined.items()}
    look = take_look(trial.out, units, len(trial.units), config.alpha)
    patients = {arm: patient_means(found) for arm, found in differences.items()}
    found = holm({arm: list(values.values()) for arm, values in patients.items()}, look.level, len(config.compared))
    arms = {}
    for arm, of_arm in joined.items():
        table = difference_table(of_arm)
        share = config.alpha / len(config.compared)
        further = further_pairs(differences[arm], len(units), config.worthwhile, share)
        advice = advise(arm, found[arm], harmed(table, watched), config.worthwhile, further)
        pairs = {unit: _mean_of(differences[arm], unit) for unit in units}
        arms[arm] = ArmResult(of_arm, pairs, patients[arm], found[arm], table, advice)
    said = headline({arm: result.advice for arm, result in arms.items()}, found)
    costs = {arm: _cost([run for run in runs if run.arm == arm]) for arm in trial.arms if rows[arm]}
    missing = tuple(arm for arm in trial.arms if not rows[arm])
    return Results(look, endpoint, arms, said, costs, _places(runs), len(_tested(first)), missing)


def harmed(table: Sequence[dict[str, Any]], names: Collection[str]) -> list[str]:
    """List those of some regions whose interval of the Dice difference lies wholly below 0."""
    whole = [row for row in table if row["metric"] == "dice_difference" and row["size"] == "all"]
    return [r["region"] for r in whole if r["region"] in names and r["high"] is not None and r["high"] < 0]


def _rows(run: Run, trial: Trial) -> list[dict[str, Any]]:
    extra = {"arm": run.arm, "rotation": run.rotation, "seed": run.seed}
    return [row | extra | {"group": trial.patients[row["case"]]} for row in scores(run)]


def _tested(rows: Sequence[dict[str, Any]]) -> set[tuple]:
    return {(row["rotation"], row["seed"], row["case"]) for row in rows}


def _mean_of(differences, unit: Unit) -> float:
    values = [value for (rotation, seed, _), (_, value) in differences.items() if (rotation, seed) == unit]
    return float(np.mean(values)) if values else float("nan")


def _cost(runs: Sequence[Run]) -> Cost:
    logged = [[row for row in read_metrics(run.folder) if "seconds_per_step" in row] for run in runs]
    seconds, inserting, inserted = 0.0, 0.0, False
    for rows in logged:
        before = 0
        for row in rows:
            seconds += row["seconds_per_step"] * (row["step"] - before)
            inserting += row.get("insertion_seconds_per_step", 0.0) * (row["step"] - before)
            inserted = inserted or "insertion" in row
            before = row["step"]
    return Cost(seconds / len(runs), inserting / seconds if inserted and seconds else None)


def _places(runs: Sequence[Run]) -> dict[str, np.ndarray] | None:
    """Collect the places of the false regions of the outermost region, so that none is counted twice."""
    kept = {run: read_components(run.folder) for run in runs}
    if any(rows is None for rows in kept.values()):
        return None
    found: dict[str, list] = {run.arm: [] for run in runs}
    for run, rows in kept.items():
        outermost = next(row["region"] for row in scores(run))
        found[run.arm] += [row["place"] for row in rows or () if row["region"] == outermost]
    return {arm: np.array(places, float).reshape(-1, 3) for arm, places in found.items()}
