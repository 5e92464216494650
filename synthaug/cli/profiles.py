"""The option ``--profile``, and what a command takes from a profile where the user gives nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

ProfileOption = Annotated[
    Path | None, typer.Option(help="Profile of the data set; synthaug.json beside the cases where it is there.")
]


@dataclass(frozen=True)
class Told:
    """What a command knows of its data.

    Attributes:
        path: of the profile's file, or None.
        profile: the profile, or None.
        classes: of the labels.
        channels: canonical names.
        layout: of the folder.
        space: host rule and units, or None for those of skull-stripped images.
    """

    path: Path | None
    profile: Any
    classes: Any
    channels: tuple[str, ...]
    layout: str
    space: Any

    @property
    def listed(self) -> Sequence[str] | None:
        """Channel names for `find_cases`, where the folder itself may not name them."""
        return self.channels if self.profile is not None and self.profile.data.layout in ("nnunet", "msd") else None

    @property
    def group_pattern(self) -> str | None:
        """That finds the patient in a case's name."""
        return None if self.profile is None else self.profile.data.group_pattern


def told(
    given: Path | None, folder: Path, classes: str | None = None, channels: str | None = None, layout: str = "auto"
) -> Told:
    """Take what the user gave, else what the profile says, else the defaults; stderr says what is taken.

    Raises:
        ConfigError: a profile that cannot be read.
        ValueError: classes or channels that there are not.
    """
    from synthaug.channels import canonical_channels
    from synthaug.classes import get_classes
    from synthaug.profile.profile import Profile, find_profile
    from synthaug.profile.use import file_of

    path = find_profile(folder) if given is None else file_of(given)
    names = None if channels is None else canonical_channels([name.strip() for name in channels.split(",")])
    vocabulary = None if classes is None else get_classes(classes)
    if path is None:
        default = ("flair", "t1", "t1ce", "t2")
        return Told(None, None, vocabulary or get_classes("BRATS18"), names or default, layout, None)
    profile = Profile.load(path)
    typer.echo(f"profile: {path}{' (beside the cases)' if given is None else ''}", err=True)
    for word, own, its in (("classes", vocabulary, profile.classes), ("channels", names, profile.names)):
        if own is not None and own != its:
            typer.echo(f"{word}: {own} as given, in place of the profile's {its}", err=True)
    chosen = profile.data.layout if layout == "auto" else layout
    return Told(path, profile, vocabulary or profile.classes, names or profile.names, chosen, profile.space)
