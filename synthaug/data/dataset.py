"""A folder of cases with what it says of itself: its classes and channels, where nobody gives them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthaug.channels import BRATS_CHANNELS, canonical_channels
from synthaug.checks import in_short
from synthaug.classes import VOCABULARIES, Classes, get_classes, same_tissue
from synthaug.data.cases import Case, find_cases
from synthaug.data.labels import brats_classes, is_lesion, is_organ, label_values, named_labels, values_in_short
from synthaug.lesions.base import LesionSource
from synthaug.lesions.registry import vocabulary_of

ClassesGiven = Classes | str | Mapping[str, int] | None


@dataclass(frozen=True)
class DataSet:
    """The cases of a folder, their classes and channels.

    Attributes:
        cases: of `find_cases`.
        classes: of the labels.
        channels: canonical names.
        taken: in words, what of these nobody gave, and what says it.
    """

    cases: list[Case]
    classes: Classes
    channels: tuple[str, ...]
    taken: tuple[str, ...]

    @property
    def training(self) -> list[Case]:
        """List all cases but those of a test set, labelled or not."""
        return [case for case in self.cases if case.split != "test"]


def data_folder(folder: str | os.PathLike) -> Path:
    """Find the data set's folder, where a folder of its images was given."""
    folder = Path(folder)
    return folder.parent if folder.name in ("imagesTr", "imagesTs", "labelsTr") and folder.is_dir() else folder


def find_dataset(
    folder: str | os.PathLike,
    classes: ClassesGiven = None,
    channels: Sequence[str] | None = None,
    layout: str = "auto",
    group_pattern: str | None = None,
    *,
    lesions: LesionSource | None = None,
    structures: bool = False,
) -> DataSet:
    """Find the cases of a folder with their classes and channels: those given, or what the data say.

    Args:
        folder: see `find_cases`.
        classes: as given; see `find_classes` where not.
        channels: likewise; see `find_channels`.
        layout: as for `find_cases`.
        group_pattern: likewise.
        lesions: that will be inserted, whose classes count where the data set does not tell its own.
        structures: whether every label counts, organs too, as for scores and listings; otherwise lesions alone.

    Raises:
        ValueError: what `find_cases`, `find_classes` and `find_channels` raise.
    """
    folder = data_folder(folder)
    names = None if channels is None else canonical_channels(channels)
    if isinstance(classes, str) and "=" in classes:
        classes = get_classes(classes)
    cases = named_cases(folder, layout, names, group_pattern)
    found, said = find_classes(folder, cases, classes, lesions, structures)
    taken = [] if said is None else [f"classes {describe(found)} ({said})"]
    if names is None:
        names = find_channels(cases)
        taken += [f"channels {', '.join(names)} (those of the cases)"]
    return DataSet(cases, found, names, tuple(taken))


UNLABELLED = ("leave-out", "tumour-free")
"""What may be said of cases without a label map: nothing, or that they have no tumour."""


def labelled_hosts(cases: Sequence[Case], unlabelled: str | None = None) -> tuple[list[Case], str | None]:
    """Choose the cases that may be hosts: a case without a label map may have a tumour, unless it is said to have none.

    Args:
        cases: all.
        unlabelled: ``"tumour-free"``: those without a label map have no tumour; ``"leave-out"``, None: who knows.

    Returns:
        The hosts, and in words what was left out, or None.

    Raises:
        ValueError: another word, or no host is left.
    """
    if unlabelled not in (None, *UNLABELLED):
        raise ValueError(f"unlabelled: expected {' or '.join(UNLABELLED)}, got {unlabelled!r}")
    alone = [case.name for case in cases if case.label is None and unlabelled != "tumour-free"]
    if not alone:
        return list(cases), None
    words = (
        f"{len(alone)} of {len(cases)} cases without a label map, which may have a tumour: {in_short(alone)}; "
        "unlabelled tumour-free (--unlabelled tumour-free) says that they have none"
    )
    if len(alone) == len(cases):
        raise ValueError(f"no host is left: {words}")
    return [case for case in cases if case.label is not None], words


def named_cases(
    folder: Path, layout: str = "auto", channels: Sequence[str] | None = None, group_pattern: str | None = None
) -> list[Case]:
    """Do as `find_cases`, where channels that are asked for may be names that the data set does not have itself.

    In nnU-Net and MSD folders they name all channels in order where ``dataset.json`` does not name these; in BraTS's
    layout they are further endings of file names.
    """
    if channels is None or not (folder / "imagesTr").is_dir():
        return find_cases(folder, layout, channels, group_pattern)
    if not (folder / "dataset.json").is_file():
        return find_cases(folder, layout, channels, group_pattern)
    cases = find_cases(folder, layout, None, group_pattern)
    known = {name for case in cases for name in case.images}
    if set(channels) <= known or len(channels) != len(known):
        return cases
    return find_cases(folder, layout, channels, group_pattern)


def find_channels(cases: Sequence[Case]) -> tuple[str, ...]:
    """List the channels that most cases have, in their order; BraTS's four in the order that the library takes them in.

    Raises:
        ValueError: no case has an image.
    """
    found = Counter(tuple(case.images) for case in cases if case.images)
    if not found:
        raise ValueError(f"channels: none of {len(cases)} cases has an image")
    names = max(found, key=lambda names: (found[names], len(names)))
    return BRATS_CHANNELS if set(names) == set(BRATS_CHANNELS) else names


def find_classes(
    folder: Path,
    cases: Sequence[Case],
    given: ClassesGiven = None,
    lesions: LesionSource | None = None,
    structures: bool = False,
) -> tuple[Classes, str | None]:
    """Find the classes of a data set's labels, and what says them where they were not given in full.

    In this order: those given (names alone, such as ``"tumour"``, are looked up in the data set); the names in
    ``dataset.json`` or BIDS's tables, where they tell what is a lesion; BraTS's names of cases or files; the lesions
    that will be inserted.

    Args:
        folder: of the data set.
        cases: in it.
        given: by the user.
        lesions: that will be inserted.
        structures: whether every label counts, organs too.

    Raises:
        ValueError: none of them says it, or labels are named of which some may be no lesions; what to give is said.
    """
    named = named_labels(folder)
    if given is not None:
        return _given(given, named, cases)
    if named is not None and named[0]:
        return _named(*named, lesions, structures), named[1]
    labelled = [case for case in cases if case.label is not None]
    if (brats := brats_classes(labelled or list(cases))) is not None:
        return brats, "BraTS's names"
    if lesions is not None:
        return vocabulary_of(lesions), "those of the bank"
    found = label_values(cases)
    example = ",".join(f"NAME{k}={v}" for k, v in enumerate(found[:3], 1)) if len(found) > 1 else "tumour=1"
    raise ValueError(
        f"{folder}: nothing says what its label values are, found {values_in_short(found)}; give the classes of "
        f"lesions, such as --classes {example} or --classes BRATS18, or name them in labels of a dataset.json"
    )


def _given(
    given: Classes | str | Mapping[str, int], named: tuple[dict[str, int], str] | None, cases: Sequence[Case]
) -> tuple[Classes, str | None]:
    """Make the classes given; names without values are those of the data set, or the only value that there is."""
    if not isinstance(given, str) or "=" in given or given in VOCABULARIES:
        return get_classes(given), None
    wanted = [name.strip() for name in given.split(",")]
    if named is not None:
        found = {name: same_tissue(name, tuple(named[0])) for name in wanted}
        if None not in found.values():
            return Classes("custom", {name: named[0][own] for name, own in found.items() if own is not None}), named[1]
        known = ", ".join(f"{name}={value}" for name, value in named[0].items())
        raise ValueError(f"classes: {named[1]} has {known}; got {given!r}")
    values = label_values(cases)
    if len(wanted) == 1 and values in ([1], []) and is_lesion(given):
        return Classes("custom", {given: 1}), "the only label value"
    try:
        return get_classes(given), None
    except ValueError as error:
        raise ValueError(f"{error}; the labels hold {values_in_short(values)}") from None


def _named(labels: dict[str, int], file: str, lesions: LesionSource | None, structures: bool) -> Classes:
    """Pick the classes among named labels."""
    if structures:
        return Classes(file, labels)
    if lesions is not None:
        own = {name: value for name, value in labels.items() if same_tissue(name, lesions.classes) is not None}
        if len(own) == len(lesions.classes):
            # labels that the bank has no lesions of are lesions too, where they are called so
            return Classes(file, {n: v for n, v in labels.items() if n in own or is_lesion(n)})
    if all(map(is_lesion, labels)) or (len(labels) == 1 and not is_organ(next(iter(labels)))):
        return Classes(file, labels)
    likely = {name: value for name, value in labels.items() if is_lesion(name)} or labels
    raise ValueError(
        f"{file} names the labels {_in_words(labels)}, of which some may be no lesions; give those that are, such as "
        f"--classes {_in_words(likely).replace(', ', ',')}"
    )


def _in_words(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def describe(classes: Classes) -> str:
    """Say the names and values of classes, and the vocabulary's name where it has one."""
    return repr(classes) if classes.name in VOCABULARIES else _in_words(classes.values)
