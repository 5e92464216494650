"""Configuration of trainers/thin.py, checked before anything is read.

What each key means is written beside it in configs/thin_tiny.yaml.
"""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from synthaug.config import Section
from synthaug.training.generator_config import AdamConfig, GeneratorConfig
from synthaug.training.run_config import Share, Weight


class StudentConfig(Section):
    """Generator that is made thinner, features that stay, and how the student learns.

    Attributes:
        lr: learning rate at its height.
    """

    init: str
    hidden: tuple[PositiveInt, ...] = Field(min_length=7, max_length=7)
    crops: PositiveInt = 30
    steps: tuple[PositiveInt, ...] = Field((1, 2, 4, 4), min_length=1)
    lr: PositiveFloat = 2e-5


class ThinningLossConfig(Section):
    """Weights of the comparisons of features and surroundings, beside that of the lesion itself."""

    features: Weight = 0.3
    halo: Weight = 0.1


class ThinningOptimizerConfig(AdamConfig):
    """Steps, decay, betas, clipping and averaging of the student's Adam."""

    decay_from: Share = 0.5
    betas: tuple[Share, Share] = (0.9, 0.99)
    clip: PositiveFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.995


class ThinningConfig(GeneratorConfig):
    """Configuration of a thinning."""

    student: StudentConfig
    loss: ThinningLossConfig = ThinningLossConfig()
    optimizer: ThinningOptimizerConfig
