"""Data in: case folders of real data sets, and phantoms where no real data may be used."""

from synthaug.data.cases import Case, CaseError, Volume, find_cases, load_case

__all__ = ["Case", "CaseError", "Volume", "find_cases", "load_case"]
