"""Configuration that the trainers of generators share: crops, networks, losses, the optimizer, pictures.

What each key means is written beside it in configs/gan_tiny.yaml.
"""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from synthaug import get_classes
from synthaug.channels import canonical_channels
from synthaug.config import Section
from synthaug.training.lesion_crops import CropOptions
from synthaug.training.run_config import CasesConfig, RunConfig, Share, Weight

FACTOR = 16
"""Crop sides are multiples of this: the painter halves four times."""


class CropDataConfig(CasesConfig):
    """Cases, how many are in memory, and how many the style prior is fitted to.

    Attributes:
        cache: cases in memory.
        prior_cases: cases that the style prior is fitted to.
    """

    cache: PositiveInt = 64
    prior_cases: Annotated[int, Field(ge=2)] = 64

    @field_validator("channels")
    @classmethod
    def _canonical(cls, names):
        return canonical_channels(names)


class CropConfig(Section):
    """Sizes and probabilities of crops; see `synthaug.training.lesion_crops.CropOptions`."""

    sizes: dict[PositiveInt, PositiveFloat] = Field(default={32: 1, 48: 4, 64: 4, 96: 1}, min_length=1)
    transplant: Share = 0.4
    swap: Share = 0.2
    zoom: Share = 0.2
    drop_channels: Share = 0.3
    intensity: Annotated[float, Field(ge=0, lt=1)] = 0.1
    rare: Share = 0.7

    @model_validator(mode="after")
    def _sizes_fit(self):
        if wrong := [size for size in self.sizes if size % FACTOR]:
            raise ValueError(f"crops.sizes: expected multiples of {FACTOR}, got {wrong}")
        return self

    def options(self) -> CropOptions:
        """Make the options of training crops."""
        return CropOptions(**self.model_dump())


class GeneratorNetworkConfig(Section):
    """Widths and learning rate of a network.

    Attributes:
        widths: channels at each level.
        lr: learning rate at its height.
    """

    widths: tuple[PositiveInt, ...] = Field(min_length=2)
    lr: PositiveFloat


class PainterConfig(GeneratorNetworkConfig):
    """Shape and learning rate of the painter."""

    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 96, 128), min_length=4, max_length=4)
    head: PositiveInt = 16
    hidden: tuple[PositiveInt, ...] | None = Field(default=None, min_length=7, max_length=7)
    lr: PositiveFloat = 3e-4


class CriticConfig(GeneratorNetworkConfig):
    """Shape and learning rate of the critic."""

    widths: tuple[PositiveInt, ...] = Field(default=(32, 64, 96), min_length=2)
    lr: PositiveFloat = 6e-4


class PaintingLossConfig(Section):
    """Weights of the parts of a loss on painted lesions; see `synthaug.training.painting_losses`."""

    adversarial: Weight = 1.0
    features: Weight = 2.0
    style: Weight = 4.0
    band: Weight = 0.5
    lowpass: Weight = 0.03
    halo: Weight = 1.0


class AdamConfig(Section):
    """Steps, decay, betas, clipping and averaging of Adam.

    Attributes:
        steps: updates of the weights.
        decay_from: share of the steps from which the learning rates fall to 0.
        betas: of Adam.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are saved.
    """

    steps: PositiveInt
    decay_from: Share = 0.7
    betas: tuple[Share, Share] = (0.5, 0.99)
    clip: PositiveFloat = 5.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998


class DemoConfig(Section):
    """Number, size and interval of the fixed samples that are drawn as a picture.

    Attributes:
        every: steps between pictures.
        count: samples.
        size: side of their crops in voxels.
    """

    every: PositiveInt = 500
    count: PositiveInt = 4
    size: PositiveInt = 64

    @model_validator(mode="after")
    def _size_fits(self):
        if self.size % FACTOR:
            raise ValueError(f"demo.size: expected a multiple of {FACTOR}")
        return self

    def options(self) -> CropOptions:
        """Make the options of crops that are shown: real ones in place and transplanted ones, half each, unchanged."""
        return CropOptions({self.size: 1.0}, transplant=0.5, swap=0, zoom=0, drop_channels=0, intensity=0, rare=1)


class GeneratorConfig(RunConfig):
    """Configuration of a generator's training; each trainer adds its networks and losses."""

    data: CropDataConfig
    crops: CropConfig = CropConfig()
    optimizer: AdamConfig
    demo: DemoConfig = DemoConfig()

    @model_validator(mode="after")
    def _known_classes(self):
        get_classes(self.data.classes)
        return self
