"""Hosts for tests of how a cohort is kept, not of what is in it."""

from pathlib import Path

import pytest

from synthaug.data import write_phantom_dataset


@pytest.fixture(scope="session")
def tiny_hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms of 40^3 voxels without tumours."""
    folder = tmp_path_factory.mktemp("tiny")
    write_phantom_dataset(folder, count=2, seed=100, size=(40, 40, 40), tumour_free=2)
    return folder
