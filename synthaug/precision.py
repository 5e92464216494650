"""Choice of the precision that networks compute in: bf16 where the device has instructions for it, else fp32.

Without such instructions bf16 is emulated, and slower than fp32 by far on CPUs. Everything that computes with a network
that may be in either asks here: the trainers, and the trained generators.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

PRECISIONS = ("auto", "fp32", "bf16")
WITHOUT_BF16 = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni")
"""Values of ONEDNN_MAX_CPU_ISA that leave oneDNN, which does the convolutions on CPUs, no instructions for bf16."""

COST = (
    "a training step of a DynUNet takes about 40 times as long as in fp32 with AVX2 (measured: 174 CPU seconds against "
    "4.5 for 2 x 4 x 64^3), and twice as long with AVX-512"
)


Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class EmulatedPrecisionWarning(UserWarning):
    """bf16 was asked for on a device that has no instructions for it."""


@dataclass(frozen=True)
class Precision:
    """The precision that networks compute in, with the reason.

    Attributes:
        name: ``"bf16"`` (autocast; the weights stay in fp32) or ``"fp32"``.
        asked: one of `PRECISIONS`.
        reason: why it is this one, in words.
    """

    name: str
    asked: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.asked}: {self.reason})"

    @property
    def bf16(self) -> bool:
        """Whether it is bf16."""
        return self.name == "bf16"


def resolve_precision(asked: str, device: torch.device | str) -> Precision:
    """Choose the precision to compute in on a device.

    Args:
        asked: ``"auto"``, bf16 where the device has instructions for it and fp32 elsewhere; or ``"fp32"``, ``"bf16"``.
        device: device of the network.

    Raises:
        ValueError: `asked` is none of these.

    Warns:
        EmulatedPrecisionWarning: bf16 was asked for and will be emulated; it says what that costs.
    """
    if asked not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {asked!r}")
    able, why = bf16_support(torch.device(device).type)
    if asked == "auto":
        return Precision("bf16" if able else "fp32", asked, why)
    if asked == "bf16" and not able:
        warnings.warn(
            f"precision=bf16 will be emulated, for {why}: {COST}. Set precision=fp32; auto takes it here, too, but "
            "where a run goes on that is in bf16",
            EmulatedPrecisionWarning,
            stacklevel=2,
        )
    return Precision(asked, asked, f"as asked; {why}")


def has_bf16(device: torch.device | str) -> bool:
    """Tell whether a device has instructions for bf16 that its convolutions may use; emulation does not count."""
    return bf16_support(torch.device(device).type)[0]


@cache
def bf16_support(kind: str) -> tuple[bool, str]:
    """Tell whether a kind of device, such as ``"cpu"``, has instructions for bf16, and how that is known, in words.

    Asked once per process, as oneDNN reads its environment variables.
    """
    if kind == "cpu":
        return _on_cpu()
    supported = getattr(getattr(torch, kind, None), "is_bf16_supported", None)
    if supported is None:
        return False, f"torch does not tell whether {kind} has bf16 instructions"
    able = supported(including_emulation=False)
    return able, f"this {kind} device has {'' if able else 'no '}bf16 instructions"


def _on_cpu() -> tuple[bool, str]:
    if not hasattr(torch.cpu, "get_capabilities"):
        return False, f"torch {torch.__version__} does not tell what the CPU can"
    known = torch.cpu.get_capabilities()
    found = [name for name in ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16") if known.get(name)]  # the last two: ARM's
    if not found:
        return False, "this CPU has no bf16 instructions"
    # the environment may forbid instructions that are there; torch's own check misses AVX-512 without those for bf16
    variable = next((v for v in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA") if os.environ.get(v)), None)
    if variable and os.environ[variable].lower() in WITHOUT_BF16:
        return False, f"{variable}={os.environ[variable]} forbids bf16 instructions"
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False, "oneDNN does not use this CPU's bf16 instructions"
    return True, f"this CPU has {found[0]}"


def short_in_fp32(forward: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Decorate the forward of a network that is trained: convolutions longer than their input compute in fp32.

    oneDNN's bf16 weight gradients of a 3-D convolution are wrong, and may not be finite, where the kernel is longer
    than the input along the first axis: two voxels under a kernel of three, four under one of five (torch 2.13, oneDNN
    3.12, a CPU with avx512_bf16; fp32 and everything without gradients are right). Such inputs are small, so that fp32
    costs nothing. Only autocast on a CPU with gradients is touched.
    """

    @wraps(forward)
    def wrapped(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        if not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
            return forward(*args, **kwargs)
        with _ShortConvolutions():
            return forward(*args, **kwargs)

    return wrapped


class _ShortConvolutions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.conv3d or not _is_short(*args[:2]):
            return func(*args, **(kwargs or {}))
        full: list[Any] = [a.float() if isinstance(a, Tensor) else a for a in args]
        with torch.autocast("cpu", enabled=False):
            return func(*full, **(kwargs or {}))


def _is_short(image: Tensor, weight: Tensor) -> bool:
    return image.device.type == "cpu" and image.shape[-3] < weight.shape[-3]
