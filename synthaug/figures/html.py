"""HTML pages from the templates beside this module: one style, pictures inside, no script, no other file needed.

Each page begins with one sentence and up to five figures (`opening` in ``pieces.html``).
"""

import base64
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from synthaug.figures.charts import variables

_FIGURE = re.compile(r"-?|-?[\d.,]+( ?(%|mm|ml))?( \[[-\d., ]+\])?")
"""A cell that is a number, with its unit or its interval, or that says that there is none."""


def render(template: str, **values: Any) -> str:
    """Render a whole page.

    Args:
        template: name of the template in ``figures/templates``.
        values: values that the template shows; text is escaped, a name that is missing is an error.
    """
    return environment.get_template(template).render(values)


def is_figures(column: Iterable[Any]) -> bool:
    """Tell whether all cells of a table's column are figures, which stand on the right."""
    return all(_FIGURE.fullmatch(str(cell)) for cell in column)


def data_uri(picture: bytes) -> str:
    """Encode the bytes of a PNG or JPEG file as a ``data:`` address."""
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _style() -> str:
    """Read the style sheet, with the colours of charts for light and for dark."""
    sheet = files("synthaug.figures").joinpath("pages.css").read_text(encoding="utf-8")
    return sheet.replace("/* light */", variables(dark=False)).replace("/* dark */", variables(dark=True))


environment = Environment(
    loader=PackageLoader("synthaug.figures"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Where templates are found; ``pieces.html`` has the macros that several pages use."""

environment.globals["style"] = Markup(_style())
environment.tests["figures"] = is_figures
environment.filters["data_uri"] = data_uri
