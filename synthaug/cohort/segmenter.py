"""Loading of a trained segmenter for the quality gate: a model folder or a run of ``trainers/segmentation.py``."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from synthaug.config import ConfigError


def load_segmenter(
    folder: Path, channels: tuple[str, ...], device: torch.device | str = "cpu"
) -> Callable[[Tensor], Tensor]:
    """Load the model of a segmentation run for the gate: a function of z-scores to logits of background and tumour.

    It sees the hosts at their own voxel size, which should be about that of its training.

    Args:
        folder: the run's folder, or its model's.
        channels: canonical names of the images' channels; it must have been trained on these, in this order.
        device: device of the model.

    Raises:
        ConfigError: no model there, or one for other channels.
    """
    from synthaug.segmentation.inference import predict_probabilities
    from synthaug.segmentation.model import load_model

    config, network = load_model(folder)
    if config.channels != channels:
        raise ConfigError(
            f"gate.segmenter: {folder} was trained on {', '.join(config.channels)}; "
            f"the cohort has {', '.join(channels)}"
        )
    network, targets = network.to(device), config.targets

    def segment(z: Tensor) -> Tensor:
        probabilities = predict_probabilities(network, z[0], targets, config.patch_size, config.inference)
        tumour = (targets.decode(probabilities) != 0).reshape(1, 1, *z.shape[2:]).float()
        return torch.cat([1 - tumour, tumour], 1)

    return segment
