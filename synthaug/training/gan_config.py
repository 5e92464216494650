"""Configuration of trainers/gan.py, checked before anything is read.

What each key means is written beside it in configs/gan_tiny.yaml.
"""

from typing import Annotated

from pydantic import Field, model_validator

from synthaug.training.generator_config import CriticConfig, GeneratorConfig, PainterConfig, PaintingLossConfig


class GANLossConfig(PaintingLossConfig):
    """Weights of the parts of the painter's loss, and when the critic joins in."""

    adversarial_from: Annotated[int, Field(ge=0)] = 100


class GANConfig(GeneratorConfig):
    """Configuration of a training of the GAN generator."""

    painter: PainterConfig = PainterConfig()
    critic: CriticConfig = CriticConfig()
    loss: GANLossConfig = GANLossConfig()

    @model_validator(mode="after")
    def _fits(self):
        if self.painter.head <= 2 * len(self.data.channels):
            raise ValueError(f"painter.head: expected more than two features a channel, got {self.painter.head}")
        return self
