"""Charts as SVG inside a page: text and lines in colours that have one value on a light page and one on a dark page.

Charts are drawn with the light values, named here; `svg` writes each as the variable that ``page.html`` sets for light
and for dark.
"""

import io
import re

import numpy as np

COLOURS = {
    "ink": ("#17222e", "#e4ebf2"),
    "soft": ("#516171", "#a5b4c3"),
    "grid": ("#dde4eb", "#2c3a48"),
    "blue": ("#1f5fa8", "#7db8ff"),
    "orange": ("#b93f08", "#ff6a2b"),
    "green": ("#12764c", "#4bd39a"),
    "violet": ("#7a45bd", "#c39bff"),
    "yellow": ("#7a6400", "#f0e442"),
    "pink": ("#b81f6e", "#ff5fb0"),
    "grey": ("#5a6a7b", "#b8c4d0"),
    "sky": ("#0f6a9e", "#56b4e9"),
}
"""Light and dark value of each colour; all but that of grid lines stand out from their ground by 4.5 : 1 or more. The
dark value of a class is that of its outlines on slices."""

INK, SOFT, GRID, BLUE, ORANGE, GREEN, VIOLET, YELLOW, PINK, GREY, SKY = (light for light, _ in COLOURS.values())
LINES = (BLUE, ORANGE, GREEN, VIOLET, YELLOW, PINK, GREY)
"""Colours of lines, in order."""

_ASIDE = re.compile(r"<!--.*?-->|<style.*?</style>", re.S)
_ID_OF_GROUP = re.compile(r'(<g) id="[^"]*"')
_HEAD = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')
_PX_PER_PT = 4 / 3


def line_colour(of_outlines: str) -> str:
    """Give the colour of lines and bars of a class whose outlines on slices have that colour."""
    return next(light for light, dark in COLOURS.values() if dark == of_outlines)


def variables(dark: bool) -> str:
    """Write the declarations of all colours, as a style sheet has them."""
    return " ".join(f"--chart-{name}: {values[dark]};" for name, values in COLOURS.items())


def svg(drawing) -> str:
    """Write a figure as an ``<svg>`` element without a ground of its own, for the macro ``chart`` of ``pieces.html``.

    Text stays text. Black and the light values of `COLOURS` become variables of the page; others and pictures stay.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "synthaug"}):
        drawing.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = _HEAD.sub(_head, _ASIDE.sub("", text[text.index("<svg") :]), count=1)
    text = _ID_OF_GROUP.sub(r"\1", text).replace("#000000", INK)
    for name, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--chart-{name})")
    return re.sub(r"\s*\n\s*", "\n", text)


def _head(found: re.Match) -> str:
    """Write the first tag: what is measured in points is shown as large as on paper where there is room."""
    width, height = (float(size) for size in found.groups())
    size = f'width="{width * _PX_PER_PT:.0f}" height="{height * _PX_PER_PT:.0f}"'
    return f'<svg {size} viewBox="0 0 {width:g} {height:g}">'


def on_colour(colour: tuple[float, ...]) -> str:
    """Choose almost black or white for words on a ground of that colour, (R, G, B, ...) of 0 to 1, on any page."""
    return "#111111" if luminance(np.asarray(colour[:3]) * 255) > 0.18 else "#ffffff"


def luminance(colour: np.ndarray) -> float:
    """Compute the relative luminance of a colour (3,) of 0 to 255, as WCAG defines it."""
    share = np.asarray(colour) / 255
    return float(np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))
