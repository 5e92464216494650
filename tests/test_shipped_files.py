"""What comes beside the code is found in a wheel's package and beside a clone's, by name."""

import pytest

from synthaug import shipped
from synthaug.shipped import find_config, shipped_configs, shipped_folder


@pytest.fixture
def package(monkeypatch, tmp_path):
    """The folder of a package that has nothing in it or beside it."""
    package = tmp_path / "root" / "synthaug"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    return package


def test_the_folder_in_the_package_comes_first(package):
    with pytest.raises(FileNotFoundError, match=rf"{package / 'configs'} or {package.parent / 'configs'}"):
        shipped_folder("configs")
    (package.parent / "configs").mkdir()
    assert shipped_folder("configs") == package.parent / "configs"
    (package / "configs").mkdir()
    assert shipped_folder("configs") == package / "configs"


def test_a_configuration_is_a_file_or_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    known = shipped_configs()
    assert {"gan_tiny", "segmentation_tiny", "cohort_brats", "nnunet"} <= known.keys()
    assert find_config("gan_tiny") == known["gan_tiny"]
    (tmp_path / "mine.yaml").write_text("seed: 1")
    assert find_config("mine.yaml").read_text() == "seed: 1"
    with pytest.raises(ValueError, match=r"no configuration gan_tine: expected a YAML file, .*one of .*gan_tiny"):
        find_config("gan_tine")
