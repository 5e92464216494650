"""What several test files share: the real data's folder, a folder of phantoms, and how many threads torch takes."""

import os
from pathlib import Path

import pytest
import torch

from synthaug.data import write_phantom_dataset

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, or a skip that says why."""
    folder = os.environ.get("SYNTHAUG_REAL_DATA")
    if not folder:
        pytest.skip("SYNTHAUG_REAL_DATA is not set: no folder of real data")
    if not Path(folder).is_dir():
        pytest.skip(f"SYNTHAUG_REAL_DATA names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom cases of 64^3 voxels, the last without tumour, with the file names of BraTS 2018."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_dataset(folder, count=4, seed=100, size=(64, 64, 64), tumour_free=1)
    return folder
