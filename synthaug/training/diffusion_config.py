"""Configuration of trainers/diffusion.py, checked before anything is read.

What each key means is written beside it in configs/diffusion_tiny.yaml.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from synthaug.config import Section
from synthaug.training.generator_config import (
    AdamConfig,
    CriticConfig,
    GeneratorConfig,
    PainterConfig,
    PaintingLossConfig,
)
from synthaug.training.run_config import Share, Weight


class DenoiserConfig(PainterConfig):
    """Shape, learning rate and starting weights of the denoiser."""

    embedding: PositiveInt = 64
    lr: PositiveFloat = 5e-4
    init: Path | None = None


class FlowConfig(Section):
    """Drawing and weighting of points of the path; see `synthaug.generators.learned.flow`."""

    weighting: Literal["flow", "min_snr"] = "flow"
    gamma: PositiveFloat = 5.0
    class_dropout: Share = 0.1
    reflow: Annotated[int, Field(ge=0)] = 0


class RefineConfig(Section):
    """Refinement of the last step: when it begins, and for which numbers of steps."""

    start: Annotated[int, Field(ge=0)]
    steps: tuple[PositiveInt, ...] = Field(default=(1, 2, 4, 8), min_length=1)


class DiffusionLossConfig(PaintingLossConfig):
    """Weights of the parts of the denoiser's loss; all but `flow` belong to the refinement, and the halo to both."""

    flow: Weight = 1.0


class DiffusionOptimizerConfig(AdamConfig):
    """Steps, decay, betas, clipping and averaging of the denoiser's Adam."""

    betas: tuple[Share, Share] = (0.9, 0.99)
    clip: PositiveFloat = 2.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999


class DiffusionConfig(GeneratorConfig):
    """Configuration of a training of the diffusion generator."""

    denoiser: DenoiserConfig = DenoiserConfig()
    critic: CriticConfig = CriticConfig()
    flow: FlowConfig = FlowConfig()
    refine: RefineConfig | None
    loss: DiffusionLossConfig = DiffusionLossConfig()
    optimizer: DiffusionOptimizerConfig

    @model_validator(mode="after")
    def _fits(self):
        if self.denoiser.head <= 2 * len(self.data.channels):
            raise ValueError(f"denoiser.head: expected more than two features a channel, got {self.denoiser.head}")
        if self.flow.reflow and self.denoiser.init is None:
            raise ValueError(
                "flow.reflow: expected denoiser.init, the generator to whose lesions the paths lead; got none"
            )
        return self
