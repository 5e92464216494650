"""Names of image channels: one canonical name per MRI sequence or modality, with its aliases."""

from collections.abc import Sequence

ALIASES = {"t1n": "t1", "t1c": "t1ce", "t1gd": "t1ce", "t2w": "t2", "t1w": "t1", "t2f": "flair"}
"""Other names (BraTS 2023, MSD) of the canonical channels ``t1``, ``t1ce``, ``t2`` and ``flair``."""

BRATS_CHANNELS = ("flair", "t1", "t1ce", "t2")
"""The four sequences of BraTS, in the order in which the library takes them where none is asked for."""


def canonical_channels(names: Sequence[str]) -> tuple[str, ...]:
    """Channel names in lower case, without spaces around them, with aliases resolved, in the order given.

    Raises:
        ValueError: no name, or one channel named twice.
        TypeError: a bare string instead of a sequence of names.
    """
    if isinstance(names, str):
        raise TypeError(f"channels: expected a sequence of names such as ('flair', 't1'), got the string {names!r}")
    plain = [str(n).strip().lower() for n in names]
    resolved = tuple(ALIASES.get(n, n) for n in plain)
    if not resolved:
        raise ValueError("channels: expected at least one name, got none")
    if len(set(resolved)) != len(resolved):
        raise ValueError(f"channels: each may be named once, got {tuple(names)}")
    return resolved


def select_channels(wanted: Sequence[str], known: Sequence[str], owner: str) -> list[int]:
    """Find the positions of the `wanted` channels among the `known` ones of `owner` (a bank, a generator).

    Raises:
        ValueError: a wanted channel that `owner` does not have.
    """
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(f"{owner} has the channels {', '.join(known)}; got unknown {', '.join(missing)}")
    return [list(known).index(name) for name in wanted]
