"""Putting an insertion together: its lesions, generator, classes and channels must fit each other."""

import os
from typing import Any

import torch

from synthaug.channels import select_channels
from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps


def resolve_lesions(lesions: Any) -> LesionSource:
    """The lesion source that was given, or the bank whose path was.

    Raises:
        TypeError: neither of the two.
        ValueError: an empty bank, and what `LesionBank.load` raises.
    """
    if isinstance(lesions, (str, os.PathLike)):
        lesions = LesionBank.load(lesions)
    if not isinstance(lesions, LesionSource):
        kinds = "a LesionBank, its path, LesionShapes or PaintedLesions"
        raise TypeError(f"lesions: expected {kinds}, got {type(lesions).__name__}")
    if isinstance(lesions, LesionBank) and not len(lesions):
        raise ValueError("lesions: expected a bank with at least one lesion, got an empty one")
    return lesions


def donor_channels(
    lesions: LesionSource,
    generator: TumorGenerator,
    classes: Classes,
    channels: tuple[str, ...],
    swaps: Swaps,
    mix: ClassMix | None,
) -> list[int] | None:
    """Positions of the insertion's channels in the source's intensities; None where the generator wants no donor.

    Raises:
        ValueError: lesions of other classes; or, where a donor is wanted, a source of masks only, without one of the
            channels, or without intensities of a class that lesions may be changed into.
    """
    names = lesions.classes
    unknown = [c for c in names if c not in (*classes.names, *classes.aliases)]
    if unknown:
        raise ValueError(f"the lesions have the classes {', '.join(names)}; the insertion has {classes}")
    if not generator.needs_donor:
        return None
    if lesions.channels is None:
        raise ValueError(
            f"{type(generator).__name__} needs donor intensities and {type(lesions).__name__} has masks only: "
            "give lesions=LesionBank(...), or another generator"
        )
    wanted = {target for _, target in swaps.pairs}
    if mix is not None:
        wanted |= {name for name, share in zip(mix.names, mix.target, strict=True) if share > 0}
    absent = wanted - {classes.canonical(c) for c in names}
    if absent:
        raise ValueError(f"the bank has no intensities of {', '.join(sorted(absent))}; it has {', '.join(names)}")
    return select_channels(channels, lesions.channels, "the lesion bank")


def process_rank() -> int:
    """Rank of this process in `torch.distributed`, or 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return 0
