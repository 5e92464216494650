"""Each public name is said to be stable or experimental, and importing the library imports no framework."""

import subprocess
import sys

import synthaug

VOCABULARIES = {"BRATS18", "BRATS23", "BRATS24", "MSD_BRAIN"}


def test_each_name_is_marked_once():
    stable, experimental = synthaug.__doc__.split("Experimental")
    for name in {*synthaug.__all__} - VOCABULARIES - {"__version__"}:
        marked = [f"`{name}`" in part for part in (stable, experimental)]
        assert sum(marked) == 1, name


def test_importing_it_imports_no_framework():
    frameworks = (
        "monai",
        "torchio",
        "lightning",
        "diffusers",
        "accelerate",
        "nnunetv2",
        "nibabel.viewers",
        "matplotlib",
    )
    code = f"import sys, synthaug; print(*[m for m in {frameworks} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == ""
