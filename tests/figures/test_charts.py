"""Charts are SVG whose colours are the page's, readable on light and on dark, whatever the words in them."""

import re
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np
import pytest

from synthaug.figures.charts import BLUE, COLOURS, GRID, LINES, line_colour, luminance, on_colour, svg
from synthaug.figures.slices import COLOURS as OF_CLASSES
from synthaug.figures.slices import PALETTE, figure, rgb


def full(colour: str) -> str:
    """Write ``#abc`` as ``#aabbcc``."""
    return colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])


SHEET = files("synthaug.figures").joinpath("pages.css").read_text(encoding="utf-8")
SETS = [dict(re.findall(r"--(\w+): (#\w+);", line)) for line in SHEET.splitlines() if ":root" in line]
"""Colours of words and grounds of a page, light and dark."""
GROUNDS = [(full(values["card"]), full(values["ground"])) for values in SETS]


def contrast(first: str, second: str) -> float:
    low, high = sorted(luminance(rgb(colour)) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("values", SETS, ids=["light", "dark"])
def test_words_of_a_page_are_read(values):
    for name in ("ink", "soft", "accent", "warn"):
        assert min(contrast(full(values[name]), full(values[ground])) for ground in ("card", "ground")) >= 4.5, name
    assert contrast(full(values["ink"]), full(values["note"])) >= 4.5


@pytest.fixture
def drawn():
    drawing, _ = figure(6, 3, 100)
    axes = drawing.add_subplot()
    axes.plot([0, 1], color=BLUE, label="<a> & b")
    axes.imshow(np.eye(3), cmap="magma", interpolation="none")
    axes.grid(color=GRID)
    axes.set_title("Loss")
    axes.legend(frameon=False)
    return drawing


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", [name for name in COLOURS if name != "grid"])
def test_every_colour_stands_out_from_its_ground(name):
    for value, grounds in zip(COLOURS[name], GROUNDS, strict=True):
        assert min(contrast(value, ground) for ground in grounds) >= 4.5


def test_every_class_has_a_colour_of_its_own_in_charts():
    outlines = {*OF_CLASSES.values(), *PALETTE}
    assert len({line_colour(colour) for colour in outlines}) == len(outlines)
    assert len(set(LINES)) == len(LINES)


def test_colours_of_the_page_and_words_as_text(drawn):
    text = svg(drawn)
    assert text.startswith('<svg width="576" height="288" viewBox="0 0 432 216">') and text.endswith("</svg>\n")
    assert "stroke: var(--chart-blue)" in text and "stroke: var(--chart-grid)" in text
    assert not re.search("#000000|#ffffff|" + "|".join(light for light, _ in COLOURS.values()), text)
    assert ">Loss</text>" in text and "&lt;a&gt; &amp; b</text>" in text
    assert "<style" not in text and "http" not in text


def test_it_is_the_same_again_and_has_each_name_once(drawn):
    text = svg(drawn)
    assert svg(drawn) == text
    named = re.findall(r' id="([^"]*)"', text)
    used = re.findall(r'(?:url\(#|href="#)([^")]*)', text)
    assert len(named) == len(set(named)) and set(used) <= set(named) and used
    ElementTree.fromstring(text.replace("<svg", '<svg xmlns:xlink="x"', 1))


def test_words_on_colours_are_read():
    for ground in ((1.0, 1.0, 0.6, 1.0), (0.0, 0.4, 0.2, 1.0), (0.65, 0.0, 0.15, 1.0)):
        value = "#" + "".join(f"{round(255 * share):02x}" for share in ground[:3])
        assert contrast(on_colour(ground), value) >= 4.5
