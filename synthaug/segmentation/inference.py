"""Segmentation of whole volumes: sliding windows, averaged over mirror images."""

import itertools
from typing import Annotated

import torch
from monai.inferers import SlidingWindowInferer
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from synthaug.config import Section
from synthaug.segmentation.targets import Targets


class InferenceConfig(Section):
    """Windows and mirror images of the segmentation of whole volumes.

    Attributes:
        overlap: share that neighbouring windows have in common; they are blended with Gaussian weights.
        windows: windows that go through the network at once.
        mirror: axes along which the volume is mirrored, too; (0, 1, 2) takes 8 times as long and helps a little.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    windows: PositiveInt = 4
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()

    @field_validator("mirror")
    @classmethod
    def _once(cls, axes):
        if len(set(axes)) != len(axes):
            raise ValueError("expected each axis once")
        return axes


@torch.no_grad()
def predict_probabilities(
    network: nn.Module, image: Tensor, targets: Targets, patch_size: tuple[int, int, int], config: InferenceConfig
) -> Tensor:
    """Predict the probabilities of a network's outputs in a whole volume.

    Args:
        network: in training or evaluation; evaluated here, and left as it was.
        image: (C, X, Y, Z), on the network's device.
        targets: outputs of the network.
        patch_size: (X, Y, Z) of the windows, in voxels.
        config: windows and mirror images.

    Returns:
        (K, X, Y, Z) float32, averaged over the mirror images.
    """
    infer = SlidingWindowInferer(patch_size, config.windows, config.overlap, mode="gaussian")
    training, batch = network.training, image[None].float()
    network.eval()
    total = torch.zeros(1, device=image.device)
    flips = [axes for n in range(len(config.mirror) + 1) for axes in itertools.combinations(config.mirror, n)]
    for axes in flips:
        dims = [2 + axis for axis in axes]
        logits = infer(batch.flip(dims), network)
        assert isinstance(logits, Tensor)  # what the inferer gives of a network with one output
        total = total + targets.probabilities(logits).flip(dims)
    network.train(training)
    return total[0] / len(flips)
