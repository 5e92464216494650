"""Tables from rows of cases: mean, median and a bootstrap interval by patient; paired differences; CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthaug.files import replace_file

NOT_METRICS = ("case", "group", "region", "kind", "size", "step", "seed", "fold", "arm", "epoch")
"""Keys of rows that tell what was scored, never a score."""

Row = Mapping[str, Any]


def summarise(
    rows: Iterable[Row],
    by: Sequence[str] = ("region",),
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Compute mean, median and interval of every metric in every group of rows.

    The interval is the percentile bootstrap of the mean: patients are drawn with replacement, all rows of a patient
    together, since two scans of one patient are no two observations. With one patient there is none. Values that are
    None are in no figure; `n` says how many were there.

    Args:
        rows: rows of `evaluate_case`.
        by: keys whose values make a group, in the order of the table; ``size`` is one of them wherever rows have it.
        metrics: keys to summarise; all that hold numbers where not given.
        seed: seed of the bootstrap; the figures of one group do not depend on the other groups.
        resamples: number of draws of the bootstrap.
        level: level of the interval, in (0, 1).

    Returns:
        A row for each group and metric: the keys of `by`, ``metric``, ``n``, ``groups`` (patients), ``mean``,
        ``median``, ``std`` (n - 1; None for one value), ``low`` and ``high`` (None for one patient).

    Raises:
        ValueError: no row, a row without a key of `by`, a metric that no row has, or a level outside (0, 1).

    Example:
        >>> rows = [{"case": c, "region": "WT", "dice": d} for c, d in (("a", 0.5), ("b", 0.75), ("c", 1.0))]
        >>> (row,) = summarise(rows)
        >>> row["metric"], row["n"], row["mean"]
        ('dice', 3, 0.75)
        >>> print(format_table([row]))
        region  dice
        WT      0.75 (0.75) [0.5, 1]
    """
    rows = [dict(row) for row in rows]
    if not rows:
        raise ValueError("summarise: expected at least one row, got none")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level}")
    by = tuple(by) + (("size",) if "size" not in by and any("size" in row for row in rows) else ())
    lacking = [key for key in by for row in rows if key not in row]
    if lacking:
        raise ValueError(f"by: a row has no {lacking[0]!r}, it has {', '.join(rows[0])}")
    names = _metrics(rows, by, metrics)
    table = []
    for key in dict.fromkeys(tuple(row[k] for k in by) for row in rows):
        members = [row for row in rows if tuple(row[k] for k in by) == key]
        for name in names:
            values = [(row.get("group", row.get("case")), row[name]) for row in members if row.get(name) is not None]
            if values:
                figures = _figures(values, seed, resamples, level)
                table.append(dict(zip(by, key, strict=True)) | {"metric": name} | figures)
    return table


def paired_differences(
    rows: Iterable[Row],
    baseline: Iterable[Row],
    by: Sequence[str] = ("region",),
    match: Sequence[str] = ("case", "region", "size"),
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Summarise rows minus the baseline's rows of the same case, which takes out how hard each case is.

    Args:
        rows: rows of `evaluate_case`.
        baseline: rows of another model on the same cases.
        by: keys whose values make a group.
        match: keys that make a pair; keys that no row has are left out. Add ``"seed"`` for several runs.
        metrics: keys to summarise; a value that is None on either side makes no difference.
        seed: seed of the bootstrap.
        resamples: number of draws of the bootstrap.
        level: level of the interval, in (0, 1).

    Raises:
        ValueError: rows without a partner, two rows of one key, and what `summarise` raises.
    """
    sides = []
    for name, side in (("rows", rows), ("baseline", baseline)):
        side = [dict(row) for row in side]
        keys = [key for key in match if any(key in row for row in side)]
        table = {tuple(row.get(k) for k in keys): row for row in side}
        if len(table) != len(side):
            raise ValueError(f"{name}: two rows have the same {', '.join(keys)}; name what tells them apart in match")
        sides.append(table)
    alone = sorted(map(str, set(sides[0]) ^ set(sides[1])))
    if alone:
        raise ValueError(f"paired differences: {len(alone)} rows have no partner, such as {alone[0]}")
    names = _metrics([*sides[0].values(), *sides[1].values()], by, metrics)
    differences = []
    for key, row in sides[0].items():
        values = {name: _difference(row.get(name), sides[1][key].get(name)) for name in names}
        differences.append({k: v for k, v in row.items() if k in (*NOT_METRICS, *by)} | values)
    return summarise(differences, by, names, seed, resamples, level)


def write_table(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows as CSV or JSON, by the file's ending; beside it first, then renamed.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"{path}: expected a name that ends in .csv or .json")
    text = csv_text(rows) if path.suffix == ".csv" else json.dumps([dict(row) for row in rows], indent=1) + "\n"
    replace_file(path, text)


def format_table(table: Sequence[Row], metrics: Sequence[str] | None = None, size: str | None = "all") -> str:
    """Write a table as text: a line for each group, "mean (median) [low, high]" for each metric.

    Args:
        table: rows of `summarise` or `paired_differences`.
        metrics: columns, all where not given.
        size: the size class that is shown, or None for all of them.
    """
    chosen = [row for row in table if size is None or row.get("size", size) == size]
    metrics = list(metrics or dict.fromkeys(row["metric"] for row in chosen))
    keys = [k for k in (chosen[0] if chosen else ()) if k not in _FIGURES and not (k == "size" and size is not None)]
    groups: dict[tuple, dict[str, Row]] = {}
    for row in chosen:
        groups.setdefault(tuple(str(row[k]) for k in keys), {})[row["metric"]] = row
    lines = [[*keys, *metrics]]
    lines += [[*key, *(_entry(found.get(name)) for name in metrics)] for key, found in groups.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


_FIGURES = ("metric", "n", "groups", "mean", "median", "std", "low", "high")


def _metrics(rows: Sequence[Row], by: Sequence[str], metrics: Sequence[str] | None) -> list[str]:
    known = dict.fromkeys(k for row in rows for k, v in row.items() if _is_number(v) and k not in (*NOT_METRICS, *by))
    if metrics is None:
        return list(known)
    missing = [name for name in metrics if not any(name in row for row in rows)]
    if missing:
        raise ValueError(f"metrics: no row has {', '.join(missing)}; known are {', '.join(known)}")
    return list(metrics)


def _difference(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _figures(values: Sequence[tuple[Any, float]], seed: int, resamples: int, level: float) -> dict[str, Any]:
    from scipy.stats import bootstrap

    numbers = np.array([value for _, value in values], dtype=float)
    patients = {name: i for i, name in enumerate(dict.fromkeys(group for group, _ in values))}
    index = [patients[group] for group, _ in values]
    low = high = None
    if len(patients) > 1:
        found = bootstrap(
            (np.bincount(index, numbers), np.bincount(index)),
            lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
            paired=True,  # all values of a patient are drawn together
            n_resamples=resamples,
            confidence_level=level,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
        low, high = (float(limit) for limit in found.confidence_interval)
    return {
        "n": len(numbers),
        "groups": len(patients),
        "mean": float(numbers.mean()),
        "median": float(np.median(numbers)),
        "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "low": low,
        "high": high,
    }


def _entry(row: Row | None) -> str:
    if row is None:
        return "-"
    interval = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['mean']:.3g} ({row['median']:.3g}){interval}"


def csv_text(rows: Sequence[Row]) -> str:
    """Write rows as CSV, with the keys of all of them as columns."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return buffer.getvalue()
