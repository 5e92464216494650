"""What several test files share: the real data's folder and a folder of phantoms."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# before torch is imported, here and in the processes that tests start: what tests compute is so small that threads
# wait for each other longer than they work, most of all beside other jobs
os.environ.setdefault("OMP_NUM_THREADS", "1")
# coverage measures the workers of `pytest -n`, but not the processes that tests start, which it would slow down
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

import pytest
import torch

from synthaug import BRATS18, LesionBank
from synthaug.data import write_phantom_dataset

# for the warning in pyproject.toml pytest has imported torch already: the variable comes too late for this process
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def settings_of_the_process() -> Iterator[None]:
    """Trainers flush denormals and set the number of threads: later tests, hypothesis among them, want them back."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def accelerate_state() -> Iterator[None]:
    """Accelerate keeps one state for the process: a later trainer may want another precision."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(True)


@pytest.fixture(autouse=True)
def style_of_charts() -> Iterator[None]:
    """nnU-Net gives the process seaborn's style: later tests want matplotlib's own."""
    yield
    if "seaborn" in sys.modules:
        sys.modules["matplotlib"].rcdefaults()


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
def real_bank(real_data: Path) -> LesionBank:
    """The bank of the real labelled cases."""
    return LesionBank.from_folder(real_data / "brats", BRATS18)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom cases of 64^3 voxels, the last without tumour, with the file names of BraTS 2018."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_dataset(folder, count=4, seed=100, size=(64, 64, 64), tumour_free=1)
    return folder
