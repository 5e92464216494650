"""Resolution of a user's `lesions` to a `LesionSource`, and checks that it fits the insertion."""

import os
from typing import Any, overload

from synthaug.channels import select_channels
from synthaug.classes import Classes
from synthaug.generators.base import TumorGenerator
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps


@overload
def resolve_lesions(lesions: str | os.PathLike) -> LesionBank: ...
@overload
def resolve_lesions(lesions: Any) -> LesionSource: ...
def resolve_lesions(lesions: Any) -> LesionSource:
    """Return the lesion source that was given, or load the bank whose path was.

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


def class_order(lesions: LesionSource, classes: Classes) -> list[int]:
    """Find the position of each of the lesions' classes in the insertion's.

    Raises:
        ValueError: lesions of other classes.
    """
    if any(name not in (*classes.names, *classes.aliases) for name in lesions.classes):
        raise ValueError(f"the lesions have the classes {', '.join(lesions.classes)}; the insertion has {classes}")
    return [classes.index(name) for name in lesions.classes]


def donor_channels(
    lesions: LesionSource,
    generator: TumorGenerator,
    classes: Classes,
    channels: tuple[str, ...],
    swaps: Swaps | None,
    mix: ClassMix | None,
) -> list[int] | None:
    """Find the insertion's channels in the source's intensities; None where the generator wants no donor.

    Raises:
        ValueError: a donor is wanted, and the source has masks only, lacks one of the channels, or has no intensities
            of a class that lesions may be changed into.
    """
    if not generator.needs_donor:
        return None
    if lesions.channels is None:
        raise ValueError(
            f"{type(generator).__name__} needs donor intensities and {type(lesions).__name__} has masks only: "
            "give lesions=LesionBank(...), or another generator"
        )
    wanted = set() if swaps is None else {target for _, target in swaps.pairs}
    if mix is not None:
        wanted |= {name for name, share in zip(mix.names, mix.target, strict=True) if share > 0}
    absent = wanted - {classes.canonical(c) for c in lesions.classes}
    if absent:
        has = ", ".join(lesions.classes)
        raise ValueError(f"the bank has no intensities of {', '.join(sorted(absent))}; it has {has}")
    return select_channels(channels, lesions.channels, "the lesion bank")
