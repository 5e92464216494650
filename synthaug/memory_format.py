"""How a network's weights lie in memory."""

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Lay out a network's weights with the channels last, without which 3-D convolutions crawl on CPUs.

    Args:
        network: changed in place.

    Returns:
        The network.
    """
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stub forgets it
