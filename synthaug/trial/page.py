"""The page of a trial, ``trial.html``, and its pairs, ``trial.csv``."""

import math
from pathlib import Path
from typing import Any

import yaml

from synthaug.evaluation.summary import write_table
from synthaug.figures.html import render
from synthaug.files import replace_file
from synthaug.sizes import SizeClasses
from synthaug.trial.pictures import false_region_map, patient_dots
from synthaug.trial.plan import Trial
from synthaug.trial.results import ArmResult, Results

PAGE, TABLE = "trial.html", "trial.csv"


def write_page(trial: Trial, results: Results) -> Path:
    """Write page and table into the trial's folder; returns the page's file."""
    text = render(
        "trial.html",
        name=trial.out.resolve().name,
        reference=trial.config.reference,
        headline=results.headline,
        tiles_shown=_tiles(trial, results),
        method=_method(trial, results),
        missing=", ".join(results.missing),
        verdicts=[[arm, _interval(r.found), r.advice.words] for arm, r in results.arms.items()],
        dots=patient_dots(results.arms),
        pair_head=["rotation", "seed", *results.arms],
        pairs=_pairs(results),
        arms=[(arm, _regions(r), _sizes(r)) for arm, r in results.arms.items()],
        size_words=", ".join(f"{name}: {SizeClasses().words(name)}" for name in SizeClasses().names),
        map=None if results.places is None else false_region_map(results.places, results.scored),
        costs=_costs(results),
        looks=f"{results.look.spent:.4f} of {trial.config.alpha:g}",
        description=yaml.safe_dump(trial.description["trial"], sort_keys=False, width=120),
    )
    write_table([row for result in results.arms.values() for row in result.rows], trial.out / TABLE)
    return replace_file(trial.out / PAGE, text)


def _tiles(trial: Trial, results: Results) -> list[tuple[str, str]]:
    best, reference = results.best, trial.config.reference
    result = results.arms[best]
    means = {side: _endpoint_mean(result, results, side) for side in ("_reference", "")}
    false = {side: _false_regions(result, side) for side in ("_reference", "")}
    ahead = sum(value > 0 for value in result.pairs.values())
    return [
        (_interval(result.found), f"{best} minus {reference}, mean Dice of {', '.join(results.endpoint)}"),
        (f"{means['_reference']:.3f} to {means['']:.3f}", f"mean Dice, {reference} to {best}"),
        (f"{ahead} of {len(result.pairs)}", f"pairs ahead; {results.look.planned} are planned"),
        (f"{_number(false['_reference'])} to {_number(false[''])}", f"false regions a patient, {_outermost(result)}"),
        (f"{results.costs[best].seconds / results.costs[reference].seconds - 1:+.0%}", f"time of a step, {best}"),
    ]


def _method(trial: Trial, results: Results) -> str:
    config, patients = trial.config, len({p for r in results.arms.values() for p in r.patients})
    drawn = trial.rotations[0]
    how = f"{config.folds} folds" if config.folds else f"{config.rotations} rotations"
    return (
        f"{len(results.look.units)} of {results.look.planned} pairs of trainings ({how} with "
        f"{len(drawn.train)} training patients, {len(config.seeds)} {'seed' if len(config.seeds) == 1 else 'seeds'}); "
        f"{patients} patients tested, none in its own training."
    )


def _mean(result: ArmResult, region: str, metric: str, size: str = "all") -> float | None:
    wanted = (region, metric, size)
    return next((r["mean"] for r in result.table if (r["region"], r["metric"], r["size"]) == wanted), None)


def _endpoint_mean(result: ArmResult, results: Results, side: str) -> float:
    values = [_mean(result, region, f"dice{side}") for region in results.endpoint]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _outermost(result: ArmResult) -> str:
    return result.table[0]["region"]


def _false_regions(result: ArmResult, side: str) -> float | None:
    return _mean(result, _outermost(result), f"false_positives{side}")


def _pairs(results: Results) -> list[list[str]]:
    units = results.look.units
    return [[f"{r}", f"{s}", *(f"{a.pairs[r, s]:+.3f}" for a in results.arms.values())] for r, s in units]


def _regions(result: ArmResult) -> list[list[str]]:
    """Rows of a table: Dice of both and its difference, and false regions, of each region and class."""
    rows = []
    for region in dict.fromkeys(row["region"] for row in result.table):
        false = [_number(_mean(result, region, f"false_positives{side}")) for side in ("_reference", "")]
        dice = [_number(_mean(result, region, f"dice{side}"), 3) for side in ("_reference", "")]
        rows.append([region, *dice, _difference(result, region, "dice", 3), *false])
        rows[-1].append(_difference(result, region, "false_positives", 2))
    return rows


def _sizes(result: ArmResult) -> list[list[str]]:
    """Rows of a table: recall of both by lesion size; sizes that no lesion has are left out."""
    rows = []
    for row in result.table:
        if row["metric"] == "lesion_recall" and row["size"] != "all":
            region, size = row["region"], row["size"]
            before = _mean(result, region, "lesion_recall_reference", size)
            difference = _difference(result, region, "lesion_recall", 2, size)
            rows.append([region, size, f"{row['groups']}", _number(before), _number(row["mean"]), difference])
    return rows


def _difference(result: ArmResult, region: str, metric: str, digits: int, size: str = "all") -> str:
    wanted = (region, f"{metric}_difference", size)
    row: dict[str, Any] | None = next(
        (r for r in result.table if (r["region"], r["metric"], r["size"]) == wanted), None
    )
    if row is None:
        return "-"
    limits = "" if row["low"] is None else f" [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
    return f"{row['mean']:+.{digits}f}{limits}"


def _costs(results: Results) -> list[list[str]]:
    return [
        [arm, f"{cost.seconds:.0f}", "-" if cost.share is None else f"{cost.share:.1%}"]
        for arm, cost in results.costs.items()
    ]


def _interval(found) -> str:
    if math.isinf(found.low):
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
