"""`trial.html`: the recommendation, differences with intervals, places of false regions, cost, patients."""

import math
from collections.abc import Iterable

from synthaug.figures.html import render
from synthaug.trial.looks import Look, read_looks
from synthaug.trial.pictures import false_region_maps, patient_differences
from synthaug.trial.recommendation import Verdict, judge, leading, recommendation
from synthaug.trial.results import Key, Results
from synthaug.trial.runs import duration
from synthaug.trial.statistics import Estimate

NO_LOOK = (
    "No recommendation yet: no look is left before the end, which would be paid for by the certainty of the last one."
)


def page(results: Results, look: Look | None) -> tuple[str, str]:
    """Make the page.

    Args:
        results: of the complete pairs.
        look: the look that this is, or None where none is left; then no interval is shown.

    Returns:
        The recommendation, and the page as HTML.
    """
    arms = [arm.name for arm in results.plan.config.compared]
    verdicts = _verdicts(results, look)
    sentence = recommendation(verdicts, results.reference) if look is not None else NO_LOOK
    alpha = 0.0 if look is None else look.alpha
    text = render(
        "trial.html",
        sentence=sentence,
        lead=_lead(results, look),
        tiles_shown=_tiles(results, verdicts),
        verdicts=[[v.arm, v.word, v.why] for v in verdicts] if look is not None else [],
        reference=results.reference,
        endpoint=_endpoint_words(results),
        level=_percent(1 - alpha) if look is not None else "",
        arms=arms,
        regions=_table(results, arms, alpha, [(name, "all", "dice") for name in results.names]),
        sizes=_table(results, arms, alpha, _size_keys(results)),
        false_head=["arm", "false regions per case", "ml per case", "of them in the lowest third"],
        false_rows=_false_rows(results),
        maps=false_region_maps(results.maps, results.lesions),
        costs=_costs(results),
        patients=_patients_picture(results, arms, verdicts),
        patient_rows=_patient_rows(results, arms),
        looks=_looks(results),
        notes=_notes(results),
        descriptions=[
            (arm.name, " ".join(arm.overrides) or "the base configuration") for arm in results.plan.config.arms
        ],
        base=results.plan.config.base,
    )
    return sentence, text


def _verdicts(results: Results, look: Look | None) -> list[Verdict]:
    if look is None:
        return []
    config = results.plan.config
    endpoints, regions = {}, {}
    for arm in (arm.name for arm in config.compared):
        found = results.difference(arm, results.endpoint)
        if found is None:
            raise ValueError(
                f"endpoint: no tested case has a {config.endpoint.metric} of {', '.join(results.plan.regions)}"
            )
        endpoints[arm] = found
        each = {name: results.difference(arm, (name, "all", config.endpoint.metric)) for name in results.regions}
        regions[arm] = {name: known for name, known in each.items() if known is not None}
    return judge(endpoints, regions, look.alpha, config.worthwhile, len(results.pairs), look.final)


def _endpoint_words(results: Results) -> str:
    metric = {"dice": "Dice", "lesion_dice": "lesion-wise Dice"}[results.plan.config.endpoint.metric]
    return f"mean {metric} of {', '.join(results.plan.regions)}"


def _lead(results: Results, look: Look | None) -> str:
    plan = results.plan
    patients = len({patient for patient, _, _ in results.scores[results.reference]})
    words = (
        f"{len(results.pairs)} of {plan.pairs} pairs are done, {patients} patients tested, none in its own training."
    )
    if look is not None and not look.final:
        words += f" This is an early look; its intervals are wider for that ({_percent(1 - look.alpha)})."
    return words


def _tiles(results: Results, verdicts: list[Verdict]) -> list[tuple[str, str]]:
    """Five figures: of the arm that the recommendation speaks of, or that is furthest ahead."""
    found = {arm.name: results.difference(arm.name, results.endpoint) for arm in results.plan.config.compared}
    furthest = max(found, key=lambda arm: -math.inf if (d := found[arm]) is None else d.mean)
    verdict = leading(verdicts) if verdicts else None
    best = furthest if verdict is None else verdict.arm
    difference = found[best]
    interval = "no interval" if verdict is None else _interval(verdict.low, verdict.high)
    false = [results.maps[arm].per_case for arm in (best, results.reference)]
    return [
        (_signed(None if difference is None else difference.mean), f"{best} minus {results.reference}, {interval}"),
        (_plain(results.mean(results.reference, results.endpoint)), f"{results.reference}, {_endpoint_words(results)}"),
        (f"{len(results.pairs)} / {results.plan.pairs}", "pairs of rotation and seed done"),
        (f"{false[0]:.2f} / {false[1]:.2f}", f"false regions per case, {best} / {results.reference}"),
        (f"{results.costs[best].insertion_share:.1%}", f"of the step time is insertion, {best}"),
    ]


def _size_keys(results: Results) -> list[Key]:
    return [(name, size, "lesion_recall") for name in results.names for size in (*results.sizes, "all")]


def _table(results: Results, arms: list[str], alpha: float, keys: Iterable[Key]) -> list[list[str]]:
    """Write rows of name, size, number of patients, the reference's mean, and each arm's difference."""
    rows = []
    for name, size, metric in keys:
        key = (name, size, metric)
        level = results.mean(results.reference, key)
        found = [results.difference(arm, key) for arm in arms]
        if level is None or all(each is None for each in found):
            continue
        patients = max(each.patients for each in found if each is not None)
        head = [name] if metric == "dice" else [name, size]
        rows.append([*head, f"{patients}", f"{level:.3f}", *(_difference(each, alpha) for each in found)])
    return rows


def _difference(found: Estimate | None, alpha: float) -> str:
    return "-" if found is None else f"{found.mean:+.3f} {_interval(*found.interval(alpha))}".strip()


def _interval(low: float, high: float) -> str:
    return f"[{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else ""


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _false_rows(results: Results) -> list[list[str]]:
    known = {"true lesions": results.lesions, **results.maps}
    return [[name, f"{m.per_case:.2f}", f"{m.ml_per_case:.1f}", _share(m.lowest)] for name, m in known.items()]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _costs(results: Results) -> list[list[str]]:
    return [
        [arm, duration(cost.seconds), f"{cost.insertion_share:.1%}", f"{cost.asked:.0f}", f"{cost.done:.0f}"]
        for arm, cost in results.costs.items()
    ]


def _patients_picture(results: Results, arms: list[str], verdicts: list[Verdict]) -> str:
    differences: dict[str, dict[str, list[float]]] = {}
    for arm in arms:
        mine = differences.setdefault(arm, {})
        for (patient, _), value in sorted(results.cells(arm, results.endpoint).items()):
            mine.setdefault(patient, []).append(value)
    intervals = dict.fromkeys(arms, (-math.inf, math.inf)) | {v.arm: (v.low, v.high) for v in verdicts}
    return patient_differences(differences, intervals)


def _patient_rows(results: Results, arms: list[str]) -> list[list[str]]:
    patients = sorted({patient for patient, _, _ in results.scores[results.reference]})
    rows = []
    for patient in patients:
        own = [
            v[results.endpoint]
            for at, v in results.scores[results.reference].items()
            if at[0] == patient
            if results.endpoint in v
        ]
        cells = {arm: [v for at, v in results.cells(arm, results.endpoint).items() if at[0] == patient] for arm in arms}
        level = _plain(sum(own) / len(own) if own else None)
        rows.append([patient, level, *(_signed(sum(v) / len(v) if v else None) for v in cells.values())])
    return rows


def _looks(results: Results) -> list[list[str]]:
    taken = read_looks(results.plan.out)
    return [[x.time, f"{x.pairs}", f"{x.spent:.4f}", _percent(1 - x.alpha)] for x in taken]


def _notes(results: Results) -> list[str]:
    notes = []
    for arm in results.plan.unknown:
        notes.append(
            f"The generator of {arm} does not say whom it has seen (patients.json beside its weights): were these "
            "tested patients, its figures would say nothing."
        )
    if any(run.config.data.profile is not None for run in results.plan.runs):
        notes.append(
            "Places, sizes and units of the profile were measured on all patients, the tested ones included; the "
            "lesions that are inserted are those of training patients alone."
        )
    if len({patient for patient, _, _ in results.scores[results.reference]}) < 8:
        notes.append("Fewer than eight patients: intervals are wide, and what they hide may be large.")
    return notes
