"""A trained segmenter for the quality gate: the folder of a run of ``trainers/segmentation.py``."""

from pathlib import Path
from typing import Any

import torch
import yaml

from synthaug.classes import get_classes
from synthaug.config import ConfigError

CONFIG, WEIGHTS = "config.yaml", "weights.safetensors"


def load_segmenter(folder: Path, channels: tuple[str, ...], device: torch.device | str = "cpu") -> torch.nn.Module:
    """The network of a segmentation run with its averaged weights.

    Args:
        folder: of the run, with ``config.yaml`` and ``weights.safetensors``.
        channels: of the images that it will be given; it must have been trained on these, in this order.
        device: where it works.

    Raises:
        ConfigError: no such files, other channels, or weights of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"gate.segmenter: {folder} lacks {' and '.join(missing)}; expected a finished training run")
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    trained = tuple(config["data"]["channels"])
    if trained != channels:
        raise ConfigError(f"gate.segmenter: trained on {', '.join(trained)}; the cohort has {', '.join(channels)}")
    network = _network(config)
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ConfigError(f"gate.segmenter: {folder / WEIGHTS} is damaged: {error}") from error
    expected = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    if unlike := sorted({*weights} ^ {*expected}):
        raise ConfigError(f"gate.segmenter: {folder / WEIGHTS} is of another network: {', '.join(unlike[:3])}")
    network.load_state_dict(weights, strict=False)
    return network.eval().to(device)


def _network(config: dict[str, Any]) -> torch.nn.Module:
    from monai.networks.nets import DynUNet

    network, levels = config["network"], len(config["network"]["strides"])
    return DynUNet(
        spatial_dims=3,
        in_channels=len(config["data"]["channels"]),
        out_channels=1 + len(get_classes(config["data"]["classes"])),
        kernel_size=[3] * levels,
        strides=network["strides"],
        upsample_kernel_size=network["strides"][1:],
        filters=network["filters"],
        deep_supervision=network["deep_supervision"] > 0,
        deep_supr_num=max(1, network["deep_supervision"]),
        res_block=network["res_block"],
    )
