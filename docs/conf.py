"""Sphinx's configuration: sphinx-build -W docs docs/_build."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
os.environ.setdefault("MPLBACKEND", "Agg")


import synthaug  # noqa: E402

project, author, release = "synthaug", "The synthaug developers", synthaug.__version__
copyright = "the synthaug developers, Apache-2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "synthaug_reference",
]
exclude_patterns = ["_build", "_ext", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5", "gallery/**/*.json"]

smartquotes = False  # two hyphens are an option

html_theme = "furo"
html_title = f"synthaug {release}"
html_show_sourcelink = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "any-code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = False

sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parent / "examples")],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/pictures/",  # the ones in frameworks are run by the tests
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 30,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "first_notebook_cell": None,
}
