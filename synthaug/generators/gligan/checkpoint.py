"""Checkpoints of other projects: found by channel, read as weights only, loaded into a network or refused."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthaug.channels import ALIASES

SUFFIXES = (".safetensors", ".pt", ".pth")
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError)
"""What `torch.load` raises for bytes that are no checkpoint."""


def find_checkpoint(folder: Path, channel: str) -> Path | None:
    """Find the checkpoint of a channel; None where there is none.

    Args:
        folder: searched for ``<channel>/weights/generator*``, ``<channel>/generator*``, ``generator_<channel>`` and
            ``<channel>`` with one of `SUFFIXES`, the first of these that is there.
        channel: canonical name; its aliases are looked for after it.

    Returns:
        Among several of one kind the one with the highest number at its name's end; safetensors before pickles.
    """
    for name in (channel, *(alias for alias, target in ALIASES.items() if target == channel)):
        for pattern in (f"{name}/weights/generator*", f"{name}/generator*", f"generator_{name}", name):
            found = [path for suffix in SUFFIXES for path in sorted(folder.glob(pattern + suffix)) if path.is_file()]
            if found:
                # max keeps the first of equals, and safetensors come first
                return max(found, key=_step)
    return None


def _step(path: Path) -> int:
    number = re.search(r"(\d+)$", path.stem)
    return int(number.group(1)) if number else -1


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by parameter name, unwrapped and without prefixes of wrapping modules.

    Raises:
        ValueError: the file is damaged, or it is a pickle that holds more than weights, or no weights at all.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged, no safetensors file ({error})") from error
    while isinstance(content, Mapping) and (inner := next((w for w in WRAPPERS if w in content), None)):
        content = content[inner]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        inside = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{path}: expected tensors by name, perhaps under 'state_dict'; got {inside[:200] or 'nothing'}"
        )
    return {_bare(name): value for name, value in content.items()}


def _unpickled(path: Path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: damaged, or a pickle of more than weights, which is never run ({reason})") from error


def _bare(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    """Load a state, all of it and nothing else, in float32.

    Args:
        network: takes the weights.
        state: what `read_state` gave.
        path: the file, for messages.
        architecture: what the network is called in messages.

    Raises:
        ValueError: missing or unexpected parameters, other shapes (both sides are named), or numbers that are not
            finite.
    """
    expected = network.state_dict()
    if state.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        raise ValueError(
            f"{path}: weights of another architecture than {architecture}: "
            f"missing {missing[:3]}, unexpected {extra[:3]}"
        )
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: weights of another architecture than {architecture}: expected {name} of shape "
                f"{tuple(expected[name].shape)}, got {tuple(value.shape)}"
            )
        if not value.isfinite().all():
            raise ValueError(f"{path}: damaged, {name} holds numbers that are not finite")
    network.load_state_dict(state)
