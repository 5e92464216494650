"""NiiVue as the package ipyniivue ships it, with its class given out; nothing is downloaded."""

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_MADE = re.compile(rb'"Creating new Niivue instance"\);.{0,200}?=new ([\w$]+)\(')
"""Where the widget makes the viewer: the name that bundling gave to NiiVue's class."""

_READ = re.compile(rb"async addVolumesFromUrl\(.{0,3000}?=await ([\w$]+)\.loadFromUrl\(")
"""Where the viewer reads an image: the name of the images' class."""


def niivue_module() -> bytes:
    """Read the widget's JavaScript module, with an export of the classes ``Niivue`` and ``NVImage`` added.

    Raises:
        ModuleNotFoundError: ipyniivue is not installed.
        ValueError: a version of ipyniivue in which a class is not where it is looked for.
    """
    spec = find_spec("ipyniivue")  # found, not imported: that would take a second and import Jupyter's widgets
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the viewer needs ipyniivue, which has NiiVue's JavaScript")
    script = (Path(spec.origin).parent / "static" / "widget.js").read_bytes()
    viewer, image = _MADE.search(script), _READ.search(script)
    if viewer is None or image is None:
        raise ValueError(
            f"ipyniivue {version('ipyniivue')}: NiiVue is not where it is expected; 2.4.4 is known to work"
        )
    return script + b"\nexport{" + viewer[1] + b" as Niivue," + image[1] + b" as NVImage};\n"
