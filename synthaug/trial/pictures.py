"""Pictures of a trial: differences of each patient, and maps of false regions."""

from collections.abc import Mapping, Sequence

import numpy as np

from synthaug.figures.charts import BLUE, ORANGE, SOFT, svg
from synthaug.figures.slices import figure
from synthaug.lesions.places import PlaceFrequency
from synthaug.trial.false_regions import RegionMap

VIEWS = ((2, "from above"), (1, "from the front"), (0, "from the side"))


def patient_differences(arms: Mapping[str, Mapping[str, Sequence[float]]], intervals: Mapping[str, tuple]) -> str:
    """Draw a panel for each arm, as SVG: a row for each patient, a point for each rotation, their mean a line.

    Args:
        arms: arm to patient to its differences of the endpoint.
        intervals: arm to ends of the interval of the mean, infinite where it is not known.
    """
    patients = sorted({patient for of_arm in arms.values() for patient in of_arm})
    shown = [v for of_arm in arms.values() for values in of_arm.values() for v in values]
    shown += [end for ends in intervals.values() for end in ends if np.isfinite(end)]
    widest = max(0.02, *map(abs, shown))
    drawing, _ = figure(1.8 + 3.6 * len(arms), 1.0 + 0.24 * len(patients), 110)
    panels = drawing.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, (arm, of_arm) in zip(panels, arms.items(), strict=True):
        low, high = intervals[arm]
        if np.isfinite(low):
            axes.axvspan(low, high, color=BLUE, alpha=0.15, lw=0)
        axes.axvline(0, color=SOFT, lw=1)
        for row, patient in enumerate(patients):
            values = of_arm.get(patient, ())
            axes.plot(values, [row] * len(values), "o", color=ORANGE, ms=4, alpha=0.6, mew=0)
            if len(values):
                axes.plot([np.mean(values)] * 2, [row - 0.35, row + 0.35], color=BLUE, lw=2)
        axes.set_xlim(-1.1 * widest, 1.1 * widest)
        axes.set_yticks(range(len(patients)), patients)
        axes.tick_params(labelsize=8)
        axes.set_title(arm, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    drawing.tight_layout()
    return svg(drawing)


def false_region_maps(maps: Mapping[str, RegionMap], lesions: RegionMap) -> str:
    """Draw where false regions lie in each arm, beside the places of true lesions, as SVG.

    A row for each arm, seen along the patient's axes; in all of them the same shade is the same number per case.
    """
    rows = {"true lesions": lesions, **{f"false, {arm}": found for arm, found in maps.items()}}
    drawing, _ = figure(7.6, 2.5 * len(rows), 100)
    panels = drawing.subplots(len(rows), 3, squeeze=False)
    grids = {name: found.grid() for name, found in rows.items()}
    brightest = max(
        (grid.sum(axis).max() for name, grid in grids.items() if name != "true lesions" for axis in range(3))
    )
    outline = PlaceFrequency.of_points([place[None] for place in lesions.places]).grid if len(lesions.places) else None
    for line, (name, grid) in zip(panels, grids.items(), strict=True):
        for axes, (axis, view) in zip(line, VIEWS, strict=True):
            top = None if name == "true lesions" else max(brightest, 1e-9)
            axes.imshow(
                grid.sum(axis).T,
                origin="lower",
                cmap="magma",
                vmin=0,
                vmax=top,
                extent=(0, 1, 0, 1),
                aspect="equal",
                interpolation="none",
            )
            if outline is not None:
                flat = outline.sum(axis).T
                middle = (np.arange(len(flat)) + 0.5) / len(flat)
                axes.contour(middle, middle, flat, levels=[flat.max() / 2], colors="#4bd39a", linewidths=1)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"{name}, {view}" if axis == 2 else view, fontsize=9, loc="left")
    drawing.tight_layout()
    return svg(drawing)
