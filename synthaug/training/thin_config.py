"""What trainers/thin.py may be told, checked before anything is read.

What each key means is written beside it in configs/thin_tiny.yaml.
"""

from typing import Annotated

from common import RunConfig, Share
from gan_config import CropConfig, DataConfig, DemoConfig, OptimizerConfig, Weight
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from synthaug import get_classes
from synthaug.config import Section


class StudentConfig(Section):
    """What is made thinner, and how thin."""

    init: str
    hidden: tuple[PositiveInt, ...] = Field(min_length=7, max_length=7)
    crops: PositiveInt = 30
    steps: tuple[PositiveInt, ...] = Field((1, 2, 4, 4), min_length=1)
    lr: PositiveFloat = 2e-5


class LossConfig(Section):
    """Weights of what the student's answers are compared in, beside the lesion itself."""

    features: Weight = 0.3
    halo: Weight = 0.1


class ThinOptimizerConfig(OptimizerConfig):
    """How long and how fast."""

    decay_from: Share = 0.5
    betas: tuple[Share, Share] = (0.9, 0.99)
    clip: PositiveFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.995


class Config(RunConfig):
    """A whole configuration."""

    data: DataConfig
    crops: CropConfig = CropConfig()
    student: StudentConfig
    loss: LossConfig = LossConfig()
    optimizer: ThinOptimizerConfig
    demo: DemoConfig = DemoConfig()

    @model_validator(mode="after")
    def _fits(self):
        get_classes(self.data.classes)
        return self
