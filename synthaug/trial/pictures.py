"""Pictures of a trial: a dot for each patient, and where false regions lie."""

from collections.abc import Mapping

import numpy as np

from synthaug.figures.slices import figure, rendered
from synthaug.trial.results import ArmResult

BINS = 12
VIEWS = ((2, "from above"), (1, "from the front"), (0, "from the side"))
DOT, MEAN = "#1f5fa8", "#17222e"


def patient_dots(arms: Mapping[str, ArmResult]) -> bytes:
    """Draw each patient's difference of the endpoint as a dot, and each arm's mean with its corrected interval, PNG."""
    drawing, canvas = figure(11, 1.1 + 0.7 * len(arms), 100)
    axes = drawing.add_axes((0.16, 0.5 / (1.1 + 0.7 * len(arms)), 0.81, 0.7 * len(arms) / (1.1 + 0.7 * len(arms))))
    reach = max(abs(value) for result in arms.values() for value in [*result.patients.values(), result.found.mean])
    reach = 1.25 * reach or 1.0
    for number, result in enumerate(arms.values()):
        values = np.array([*result.patients.values()])
        spread = np.random.default_rng(0).uniform(-0.14, 0.14, len(values))
        axes.plot(values, number + spread, "o", color=DOT, alpha=0.55, ms=6, mew=0)
        low, high = max(result.found.low, -2 * reach), min(result.found.high, 2 * reach)
        axes.plot([low, high], [number, number], color=MEAN, lw=1.6)
        axes.plot(result.found.mean, number, "|", color=MEAN, ms=18, mew=2.2)
    axes.axvline(0, color="#8a97a5", lw=1, ls="dashed")
    axes.set_yticks(range(len(arms)), [*arms])
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return rendered(drawing, canvas)


def false_region_map(places: Mapping[str, np.ndarray], scored: int) -> bytes:
    """Draw how many false regions lie where, a row for each arm, seen along the patient's axes, PNG.

    Args:
        places: arm to (N, 3) host coordinates.
        scored: number of scored predictions of each arm, by which the counts are divided.
    """
    counts = {arm: _counts(values) / max(scored, 1) for arm, values in places.items()}
    top = max(max(count.sum(axis).max() for axis, _ in VIEWS) for count in counts.values()) or 1.0
    drawing, canvas = figure(10, 3.1 * len(places), 80)
    grid = drawing.subplots(len(places), 3, squeeze=False)
    for row, (arm, count) in zip(grid, counts.items(), strict=True):
        for axes, (axis, name) in zip(row, VIEWS, strict=True):
            shown = axes.imshow(count.sum(axis).T, origin="lower", cmap="magma", vmin=0, vmax=top)
            axes.set_title(f"{arm}, {name}", fontsize=10, loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
    drawing.colorbar(shown, ax=grid, fraction=0.02, label="false regions per prediction")
    return rendered(drawing, canvas)


def _counts(values: np.ndarray) -> np.ndarray:
    """Count places in a grid of the host's box; those beyond it belong to its rim."""
    return np.histogramdd(values.clip(0, 1), bins=(BINS,) * 3, range=((0, 1),) * 3)[0]
