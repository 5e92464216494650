"""The option ``--profile``, and what a command takes from a profile where the user gives nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from synthaug.cli.options import split_channels, tell_taken

ProfileOption = Annotated[
    Path | None, typer.Option(help="Profile of the data set; synthaug.json beside the cases where it is there.")
]


@dataclass(frozen=True)
class Told:
    """What a command knows of its data.

    Attributes:
        path: of the profile's file, or None.
        profile: the profile, or None.
        folder: of the data set.
        cases: all of them.
        classes: of the labels.
        channels: canonical names.
        layout: of the folder.
        space: host rule and units, or None for those of skull-stripped images.
    """

    path: Path | None
    profile: Any
    folder: Path
    cases: list[Any]
    classes: Any
    channels: tuple[str, ...]
    layout: str
    space: Any

    @property
    def training(self) -> list[Any]:
        """All cases but those of a test set."""
        return [case for case in self.cases if case.split != "test"]

    @property
    def regions(self) -> Any:
        """Regions of classes that the profile has, or None."""
        return None if self.profile is None else self.profile.labels.regions


def told(
    given: Path | None,
    folder: Path,
    classes: str | None = None,
    channels: str | None = None,
    layout: str = "auto",
    group_pattern: str | None = None,
    *,
    lesions: Any = None,
    structures: bool = False,
) -> Told:
    """Take what the user gave, else what the profile says, else what the data say; stderr says what is taken.

    Args:
        given: the profile's file or folder; the file beside the cases where not given.
        folder: of the cases.
        classes: as given.
        channels: likewise, separated by commas.
        layout: of the folder.
        group_pattern: finds the patient in a case's name.
        lesions: that will be inserted, whose classes count where nothing else says them.
        structures: whether every label counts, organs too, as for scores.

    Raises:
        ConfigError: a profile that cannot be read.
        ValueError: classes or channels that there are not, or that nothing says.
    """
    from synthaug.channels import canonical_channels
    from synthaug.data.dataset import data_folder, find_classes, find_dataset, named_cases
    from synthaug.profile.profile import Profile, find_profile
    from synthaug.profile.use import file_of

    root = data_folder(folder)
    path = find_profile(root) if given is None else file_of(given)
    if path is None:
        wanted = split_channels(channels)
        data = find_dataset(root, classes, wanted, layout, group_pattern, lesions=lesions, structures=structures)
        tell_taken(data.taken)
        return Told(None, None, root, data.cases, data.classes, data.channels, layout, None)
    profile = Profile.load(path)
    typer.echo(f"profile: {path}{' (beside the cases)' if given is None else ''}", err=True)
    names = None if channels is None else canonical_channels(channels.split(","))
    layout = profile.data.layout if layout == "auto" else layout
    cases = named_cases(root, layout, names or profile.names, group_pattern or profile.data.group_pattern)
    vocabulary = None if classes is None else find_classes(root, cases, classes)[0]
    for word, own, its in (("classes", vocabulary, profile.classes), ("channels", names, profile.names)):
        if own is not None and own != its:
            typer.echo(f"{word}: {own} as given, in place of the profile's {its}", err=True)
    return Told(
        path, profile, root, cases, vocabulary or profile.classes, names or profile.names, layout, profile.space
    )


def scored(
    predictions: Path,
    folder: Path,
    profile: Path | None = None,
    classes: str | None = None,
    layout: str = "auto",
    model: Path | None = None,
) -> Told:
    """Take the classes to score: those given, of the model, the profile, the predictions, or the data; see `told`.

    Raises:
        ConfigError, ValueError: see `told` and `synthaug.evaluation.folder.scored_classes`.
    """
    from synthaug.data.dataset import data_folder, describe, named_cases
    from synthaug.evaluation.folder import scored_classes
    from synthaug.profile.profile import find_profile

    root = data_folder(folder)
    if profile is not None or find_profile(root) is not None:
        known = told(profile, folder, classes, None, layout, structures=True)
        return (
            known
            if model is None
            else replace(known, classes=scored_classes(predictions, root, None, layout, model)[0])
        )
    vocabulary, said = scored_classes(predictions, root, classes, layout, model)
    tell_taken([] if said is None else [f"classes {describe(vocabulary)} ({said})"])
    return Told(None, None, root, named_cases(root, layout), vocabulary, (), layout, None)
