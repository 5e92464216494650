"""Pieces of HTML pages: text is escaped, figures stand on the right, a value that is missing is an error."""

import re

import pytest
from jinja2 import UndefinedError

from synthaug.figures.charts import variables
from synthaug.figures.html import environment, is_figures, render

EVIL = '<script>"&'
PNG = b"\x89PNG"


@pytest.fixture
def pieces():
    return environment.get_template("pieces.html").module


def test_columns_of_figures_stand_on_the_right_and_text_is_escaped(pieces):
    rows = [["<b>", 3, "0.5 [0.1, 0.9]", 1], ["c", "-", "1.2 %", "x"]]
    html = pieces.table(["name", "n", "mean", "mixed"], rows, ["bad"])
    assert re.findall(r"<th( class=\"n\")?>", html) == ["", ' class="n"', ' class="n"', ""]
    assert '<tr class="bad"><td>&lt;b&gt;</td><td class="n">3</td>' in html
    assert pieces.table(["a", "b"], []).count("<th>") == 2


@pytest.mark.parametrize(
    ("cell", "figure"),
    [
        (3, True),
        ("1,200", True),
        ("-", True),
        ("2.5 mm", True),
        ("0.5 [0.1, 0.9]", True),
        ("3 of 4", False),
        ("", True),
    ],
)
def test_which_cells_are_figures(cell, figure):
    assert is_figures([1, cell]) == figure


@pytest.mark.parametrize(
    ("piece", "values"),
    [
        ("tiles", ([(EVIL, EVIL)],)),
        ("legend", ([("#fff", EVIL)], EVIL, EVIL, EVIL)),
        ("pairs", ([(EVIL, EVIL, "sub")], "rows")),
        ("table", ([EVIL], [[EVIL]], [EVIL])),
        ("picture", (EVIL, PNG, "wide")),
        ("chart", (EVIL, "<svg></svg>", "wide")),
    ],
)
def test_every_piece_escapes_its_words(pieces, piece, values):
    html = getattr(pieces, piece)(*values)
    assert "<script>" not in html and "&lt;script&gt;&#34;&amp;" in html


def test_a_gallery_has_words_over_pictures():
    source = '{% from "pieces.html" import gallery %}'
    source += '{% call(row) gallery(["a", "b"], rows) %}<i>{{ row.name }}</i>{% endcall %}'
    html = environment.from_string(source).render(rows=[{"name": EVIL, "pictures": [("x", PNG), ("y", PNG)]}])
    assert '<td class="words" colspan="2"><i>&lt;script&gt;&#34;&amp;</i></td>' in html
    assert re.findall(r'<td class="pic"><img alt="(\w)" src="data:image/png;base64,iVBORw==">', html) == ["x", "y"]


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError, match="'about' is undefined"):
        render("cohort.html", layout="brats")


def test_a_picture_opens_into_slices_that_are_read_aloud(pieces):
    html = pieces.stack(EVIL, PNG, [("slice 1", b"\xff\xd8x"), ("slice 2", PNG)])
    assert html.count("<details") == 1 and html.count('class="slice"') == 2
    assert re.findall(r'alt="(slice \d)" src="data:image/(\w+);', html) == [("slice 1", "jpeg"), ("slice 2", "png")]
    assert "<script>" not in html
    assert "<details" not in pieces.stack("words", PNG, [])


@pytest.mark.parametrize("name", ["cohort", "demo", "fidelity", "imbalance", "profile", "run", "trial"])
def test_every_page_begins_with_a_sentence_and_its_figures(name):
    source, _, _ = environment.loader.get_source(environment, f"{name}.html")
    body = source[source.index("{% block body %}") :]
    assert re.match(r"\{% block body %\}\s*\{\{ opening\(", body), "expected the macro `opening` first"


def test_pages_are_light_and_dark_and_print():
    page = environment.from_string('{% extends "page.html" %}').render()
    assert "prefers-color-scheme: dark" in page and "@media print" in page and "viewport" in page
    light, dark = page.split("prefers-color-scheme: dark")
    assert variables(dark=False) in light and variables(dark=True) in dark
