"""Phantom cases that the tests of trials share."""

import pytest

from synthaug.data import write_phantom_dataset


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Six phantoms, each a patient."""
    folder = tmp_path_factory.mktemp("cases")
    write_phantom_dataset(folder, count=6, seed=3, size=(32, 32, 32))
    return folder
