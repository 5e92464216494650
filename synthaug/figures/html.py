"""Pieces of the HTML reports: one page with pictures and style inside, without scripts, that needs no other file."""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

Cell = object


def page(title: str, body: str, footer: str) -> str:
    """A whole page.

    Args:
        title: plain text of the browser's title bar.
        body: HTML; `section` makes its parts.
        footer: HTML of the last line.
    """
    style = files("synthaug.figures").joinpath("pages.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body><main>\n{body}\n"
        f"<footer>{footer}</footer>\n</main></body>\n</html>\n"
    )


def section(title: str, body: str) -> str:
    """A titled box; `title` is plain text, `body` HTML."""
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """A row of large figures, (figure, words) both as HTML."""
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{words}</span></div>' for value, words in items)
    return f'<div class="tiles">{cells}</div>'


def legend(items: Iterable[tuple[str, str]], title: str = "", rest: str = "") -> str:
    """Colour patches with words, (CSS style, HTML) each, after an optional title and before an optional remark."""
    swatches = "".join(f'<span><i style="{style}"></i>{words}</span>' for style, words in items)
    head = f"<b>{title}</b>" if title else ""
    return f'<div class="legend">{head}{swatches}<span>{rest}</span></div>\n'


def pairs(rows: Iterable[tuple[str, Cell, str]], name: str) -> str:
    """A table of two columns, (HTML, number or text, CSS class of the row) each; `name` is its id."""
    cells = "".join(f'<tr class="{kind}"><td>{words}</td><td class="n">{n}</td></tr>' for words, n, kind in rows)
    return f'<table class="data" id="{name}">{cells}</table>'


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], kinds: Sequence[str] = (), name: str = "") -> str:
    """A table with a head; cells are plain values and are escaped, columns of figures stand on the right.

    Args:
        head: titles of the columns.
        rows: cells, as many as `head` has.
        kinds: CSS class of each row, such as ``"refused"``; none where shorter.
        name: its id.
    """
    rows = [[str(value) for value in row] for row in rows]
    columns = zip(*rows, strict=True) if rows else ([""],) * len(head)
    sides = [' class="n"' if rows and all(map(_FIGURES.fullmatch, column)) else "" for column in columns]
    body = ""
    for i, row in enumerate(rows):
        kind = f' class="{kinds[i]}"' if i < len(kinds) and kinds[i] else ""
        body += f"<tr{kind}>{''.join(f'<td{s}>{escape(c)}</td>' for s, c in zip(sides, row, strict=True))}</tr>"
    titles = "".join(f"<th{side}>{escape(h)}</th>" for side, h in zip(sides, head, strict=True))
    identity = f' id="{name}"' if name else ""
    return f'<table class="data"{identity}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


_FIGURES = re.compile(r"-?|-?[\d.,]+( ?(%|mm|ml))?( \[[-\d., ]+\])?")
"""A cell that is a number, with its unit or its interval, or that says that there is none."""


def gallery(columns: Sequence[str], rows: Iterable[str], ratio: str = "1") -> str:
    """Rows of pictures under their titles; `rows` of `picture_row`, `ratio` is the pictures' CSS aspect-ratio."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table class="gallery" style="--shape:{ratio}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def picture_row(words: str, pictures: Sequence[tuple[str, bytes]]) -> str:
    """Words (HTML) over a row of pictures, (text that stands for the picture, PNG) each."""
    cells = "".join(f'<td class="pic">{image(text, png)}</td>' for text, png in pictures)
    return f'<tr><td class="words" colspan="{len(pictures)}">{words}</td></tr>\n<tr>{cells}</tr>'


def image(text: str, png: bytes, kind: str = "") -> str:
    """A picture inside the page; `text` is read where it cannot be seen, `kind` its CSS class (``"curve"``)."""
    css = f'class="{kind}" ' if kind else ""
    return f'<img {css}alt="{escape(text)}" src="{data_uri(png)}">'


def data_uri(png: bytes) -> str:
    """PNG bytes as a ``data:`` address."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
