"""Resolution of a user's `lesions` to a `LesionSource`, and checks that it fits the insertion."""

import os
from collections.abc import Sequence
from typing import Any, overload

from synthaug.channels import BRATS_CHANNELS, select_channels
from synthaug.classes import BRATS18, Classes
from synthaug.generators.base import TumorGenerator
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource
from synthaug.lesions.rebalance import ClassMix, Swaps
from synthaug.lesions.sampler import LesionSampler, is_sampler


@overload
def resolve_lesions(lesions: str | os.PathLike) -> LesionBank | LesionSampler: ...
@overload
def resolve_lesions(lesions: Any) -> LesionSource: ...
def resolve_lesions(lesions: Any) -> LesionSource:
    """Return the lesion source that was given, or load the bank or the sampler whose path was.

    Raises:
        TypeError: neither of the two.
        ValueError: an empty bank, and what `LesionBank.load` raises.
    """
    if isinstance(lesions, (str, os.PathLike)):
        lesions = LesionSampler.load(lesions) if is_sampler(lesions) else LesionBank.load(lesions)
    if not isinstance(lesions, LesionSource):
        kinds = "a LesionBank, its path, LesionShapes, LesionSampler or PaintedLesions"
        raise TypeError(f"lesions: expected {kinds}, got {type(lesions).__name__}")
    if isinstance(lesions, LesionBank) and not len(lesions):
        raise ValueError("lesions: expected a bank with at least one lesion, got an empty one")
    return lesions


def class_order(lesions: LesionSource, classes: Classes) -> list[int]:
    """Find the position of each of the lesions' classes in the insertion's.

    Raises:
        ValueError: lesions of other classes.
    """
    try:
        order = [classes.index(name) for name in lesions.classes]
    except ValueError:
        order = []
    if len(set(order)) < len(lesions.classes):
        raise ValueError(
            f"the lesions have the classes {', '.join(lesions.classes)}; the insertion has {classes}. Where these are "
            f"the same tissues, give them the lesions' names: classes {_as_named(lesions.classes, classes)}"
        )
    return order


def _as_named(names: Sequence[str], classes: Classes) -> str:
    """An example of classes of these names, with the values that there are."""
    values = [*classes.values.values(), *range(max(classes.values.values()) + 1, 1000)]
    return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=False))


def channels_of(lesions: LesionSource) -> tuple[str, ...]:
    """The channels of an insertion that was given none: BraTS's four, or those of a bank that has not all of them."""
    known = lesions.channels
    return BRATS_CHANNELS if known is None or set(BRATS_CHANNELS) <= set(known) else tuple(known)


def vocabulary_of(lesions: LesionSource) -> Classes:
    """The classes of an insertion that was given none: those of its lesions, with the label values of their cases.

    Lesions whose values are BraTS 2018's get all of its classes, so that a label may have those that no donor has; so
    do banks of BraTS classes from before banks kept the values.

    Raises:
        ValueError: the lesions do not say which label values their classes have, and are not BraTS'.
    """
    found = lesions.vocabulary
    if set(lesions.classes) <= set(BRATS18.names) and (found is None or found.values.items() <= BRATS18.values.items()):
        return BRATS18
    if found is None:
        example = {name: value for value, name in enumerate(lesions.classes, 1)}
        raise ValueError(
            f"classes: the lesions have the classes {', '.join(lesions.classes)} and do not say which label values "
            f"they have in your data; give classes=..., for example {example}"
        )
    return found


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
