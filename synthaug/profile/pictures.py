"""Pictures of a profile: cases with their host tissue, sizes, places and intensities of lesions."""

from collections.abc import Sequence

import numpy as np

from synthaug.data.cases import Case
from synthaug.figures.charts import GREEN, GREY, ORANGE, YELLOW, svg
from synthaug.figures.slices import Outline, axial, figure, grey, jpeg, outlined, png, through, tinted
from synthaug.profile.measure import Look
from synthaug.profile.profile import Profile
from synthaug.profile.specimens import with_host

SHOWN = 4
HEIGHT = 260
LESION, HOST, AROUND, TISSUE = ORANGE, GREEN, YELLOW, GREY


def case_pictures(profile: Profile, cases: Sequence[Case]) -> list[tuple[str, bytes, list[tuple[str, bytes]]]]:
    """Draw some cases: name, the slice with most lesion (host tissue green, lesion orange), slices through lesions."""
    step = max(1, len(cases) // SHOWN)
    return [(case.name, *_case(profile, case)) for case in list(cases)[::step][:SHOWN]]


def _case(profile: Profile, case: Case) -> tuple[bytes, list[tuple[str, bytes]]]:
    volume, host = with_host(case, profile)
    lesion = profile.classes.index_map(volume.label) > 0
    z = int(lesion.sum((0, 1)).argmax()) if lesion.any() else lesion.shape[2] // 2
    values, tissue = axial(volume.image[0], z), axial(host, z)
    low, high = np.percentile(values[tissue] if tissue.any() else values, (0.5, 99.5))
    width = high - low
    zoom = max(1, round(HEIGHT / values.shape[0]))
    levels = low - 0.3 * width, high + 0.3 * width
    background = grey(values, np.ones_like(tissue), *levels, zoom)
    outlines = [Outline(tissue, "#4bd39a", fill=0.12, width=1.0), Outline(axial(lesion, z), "#ff6a2b", width=1.6)]
    slices = []
    for n in through(lesion.any((0, 1))):
        plain = grey(axial(volume.image[0], n), np.ones_like(tissue), *levels, zoom)
        slices.append(
            (f"axial slice {n} with the lesions", jpeg(tinted(plain, axial(lesion, n), {1: "#ff6a2b"}, zoom)))
        )
    return png(outlined(background, outlines, zoom)), slices


def measurements(profile: Profile, look: Look) -> str:
    """Draw sizes, how many lesions a case has, where they lie, and intensities, as SVG."""
    channels = profile.names
    rows = 1 + -(-len(channels) // 3)
    drawing, _ = figure(14, 4.1 * rows, 100)
    grid = drawing.add_gridspec(rows, 12, left=0.05, right=0.985, top=0.93, bottom=0.1, hspace=0.45, wspace=1.4)
    _sizes(drawing.add_subplot(grid[0, :4]), profile, look)
    _places(drawing, [grid[0, start : start + 2] for start in (5, 7, 9)], profile)
    for number, name in enumerate(channels):
        axes = drawing.add_subplot(grid[1 + number // 3, 4 * (number % 3) : 4 * (number % 3) + 4])
        _intensities(axes, profile, look, name)
    return svg(drawing)


def _sizes(axes, profile: Profile, look: Look) -> None:
    diameters = [lesion.diameter_mm for lesion in look.places]
    axes.hist(diameters, bins=min(24, max(6, len(diameters) // 2)), color=LESION)
    counts = ", ".join(f"{n} cases with {k}" for k, n in enumerate(profile.sizes.per_case) if n)
    axes.set_title(f"Lesions by diameter, mm ({counts})", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _places(drawing, places, profile: Profile) -> None:
    frequency = profile.where.places.grid
    for place, axis, name in zip(places, (2, 1, 0), ("from above", "from the front", "from the side"), strict=True):
        axes = drawing.add_subplot(place)
        axes.imshow(frequency.sum(axis).T, origin="lower", cmap="magma", aspect="equal", interpolation="none")
        axes.set_title(f"Where, {name}", fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])


def _intensities(axes, profile: Profile, look: Look, name: str) -> None:
    stored = name in profile.units.fixed
    groups: dict[str, tuple[str, list[np.ndarray]]] = {
        "host": (TISSUE, []),
        "around lesions": (AROUND, []),
        "lesions": (LESION, []),
    }
    for host, *others in zip(look.host[name], look.around[name], look.lesion[name], strict=True):
        own = host[:, 0]
        # patients' scales differ by what the scanner did, unless the channel has units
        mean, spread = (0.0, 1.0) if stored or not len(own) else (own.mean(), own.std() or 1.0)
        for (_, found), raw in zip(groups.values(), (own, *others), strict=True):
            found.append((raw - mean) / spread)
    low, high = np.percentile(np.concatenate([v for _, found in groups.values() for v in found]), (0.5, 99.5))
    for word, (colour, found) in groups.items():
        if len(drawn := np.concatenate(found)):
            bins = np.linspace(low, high, 60)
            axes.hist(drawn, bins=bins, density=True, histtype="step", lw=1.8, color=colour, label=word)
    for bound in profile.host.range.get(name, ()) if stored else ():
        if bound is not None:
            axes.axvline(bound, color=HOST, ls="dashed", lw=1.2)
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=8)
    unit = "as stored" if stored else "in standard deviations of the host's tissue"
    axes.set_title(f"{name}, {unit}", fontsize=10, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
