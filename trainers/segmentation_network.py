"""The network that trainers/segmentation.py trains, and how a trained one is loaded."""

from pathlib import Path

import torch
from monai.networks.nets import DynUNet
from safetensors.torch import load_file
from segmentation_config import Config

from synthaug import get_classes
from synthaug.config import ConfigError


def make_network(config: Config) -> DynUNet:
    """A U-Net as nnU-Net plans them; its convolutions are slow on CPUs without channels last."""
    network, levels = config.network, len(config.network.strides)
    return DynUNet(
        spatial_dims=3,
        in_channels=len(config.data.channels),
        out_channels=1 + len(get_classes(config.data.classes)),
        kernel_size=[3] * levels,
        strides=network.strides,
        upsample_kernel_size=network.strides[1:],
        filters=network.filters,
        deep_supervision=network.deep_supervision > 0,
        deep_supr_num=max(1, network.deep_supervision),
        res_block=network.res_block,
    ).to(memory_format=torch.channels_last_3d)


def load_network(config: Config, weights: Path) -> DynUNet:
    """The network of a run with its averaged weights, weights.safetensors, ready to predict."""
    network, saved = make_network(config), load_file(weights)
    if unlike := sorted({*saved} ^ {*named_tensors(network)}):
        raise ConfigError(f"{weights} is of another network: {', '.join(unlike)} in only one of them")
    network.load_state_dict(saved, strict=False)
    return network.eval()


def named_tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, each once; a DynUNet's state_dict has every layer under two names."""
    return dict(network.named_parameters()) | dict(network.named_buffers())
