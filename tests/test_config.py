"""Configuration files: what is wrong is named, nothing wrong gets through."""

import pytest
from pydantic import PositiveInt

from synthaug.config import ConfigError, Section, read_config


class Optimizer(Section):
    lr: float = 0.1
    steps: PositiveInt = 5


class Config(Section):
    optimizer: Optimizer
    insertion: Optimizer | None = None
    names: tuple[str, ...] = ()


def read(tmp_path, text, *overrides):
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return read_config(path, Config, overrides)


def test_values_and_overrides(tmp_path):
    config = read(tmp_path, "optimizer: {lr: 1e-3}", "optimizer.steps=7", "insertion.lr=2", "names=[a, b]")
    assert config == Config(optimizer=Optimizer(lr=1e-3, steps=7), insertion=Optimizer(lr=2), names=("a", "b"))
    assert read(tmp_path, "optimizer: {}\ninsertion: {}", "insertion=null").insertion is None


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("optimizer: {stepss: 3}", (), r"optimizer.stepss: unknown key, did you mean steps\?"),
        ("optimizer: {}\ninsertion: {stepss: 3}", (), r"insertion.stepss: unknown key, did you mean steps\?"),
        ("optimizer: {zzz: 3}", (), "optimizer.zzz: unknown key; known are lr, steps"),
        ("optimizer: {}", ("optimiser.lr=1",), r"optimiser: unknown key, did you mean optimizer\?"),
        ("optimizer: {steps: -3}", (), "optimizer.steps: Input should be greater than 0, got -3"),
        ("optimizer: {}\nnames: [2013_11]", (), "names.0: Input should be a valid string, got 201311"),
        ("names: []", (), "optimizer: missing"),
        ("", (), "optimizer: missing"),
        ("optimizer: {lr: 1, lr: 2}", (), "'lr' is given twice"),
        ("optimizer: {", (), "not YAML"),
        ("- 1", (), "expected keys and values, got list"),
        ("optimizer: !!python/object/apply:os.getcwd []", (), "not YAML"),
        ("optimizer: {}", ("optimizer.lr",), "expected key=value"),
        ("optimizer: {lr: 1}", ("optimizer.lr.x=1",), "lr holds a value"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path, text, overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        read(tmp_path, text, *overrides)
    assert "some.yaml" in str(error.value) or "override" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_config(tmp_path / "none.yaml", Config)


def test_slips_of_lists_and_mappings_are_told(tmp_path):
    class Sizes(Section):
        sizes: dict[int, float] | None = None
        pair: tuple[float, float] = (0.0, 1.0)

    for text, message in (
        ("sizes={40:1}", "expected a space after the colon"),
        ("pair=-100,200", r"expected a list in brackets such as \[-100,200\]"),
        ("pair=[1]", "pair: expected more than 1 values, got 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_config(None, Sizes, [text])
    assert read_config(None, Sizes, ["sizes={40: 1}"]).sizes == {40: 1.0}
