"""The layouts in which a cohort is written; a new one is a file beside this one and a line in `LAYOUTS`."""

from typing import TYPE_CHECKING

from synthaug.cohort.layouts.base import Layout
from synthaug.cohort.layouts.bids import BIDSLayout
from synthaug.cohort.layouts.brats import BraTSLayout
from synthaug.cohort.layouts.msd import MSDLayout
from synthaug.cohort.layouts.nnunet import NNUNetLayout
from synthaug.cohort.layouts.webdataset import WebDatasetLayout
from synthaug.cohort.layouts.zarr import ZarrLayout

if TYPE_CHECKING:
    from synthaug.cohort.config import CohortConfig

__all__ = ["LAYOUTS", "Layout", "make_layout"]

LAYOUTS: dict[str, type[Layout]] = {
    "nnunet": NNUNetLayout,
    "msd": MSDLayout,
    "bids": BIDSLayout,
    "brats": BraTSLayout,
    "webdataset": WebDatasetLayout,
    "zarr": ZarrLayout,
}
"""Name in the configuration to class."""


def make_layout(config: "CohortConfig") -> Layout:
    """Make the layout that a configuration names.

    Raises:
        ConfigError: the layout cannot hold the configuration's channels.
        ModuleNotFoundError: a package that it needs is not installed; its extra is named.
    """
    return LAYOUTS[config.layout](config)
