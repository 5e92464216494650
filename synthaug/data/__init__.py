"""Data in: case folders of real data sets, and phantoms where no real data may be used."""

from synthaug.data.cases import Case, CaseError, Volume, find_cases, load_case
from synthaug.data.phantoms.phantom import phantom_case, write_phantom_dataset
from synthaug.host import zscore_host

__all__ = [
    "Case",
    "CaseError",
    "Volume",
    "find_cases",
    "load_case",
    "phantom_case",
    "write_phantom_dataset",
    "zscore_host",
]
