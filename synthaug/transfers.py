"""Transfers between device and host that do not make the host wait."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def on_device(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy numbers of the host to a tensor on a device, behind the work that is queued there.

    ``torch.tensor(values, device=device)`` and ``tensor.to(device)`` wait until that work is done.

    Args:
        values: a tensor, or what `torch.as_tensor` makes one of.
        device: device of the tensor.
        dtype: dtype of the tensor; by default that of the values.
    """
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)


class Readback:
    """A copy of a small tensor on its way to the host.

    On the CPU it has arrived at once. From a CUDA device it goes to pinned memory behind the work that is queued, and
    `arrived` tells whether it is there; from other accelerators, which have no such copies, it is read at once.

    Args:
        tensor: small tensor to read; it may be changed afterwards.
    """

    def __init__(self, tensor: Tensor):
        self._event: Any = None
        if tensor.device.type == "cuda":
            self._value = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._value.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._value = tensor.detach().clone().cpu()

    def arrived(self, wait: bool = False) -> bool:
        """Tell whether the value is there; `wait` until it is."""
        if self._event is not None and wait:
            self._event.synchronize()
        return self._event is None or self._event.query()

    def numpy(self) -> np.ndarray:
        """Return the value, once it has arrived."""
        return self._value.numpy()
