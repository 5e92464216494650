"""The layouts in which a cohort is written; a new one is a file beside this one and a line in `LAYOUTS`."""

from typing import TYPE_CHECKING

from synthaug.cohort.layouts.base import Layout
from synthaug.cohort.layouts.bids import BIDSLayout
from synthaug.cohort.layouts.brats import BraTSLayout
from synthaug.cohort.layouts.msd import MSDLayout
from synthaug.cohort.layouts.nnunet import NNUNetLayout

if TYPE_CHECKING:
    from synthaug.cohort.config import CohortConfig

__all__ = ["LAYOUTS", "Layout", "make_layout"]

LAYOUTS: dict[str, type[Layout]] = {
    "nnunet": NNUNetLayout,
    "msd": MSDLayout,
    "bids": BIDSLayout,
    "brats": BraTSLayout,
}
"""Name in the configuration to class."""


def make_layout(config: "CohortConfig") -> Layout:
    """Make the layout that a configuration names.

    Raises:
        ConfigError: the layout cannot hold the configuration's channels.
    """
    return LAYOUTS[config.layout](config)
