"""Checks and random numbers for insertion in loader workers: no accelerator there, and one number for each sample."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from synthaug.generators.base import TumorGenerator
from synthaug.insertion.insertion import TumorInsertion
from synthaug.lesions.painted.source import in_worker

DRAWS = 2**31 - 1
"""Adapters draw an integer in [0, DRAWS) for a sample, from their framework's own random state."""


def refuse_accelerator_in_worker(generator: TumorGenerator) -> None:
    """Check that a loader worker does not get a generator whose weights are on an accelerator.

    A forked process cannot use CUDA, and one context per worker would waste the device's memory where it could.

    Raises:
        RuntimeError: this is a worker, and the generator has a tensor on a device other than the CPU.
    """
    if not in_worker():
        return
    elsewhere = sorted({str(device) for device in devices_of(generator) if device.type not in ("cpu", "meta")})
    if elsewhere:
        raise RuntimeError(
            f"{type(generator).__name__} is on {', '.join(elsewhere)} and was called in a loader worker, where no "
            "accelerator can be used: insert into the batch after it was moved to the device (the batch form of this "
            'adapter, or TumorInsertion itself in the training loop), or take "paste" or "procedural" in workers'
        )


def devices_of(thing: Any) -> Iterator[torch.device]:
    """List a generator's devices: its `device`, its tensors', and those of modules and containers in its attributes."""
    if isinstance(thing, nn.Module):
        yield from (tensor.device for tensor in (*thing.parameters(), *thing.buffers()))
    yield from _devices(getattr(thing, "device", None))
    for value in vars(thing).values():
        for part in _parts(value):
            yield from _devices(part)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else (value,)


def _devices(part: Any) -> Iterator[torch.device]:
    if isinstance(part, nn.Module):
        yield from (tensor.device for tensor in (*part.parameters(), *part.buffers()))
    elif isinstance(part, torch.device):
        yield part
    elif isinstance(part, Tensor) or isinstance(getattr(part, "device", None), torch.device):
        yield part.device


@contextmanager
def drawn(insertion: TumorInsertion, number: int, prob: float | None = None) -> Iterator[TumorInsertion]:
    """Set an insertion to `number`, from which its next plan follows, for the length of a ``with`` block.

    Afterwards it stands where it stood.

    What is applied in the context counts, in the report as in the class mix.

    Args:
        insertion: called in the context, or its `plan` and `apply` are.
        number: drawn from the framework's random state; the same number gives the same plan.
        prob: instead of the insertion's own.

    Raises:
        RuntimeError: the lesions change as training goes on, which such numbers do not tell.
    """
    if insertion.lesions.changes:
        raise RuntimeError(
            "PaintedLesions with refresh or budget follows the running number of samples, and this transform draws "
            "each sample's number at random: insert into the batch in the training loop, or leave both out"
        )
    before = insertion.number, insertion.prob
    insertion.number = number
    if prob is not None:
        insertion.prob = prob
    try:
        yield insertion
    finally:
        insertion.number, insertion.prob = before
