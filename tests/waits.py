"""Noticing operations that would make the host wait for an accelerator."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero"}


class NoWait(TorchDispatchMode):
    """Raises for every operation that would make the host wait for an accelerator."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        self.seen.add(name)
        if name in REFUSED:
            raise AssertionError(f"{name} makes the host wait for the device")
        if name in ("aten::index", "aten::index_put", "aten::index_put_"):
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), "boolean indexing waits"
        return func(*args, **(kwargs or {}))
