"""The examples in docstrings: all of them run, and say what comes out."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import synthaug

PACKAGE = Path(synthaug.__file__).parent
MODULES = sorted(
    ".".join(("synthaug", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, monkeypatch, tmp_path):
    module = import_module(name)
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", sorted(set(synthaug.__all__) - {"GANGenerator", "DiffusionGenerator", "GliGAN"}))
def test_stable_entry_points_have_an_example(name):
    thing = getattr(synthaug, name)
    if not (isinstance(thing, type) and thing.__module__.startswith("synthaug")):
        pytest.skip("no class of ours")
    if issubclass(thing, Warning) or name in ("Outcome", "Report"):
        pytest.skip("made by the library")
    assert ">>> " in (thing.__doc__ or "")
