"""What the host sends to the device goes behind the work that is queued there: the host does not wait for it.

Meta tensors stand in for an accelerator: they live on another device than the host's, and they have no values, so
that reading one raises.
"""

from collections import ChainMap
from contextlib import nullcontext

import pytest
import torch
from engine import GENERATORS, OPTIONS, toy_bank, toy_batch, toy_insertion
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")


class NoBlockingCopy(TorchDispatchMode):
    """Raises for copies to the device that the host would wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().split(".")[0]
        if name == "aten::_to_copy" and kwargs.get("device") == DEVICE != args[0].device:
            assert kwargs.get("non_blocking"), "tensor.to(device) waits: take on_device"
        if name == "aten::copy_" and args[0].device == DEVICE != args[1].device:
            assert args[2:3] == (True,), "copy_ waits without non_blocking"
        if name.startswith("aten::index") and isinstance(args[1], (list, tuple)) and args[0].device == DEVICE:
            assert all(i is None or i.device == DEVICE for i in args[1]), "an index of the host waits"
        return func(*args, **kwargs)


class NoBlockingLiteral(TorchFunctionMode):
    """Raises for numbers of Python that become a tensor on the device at once, which waits as well."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor):
            assert torch.device(kwargs.get("device") or "cpu") != DEVICE, "torch.tensor(device=) waits: take on_device"
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and args[0].device == DEVICE:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(i, list) for i in index), "a list as an index waits: take index_select"
        if func is torch.Tensor.__setitem__ and args[0].device == DEVICE and isinstance(args[2], (bool, int, float)):
            whole = torch.empty(args[0].shape, device=DEVICE)[args[1]]
            assert whole.ndim, "a number into a single element waits on CUDA: take torch.full or torch.where"
        return func(*args, **kwargs)


class HostGenerator(torch.Generator):
    """Random numbers for meta tensors, which have no generator of their own and no values."""

    def __new__(cls, device=None):
        return super().__new__(cls)


class NeverBack:
    """A value that does not come back from the device."""

    def __init__(self, tensor):
        assert tensor.device == DEVICE

    def arrived(self, wait=False):
        return False


@pytest.fixture
def stand_in(monkeypatch):
    """What PyTorch does not do for meta tensors."""
    monkeypatch.setattr(torch, "Generator", HostGenerator)
    monkeypatch.setattr("synthaug.insertion.faults.Readback", NeverBack)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda *_: torch.float32)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("options", [("second", "swaps", "bent", "halo"), ("mix", "hard edge")], ids=" ".join)
def test_nothing_is_sent_so_that_the_host_waits(generator, options, stand_in):
    image, label = (x.to(DEVICE) for x in toy_batch(1))
    insert = toy_insertion(*GENERATORS[generator](), **dict(ChainMap(*(OPTIONS[name] for name in options))))
    insert(image, label)  # the weights go to the device once
    host = torch.ones_like(label)
    with NoBlockingCopy(), NoBlockingLiteral():
        insert(image, label, groups=["x"], host=lambda sample: host[sample], prior=torch.ones_like(label))
        plan = insert.plan(image, label, host=host)
        insert.apply(image, label, plan, host=host)
        new_image, new_label = insert(image, label, (1, 1, 2), host_stats=(100.0, 15.0))
    assert new_image is not image and new_label.device == DEVICE


@pytest.mark.parametrize(
    ("generator", "options"),
    [("procedural", {"mass_effect_mm": 2.0, "smooth_mm": 1.0}), ("gan", {"style": "like-mask", "looks": toy_bank()})],
)
def test_neither_push_nor_smoothing_nor_a_look_waits(generator, options, stand_in):
    image, label = (x.to(DEVICE) for x in toy_batch(1))
    insert = toy_insertion(*GENERATORS[generator](), **options)
    insert(image, label)
    with NoBlockingCopy(), NoBlockingLiteral():
        new_image, _ = insert(image, label)
    assert new_image is not image


def test_the_modes_themselves_refuse():
    there = torch.ones(3, device=DEVICE)
    with NoBlockingCopy(), NoBlockingLiteral():
        for waits in (
            lambda: torch.ones(3).to(DEVICE),
            lambda: torch.tensor([1.0], device=DEVICE),
            lambda: there[[0, 2]],
            lambda: there.copy_(torch.ones(3)),
            lambda: there[torch.tensor([1])],
            lambda: there.__setitem__(1, 0),
        ):
            with pytest.raises(AssertionError, match="wait"):
                waits()
        torch.ones(3).to(DEVICE, non_blocking=True)
        there.add(1)[0:2] = 0
