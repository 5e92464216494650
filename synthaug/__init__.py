"""Label-conditioned synthetic tumours, inserted into training batches on the device while training runs."""

from synthaug.classes import BRATS18, BRATS23, BRATS24, MSD_BRAIN, Classes, single

__version__ = "0.1.0"

__all__ = ["BRATS18", "BRATS23", "BRATS24", "MSD_BRAIN", "Classes", "__version__", "single"]
