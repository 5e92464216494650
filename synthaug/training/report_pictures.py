"""Pictures of a run's report: curves over the steps, and slices with contours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from synthaug.classes import Classes
from synthaug.evaluation.registry import followed_metrics
from synthaug.figures.charts import GRID, LINES, svg
from synthaug.figures.slices import Outline, class_colours, extent, figure, grey, jpeg, outlined, png, tinted
from synthaug.training.artefacts import CaseSlices, ExampleSlice, Stack

LONG_SIDE_PX = 300
PREFERRED = ("flair", "t1ce")

Row = Mapping[str, Any]
Series = dict[str, tuple[list[int], list[float]]]


class _Panel(NamedTuple):
    """A picture of curves: lines over the steps, what the axis measures, and whether it ends at 0 and 1."""

    title: str
    series: Series
    unit: str = ""
    is_share: bool = False


def curves(metrics: Sequence[Row], scores: Sequence[Row]) -> str | None:
    """Draw loss, learning rate, validation and insertion over the steps, as SVG; None where nothing was logged.

    Args:
        metrics: rows of ``metrics.jsonl``.
        scores: rows of all validations, with their step.
    """
    panels = [
        _Panel("Loss", top_level(metrics, ("loss",)) or top_level(metrics)),
        *(
            _Panel(f"Validation: {m.words}", validation_series(metrics, scores, m.name), m.heading, m.is_share)
            for m in followed_metrics()
        ),
        _Panel("Insertions so far", insertion_series(metrics), "lesions"),
        _Panel("Learning rate", top_level(metrics, ("lr",))),
        _Panel("Probability and adaptive weights", steering_series(metrics)),
    ]
    panels = [panel for panel in panels if panel.series]
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    drawing, _ = figure(6.4 * columns, 3.1 * lines, 110)
    edges = {"top": 1 - 0.3 / (3.1 * lines), "bottom": 0.5 / (3.1 * lines), "left": 0.07, "right": 0.985}
    grid = drawing.add_gridspec(lines, columns, hspace=0.45, wspace=0.18, **edges)
    for i, panel in enumerate(panels):
        axes = drawing.add_subplot(grid[i // columns, i % columns])
        _plot(axes, panel)
        axes.set_xlim(0, 1.02 * max(row["step"] for row in metrics) or 1)
    return svg(drawing)


def top_level(metrics: Sequence[Row], names: Sequence[str] = ()) -> Series:
    """Collect numbers that stand in the rows themselves; all but counters and times where no names are given."""
    wanted = names or dict.fromkeys(k for row in metrics for k, v in row.items() if _is_number(v) and k not in _ASIDE)
    return _series(metrics, wanted, lambda row, name: row.get(name))


_ASIDE = ("step", "seconds_per_step", "skipped", "skipped_steps", "samples", "processes", "lr", "grad_norm")


def validation_series(metrics: Sequence[Row], scores: Sequence[Row], metric: str) -> Series:
    """Average over the cases of each region; from the rows of the cases where they were kept, else from the log."""
    chosen = [row for row in scores if row["size"] == "all" and row.get(metric) is not None]
    if not chosen:
        logged = dict.fromkeys(name for row in metrics for name in (row.get("validation") or {}).get(metric, {}))
        return _series(metrics, logged, lambda row, name: (row.get("validation") or {}).get(metric, {}).get(name))
    regions = [row["region"] for row in chosen if row["kind"] == "region"] or [row["region"] for row in chosen]
    series: Series = {}
    for region in dict.fromkeys(regions):
        mine = [row for row in chosen if row["region"] == region]
        steps = sorted({row["step"] for row in mine})
        series[region] = steps, [float(np.mean([r[metric] for r in mine if r["step"] == s])) for s in steps]
    return series


def insertion_series(metrics: Sequence[Row]) -> Series:
    """Collect the insertions asked for and done since the start."""
    return _series(metrics, ("asked", "done"), lambda row, name: (row.get("insertion") or {}).get(name))


def steering_series(metrics: Sequence[Row]) -> Series:
    """Collect the scheduled probability and the weights of adaptive insertion, where they were logged."""
    weights = dict.fromkeys(name for row in metrics for name in (row.get("adaptive") or {}).get("weights", {}))
    steered = _series(metrics, weights, lambda row, name: (row.get("adaptive") or {}).get("weights", {}).get(name))
    return top_level(metrics, ("prob",)) | steered


def _series(metrics: Sequence[Row], names: Iterable[str], get: Callable[[Row, str], Any]) -> Series:
    """Collect the points of each line that has any, where `get` finds a number of that name in a row."""
    found: Series = {}
    for name in names:
        points = [(row["step"], float(get(row, name))) for row in metrics if _is_number(get(row, name))]
        if points:
            found[name] = [step for step, _ in points], [value for _, value in points]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plot(axes: Any, panel: _Panel) -> None:
    series = panel.series
    for (name, (steps, values)), colour in zip(series.items(), LINES * (1 + len(series) // len(LINES)), strict=False):
        axes.plot(steps, values, color=colour, lw=1.7, label=name, marker="o" if len(steps) < 15 else None, ms=3.5)
    if panel.is_share:
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(panel.title, fontsize=10.5, loc="left")
    axes.set_ylabel(panel.unit, fontsize=9)
    axes.set_xlabel("training step", fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8, ncols=2 if len(series) > 4 else 1)


# ------------------------------------------------------------------------------------------------- slices


def shown_channels(channels: Sequence[str]) -> list[int]:
    """Choose the positions of two channels to show: FLAIR and T1ce where there are, else the first ones."""
    preferred = [list(channels).index(name) for name in PREFERRED if name in channels]
    return (preferred + [c for c in range(len(channels)) if c not in preferred])[:2]


def case_pictures(slices: CaseSlices, n: int, classes: Classes, channels: Sequence[str]) -> list[tuple[str, bytes]]:
    """Draw slice `n` of a case: its channels, the truth and the prediction, which has the truth's outline in white."""
    cut = _Cut(slices.tissue[n], slices.levels)
    shown = shown_channels(channels)
    greys = [cut.grey(slices.image[n, c], c) for c in shown]
    truth, found = (cut(x[n]) for x in (slices.label, slices.prediction))
    around = Outline(truth != 0, "white", dashed=True, width=1.2)
    z = f"axial slice {slices.z[n]}"
    return [
        *((f"{channels[c]}, {z}", jpeg(g)) for c, g in zip(shown, greys, strict=True)),
        (f"truth, {z}", png(outlined(greys[-1], _class_outlines(truth, classes), cut.zoom))),
        (f"prediction, {z}", png(outlined(greys[-1], [*_class_outlines(found, classes), around], cut.zoom))),
    ]


def example_pictures(example: ExampleSlice, classes: Classes, channels: Sequence[str]) -> list[tuple[str, bytes]]:
    """Draw a sample's channels before and after insertion, and its label; the host's own is dashed in white."""
    cut = _Cut(example.tissue, example.levels)
    pictures = []
    for c in shown_channels(channels):
        for when, image in (("before", example.before), ("after", example.after)):
            last = cut.grey(image[c], c)
            pictures.append((f"{channels[c]} {when}, axial slice {example.z}", jpeg(last)))
    own = Outline(cut(example.label_before) != 0, "white", dashed=True, width=1.3)
    label = outlined(last, [*_class_outlines(cut(example.label_after), classes), own], cut.zoom)
    return [*pictures, (f"label, axial slice {example.z}", png(label))]


def stack_pictures(
    stack: Stack | None, which: int, name: str, classes: Classes, channels: Sequence[str]
) -> list[tuple[str, bytes]]:
    """Draw the slices of a stack, from below to above, in the last channel shown, with a label's classes tinted.

    Args:
        stack: slices through lesions; no pictures of None.
        which: the label of the stack.
        name: of that label, as words that stand for the pictures.
        classes: vocabulary of the label.
        channels: names of the image's channels.

    Returns:
        Text and JPEG bytes of each.
    """
    if stack is None or not len(stack.z):
        return []
    c = shown_channels(channels)[-1]
    cut = _Cut(np.logical_or.reduce(stack.tissue), np.tile([0, 255], (len(channels), 1)))
    colours = class_colours(classes.names)
    tints = {value: colours[class_name] for class_name, value in classes.values.items()}
    pictures = []
    for z, image, tissue, label in zip(stack.z, stack.image, stack.tissue, stack.labels[which], strict=True):
        plain = cut.grey(image[c] * tissue, c)
        pictures.append((f"{name}, axial slice {z}", jpeg(tinted(plain, cut(label), tints, cut.zoom))))
    return pictures


class _Cut:
    """The part of a slice that is tissue, turned as it is shown."""

    def __init__(self, tissue: np.ndarray, levels: np.ndarray):
        inside = tissue if tissue.any() else np.ones_like(tissue)
        self.box = extent(inside.any(1)), extent(inside.any(0))
        self.inside, self.levels = self(inside), levels
        self.zoom = max(1, round(LONG_SIDE_PX / max(self.inside.shape)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.rot90(values[self.box])

    def grey(self, values: np.ndarray, channel: int) -> np.ndarray:
        low, high = self.levels[channel]
        return grey(self(values).astype(np.float32), self.inside, low, high, self.zoom)


def _class_outlines(label: np.ndarray, classes: Classes) -> list[Outline]:
    colours = class_colours(classes.names)
    return [Outline(label == value, colours[name], fill=0.28) for name, value in classes.values.items()]
