"""The examples in docstrings: all of them run, and say what comes out."""

import doctest
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

import synthaug

PACKAGE = Path(synthaug.__file__).parent
MODULES = sorted(
    ".".join(("synthaug", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)

RESULTS = {"LowInsertionRateWarning", "Outcome", "Report"}
LOADED = {"DiffusionGenerator", "GANGenerator", "GliGAN"}
ENTRY_POINTS = {name for name in synthaug.__all__ if isinstance(getattr(synthaug, name), (type, FunctionType))}
ENTRY_POINTS -= RESULTS | LOADED


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, monkeypatch, tmp_path):
    module = import_module(name)
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", sorted(ENTRY_POINTS))
def test_entry_points_have_an_example(name):
    assert ">>> " in (getattr(synthaug, name).__doc__ or "")
