"""Label-conditioned synthetic tumours, inserted into training batches on the device while training runs.

Stable, changed only with a warning first: `TumorInsertion`, `InsertionPlan` and its rows, `Outcome`, `Report`,
`LowInsertionRateWarning`, `LesionBank`, `LesionShapes`, `TumorGenerator`, `PasteGenerator`, `ProceduralGenerator`,
`load_generator`, `save_generator`, `Classes`, `get_classes`, `single` and the vocabularies. Experimental, may change in
any version: `InsertionOptions`, `PaintedLesions`, `LesionSampler`, `GANGenerator`, `DiffusionGenerator`
and `GliGAN` as classes.
"""

from synthaug.classes import BRATS18, BRATS23, BRATS24, MSD_BRAIN, Classes, get_classes, single
from synthaug.generators.base import TumorGenerator
from synthaug.generators.gligan.gligan import GliGAN
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.gan import GANGenerator
from synthaug.generators.learned.hub import load_generator, save_generator
from synthaug.generators.paste import PasteGenerator
from synthaug.generators.procedural import ProceduralGenerator
from synthaug.insertion.insertion import TumorInsertion
from synthaug.insertion.plan import InsertionPlan, Outcome
from synthaug.insertion.report import LowInsertionRateWarning, Report
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.painted.source import PaintedLesions
from synthaug.lesions.sampler import LesionSampler
from synthaug.lesions.shapes import LesionShapes
from synthaug.options import InsertionOptions

__version__ = "0.1.0"

__all__ = [
    "BRATS18",
    "BRATS23",
    "BRATS24",
    "MSD_BRAIN",
    "Classes",
    "DiffusionGenerator",
    "GANGenerator",
    "GliGAN",
    "InsertionOptions",
    "InsertionPlan",
    "LesionBank",
    "LesionSampler",
    "LesionShapes",
    "LowInsertionRateWarning",
    "Outcome",
    "PaintedLesions",
    "PasteGenerator",
    "ProceduralGenerator",
    "Report",
    "TumorGenerator",
    "TumorInsertion",
    "__version__",
    "get_classes",
    "load_generator",
    "save_generator",
    "single",
]
