"""The diffusion generator: a flow from informed noise to a lesion, in as few steps as you like.

What makes few steps suffice is said in `synthaug.generators.learned.flow` (the start of the path) and in
trainers/diffusion.py (the refinement for few steps).
"""

from collections.abc import Sequence

from synthaug.generators.learned.denoiser import Denoiser
from synthaug.generators.learned.flow_painter import FlowPainter
from synthaug.generators.learned.style import StylePrior
from synthaug.generators.learned.styled import CROP_SIZES, StyledGenerator


class DiffusionGenerator(StyledGenerator):
    """Paints lesions by a trained denoiser and its prior over styles, sampled with a scheduler of diffusers.

    The time that `generate` takes is linear in the steps; the memory does not depend on them.

    Args:
        denoiser: the network, trained for `channels` and `classes` in this order.
        prior: Gaussian over styles of these channels and classes.
        channels: canonical channel names that the network knows.
        classes: class names that it knows.
        truncation: how far styles stray from the mean patient's, 0 to 1.
        crop_sizes: sides that the crops may have along each axis, ascending multiples of 16.
        batched, precision: as for `StyledGenerator`.
        steps: number of calls of the network.
        scheduler: ``"flow_match_euler"``, ``"ddim"`` or ``"dpmsolver++"``.
        guidance: classifier-free guidance on the classes; 1 is none, else each step but a jump takes two calls.
        strength: share of the path that is gone, above 0 to 1; below 1, the lesion grows out of noised host tissue,
            and its anatomy shows through.
        refined: whether the network has learned to jump to the end of the path in the last step.

    Raises:
        ValueError: as `StyledGenerator` and `FlowPainter` say.
    """

    painter: FlowPainter

    def __init__(
        self,
        denoiser: Denoiser,
        prior: StylePrior,
        channels: Sequence[str],
        classes: Sequence[str],
        truncation: float = 0.8,
        crop_sizes: Sequence[int] = CROP_SIZES,
        batched: bool | None = None,
        precision: str = "auto",
        *,
        steps: int = 4,
        scheduler: str = "flow_match_euler",
        guidance: float = 1.0,
        strength: float = 1.0,
        refined: bool = False,
    ):
        painter = FlowPainter(denoiser, steps, scheduler, guidance, strength, refined)
        super().__init__(painter, prior, channels, classes, truncation, crop_sizes, batched, precision)
        self.needs_host = strength < 1
