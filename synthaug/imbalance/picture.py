"""The picture of an imbalance: volumes, sizes, cases and intensities on one page."""

from typing import TYPE_CHECKING

import numpy as np

from synthaug.figures.charts import BLUE, ORANGE, SOFT, line_colour, on_colour
from synthaug.figures.slices import class_colours, figure
from synthaug.imbalance.measure import HOST, Measurements
from synthaug.imbalance.separability import ClassPair, find_pair
from synthaug.imbalance.suggestion import Suggestion
from synthaug.sizes import SizeClasses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CASES = 40


def draw(
    measured: Measurements, pairs: list[ClassPair], suggestion: Suggestion, sizes: SizeClasses | None = None
) -> "Figure":
    """Draw the picture, a figure of matplotlib in the colours of a light page."""
    drawing, _ = figure(14, 11, 110)
    grid = drawing.add_gridspec(3, 12, left=0.05, right=0.985, top=0.95, bottom=0.06, hspace=0.5, wspace=1.6)
    colours = {name: line_colour(c) for name, c in class_colours(measured.classes.names).items()} | {HOST: SOFT}
    _volumes(drawing.add_subplot(grid[0, :4]), measured, colours)
    _sizes(drawing.add_subplot(grid[0, 4:8]), measured, suggestion, sizes or SizeClasses())
    _separability(drawing.add_subplot(grid[0, 8:]), measured, pairs)
    _cases(drawing.add_subplot(grid[1, :]), measured, colours)
    columns = grid[2, :].subgridspec(1, len(measured.channels), wspace=0.12)
    for c, name in enumerate(measured.channels):
        _intensities(drawing.add_subplot(columns[0, c]), measured, c, name, colours)
    return drawing


def _volumes(axes, measured: Measurements, colours: dict[str, str]) -> None:
    names = [*measured.classes.names, HOST]
    values = [*measured.ml.sum(0), measured.host_ml.sum()]
    axes.bar(names, values, color=[colours[name] for name in names])
    axes.set_yscale("log")
    positive = [v for v in values if v > 0]
    axes.set_ylim(min(positive) / 4, max(positive) * 4)
    for x, value in enumerate(values):
        text = f"{value:,.0f} ml" if value >= 1 else f"{value:.2f} ml"
        share = "" if x == len(values) - 1 else f"\n{value / sum(values[:-1]):.0%}"
        axes.text(x, max(value, min(positive) / 3) * 1.1, text + share, ha="center", va="bottom", fontsize=8)
    _plain(axes, f"Volume of all {len(measured.cases)} cases (log)", "ml")


def _sizes(axes, measured: Measurements, suggestion: Suggestion, sizes: SizeClasses) -> None:
    real = np.array([lesion.diameter_mm for lesion in measured.lesions])
    largest = max([*real, 1.0])
    edges = np.linspace(0, np.ceil(largest / 5) * 5, 1 + max(8, min(24, int(largest // 5))))
    axes.hist(real, edges, color=BLUE, alpha=0.85, label=f"real lesions ({len(real)})")
    drawn = suggestion.diameters_mm
    if len(drawn):
        weights = np.full(len(drawn), len(real) / len(drawn))
        axes.hist(drawn, edges, weights=weights, histtype="step", lw=2, color=ORANGE, label="as many inserted ones")
    for edge in sizes.edges_mm:
        axes.axvline(edge, color=SOFT, lw=1, ls="dashed")
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    axes.set_xlabel("diameter of the sphere of equal volume, mm", fontsize=9)
    _plain(axes, "Whole lesions by size", "lesions")


def _separability(axes, measured: Measurements, pairs: list[ClassPair]) -> None:
    names = [name for name in (*measured.classes.names, HOST) if measured.samples.get(name)]
    table = np.full((len(names), len(names)), np.nan)
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            pair = find_pair(pairs, first, second) if i != j else None
            table[i, j] = np.nan if pair is None else pair.auc
    shades = axes.imshow(table, cmap="RdYlGn", vmin=0.5, vmax=1, aspect="auto", interpolation="none")
    for i in range(len(names)):
        for j in range(len(names)):
            if np.isfinite(table[i, j]):
                words = on_colour(shades.cmap(shades.norm(table[i, j])))
                axes.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=9, color=words)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Told apart by intensity, all channels (AUC)", fontsize=10.5, loc="left")
    axes.tick_params(labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)


def _cases(axes, measured: Measurements, colours: dict[str, str]) -> None:
    order = np.argsort(-measured.ml.sum(1))[:MOST_CASES]
    names = [list(measured.cases)[i] for i in order]
    bottom = np.zeros(len(order))
    for k, name in enumerate(measured.classes.names):
        values = measured.ml[order, k]
        axes.bar(range(len(order)), values, bottom=bottom, color=colours[name], label=name, width=0.75)
        bottom += values
    axes.set_xticks(range(len(order)), names, rotation=20 if len(order) < 16 else 60, ha="right", fontsize=8)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper right")
    shown = "" if len(measured.cases) <= MOST_CASES else f", the largest {MOST_CASES}"
    _plain(axes, f"Tumour volume by case{shown}", "ml")


def _intensities(axes, measured: Measurements, channel: int, name: str, colours: dict[str, str]) -> None:
    values = {n: np.concatenate(s)[:, channel] for n, s in measured.samples.items()}
    low, high = np.percentile(np.concatenate(list(values.values())), (0.5, 99.5))
    edges = np.linspace(low, max(high, low + 1e-3), 61)
    for label, found in values.items():
        density = np.histogram(found, edges, density=True)[0]
        density = np.convolve(density, np.ones(3) / 3, mode="valid")
        axes.plot((edges[1:-2] + edges[2:-1]) / 2, density, color=colours[label], lw=1.8, label=label)
    axes.set_yticks([])
    axes.set_xlabel("standard deviations of the case's host tissue", fontsize=8)
    if channel == 0:
        axes.legend(frameon=False, fontsize=8)
    _plain(axes, f"Intensity, {name}", "")


def _plain(axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
