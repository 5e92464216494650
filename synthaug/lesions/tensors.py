"""Files of lesions: safetensors with a JSON header under the name of what they hold."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor


def read_tensors(path: str | os.PathLike, kind: str) -> tuple[Any, dict[str, Tensor]]:
    """Read a file's header, None where it has none of this kind, and its tensors by name.

    Args:
        path: of the file.
        kind: what the file is to hold, ``"bank"`` or ``"sampler"``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"lesion {kind} {path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(kind, "null"))
            return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"lesion {kind} {path}: damaged, expected a safetensors file of a {kind}: {error}") from error
