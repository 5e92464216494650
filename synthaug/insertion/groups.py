"""Whether the patients that a batch names are those that the lesions know: own donors are left out by that alone."""

import warnings
from collections.abc import Iterable

from synthaug.lesions.base import LesionSource

MANY = 100
"""Insertions after which groups that never matched are spoken of."""


class PatientGroupWarning(UserWarning):
    """No sample was of a patient whom the lesions come from, or no sample had a patient."""


class GroupWatch:
    """Warns, once, where after many insertions no sample's group was one of the donors'.

    Args:
        lesions: whose donors have groups or not.
    """

    def __init__(self, lesions: LesionSource):
        self.lesions, self.donors = lesions, lesions.groups
        self.given, self.not_given, self.others = 0, 0, dict[str, None]()
        self.done = not self.donors

    def saw(self, groups: Iterable[str | None]) -> None:
        """Take in the groups of the hosts of these insertions."""
        if self.done:
            return
        for group in groups:
            if group is None:
                self.not_given += 1
            elif self.lesions.group_of(group) in self.donors:
                self.done = True  # the spelling is the donors'
                return
            else:
                self.given += 1
                self.others.setdefault(group)
        if self.given + self.not_given >= MANY:
            self.done = True
            warnings.warn(self._words(), PatientGroupWarning, stacklevel=6)

    def _words(self) -> str:
        donor = sorted(self.donors)[0]
        if not self.given:
            return (
                f"none of {self.not_given} insertions was told its patient, so a host may get its own lesion: give "
                f"groups=..., in the lesions' spelling, such as {donor!r}"
            )
        return (
            f"none of {self.given} insertions was into a patient of the lesions' {len(self.donors)}: hosts are called "
            f"{', '.join(map(repr, list(self.others)[:3]))}, donors such as {donor!r}. If these are the same patients, "
            "lesions went into their own: spell groups alike"
        )
