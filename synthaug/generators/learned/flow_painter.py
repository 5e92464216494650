"""The denoiser and its sampler as one painter: context, classes, style and noise in, all channels out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthaug.generators.learned.denoiser import Denoiser, Known
from synthaug.generators.learned.flow import Scene, noise_shapes
from synthaug.generators.learned.samplers import SCHEDULERS, prepared, sample
from synthaug.geometry import Box


class FlowPainter(nn.Module):
    """Paints a lesion's voxels by following the flow from noise; called as `Painter` is.

    Args:
        denoiser: finds the lesion behind a state on the path.
        steps: number of calls of the denoiser.
        scheduler: one of `synthaug.generators.learned.samplers.SCHEDULERS`.
        guidance: classifier-free guidance on the classes (Ho & Salimans 2022, arXiv 2207.12598): 1 is none, above 1
            leans away from what would be painted without knowing the class, at the price of a second call in each step
            but a jump.
        strength: share of the path that is gone; below 1, painting starts from noised host tissue.
        refined: whether the network has learned to jump to the end of the path; then it does so in the last step.

    Raises:
        ValueError: steps below 1, an unknown scheduler, guidance below 0, a strength outside (0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        steps: int = 4,
        scheduler: str = "flow_match_euler",
        guidance: float = 1.0,
        strength: float = 1.0,
        refined: bool = False,
    ):
        super().__init__()
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps: expected a whole number from 1 on, got {steps!r}")
        if scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULERS)}, got {scheduler!r}")
        if guidance < 0:
            raise ValueError(f"guidance: expected 0 or more, got {guidance}")
        if not 0 < strength <= 1:
            raise ValueError(f"strength: expected above 0 and at most 1, got {strength}")
        prepared(scheduler, steps)  # so that painting waits for nothing
        self.denoiser, self.steps, self.scheduler = denoiser, steps, scheduler
        self.guidance, self.strength, self.refined = float(guidance), float(strength), bool(refined)
        self.channels, self.classes, self.factor = denoiser.channels, denoiser.classes, denoiser.factor

    def noise_shapes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """List the shapes of the noise images for a crop of this size."""
        return noise_shapes(self.channels, size)

    def forward(
        self,
        host: Tensor,
        mask: Tensor,
        style: Tensor,
        available: Tensor,
        noise: Sequence[Tensor],
        boxes: Sequence[Box] | None = None,
    ) -> Tensor:
        """Paint crops.

        Args:
            host: (N, C, X, Y, Z) model intensities, 0 in channels that are not available; what it has in the lesion
                matters for a `strength` below 1 alone. Sides are multiples of `factor`.
            mask: (N, K, X, Y, Z) float, one-hot classes.
            style: (N, K, C, 3) of `synthaug.generators.learned.style.lesion_style`.
            available: (N, C) float, 1 for channels that are given and wanted.
            noise: standard normal, (N, *shape) for each of `noise_shapes`.
            boxes: where the result is wanted, everywhere if None; elsewhere the tissue stays as it is.

        Returns:
            (N, C, X, Y, Z) model intensities: the lesion, and around it the tissue as the lesion leaves it; 0 in
            channels that are not available.
        """
        scene = Scene.of(host, mask, style, available)
        blind = scene.without_classes(torch.ones(len(host), device=host.device)) if self.guidance != 1 else None
        seen = [(s, self.denoiser.known(s)) for s in (scene, blind) if s is not None]
        around = scene.context

        def denoise(state: Tensor, time: float, stride: float = 0.0) -> Tensor:
            nonlocal around
            found, around = self._denoised(seen, state, time, stride, boxes)
            return found

        def jump(state: Tensor, time: float) -> Tensor:
            return denoise(state, time, stride=time)

        start = None if self.strength == 1 else scene.whitened(host)
        lesion = sample(
            denoise,
            scene.noise(noise, self.denoiser.mixing),
            self.scheduler,
            self.steps,
            start,
            self.strength,
            jump if self.refined else None,
        )
        return scene.painted(lesion, around)

    def _denoised(
        self,
        seen: Sequence[tuple[Scene, Known]],
        state: Tensor,
        time: float,
        stride: float,
        boxes: Sequence[Box] | None,
    ) -> tuple[Tensor, Tensor]:
        """Find the lesion and its surroundings, of a scene and, for guidance, of the one without classes."""
        times, strides = (state.new_full((len(state),), value) for value in (time, stride))
        (scene, known), *blinded = seen
        found, around = self.denoiser(scene, state, times, strides, boxes, known)
        if blinded and stride == 0:  # a jump has learned to know its classes
            scene, known = blinded[0]
            blind, _ = self.denoiser(scene, state, times, strides, boxes, known)
            found = blind + self.guidance * (found - blind)
        return found, around
