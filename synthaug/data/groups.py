"""The patient of a case, from its name."""

import re
from collections.abc import Callable

GroupOf = Callable[[str], str]

_GROUP_OF_NAME = (re.compile(r"brats1[789]_(.+)_\d+$", re.I), re.compile(r"(brats-[a-z]+-\d+)-\d+$", re.I))


def group_function(pattern: str | None) -> GroupOf:
    """Make the function from case names to patients.

    Args:
        pattern: regular expression that finds the patient in a case name: its first group, or the whole match. Without
            it the patient is known from BraTS names and is the case itself elsewhere.

    Returns:
        A function that raises ValueError for a name that the pattern does not match.
    """

    def known(name: str) -> str:
        match = next((m for p in _GROUP_OF_NAME if (m := p.match(name))), None)
        return match[1] if match else name

    def by_pattern(name: str) -> str:
        if (match := compiled.search(name)) is None:
            raise ValueError(f"group_pattern {pattern!r} does not match the case name {name!r}")
        return match[1] if compiled.groups else match[0]

    if pattern is None:
        return known
    compiled = re.compile(pattern)
    return by_pattern


def case_names(name: str) -> tuple[str, ...]:
    """How a case is called: its name, and for ``Brats18_2013_11_1`` also ``2013_11_1``."""
    match = re.match(r"brats1[789]_(.+)$", name, re.I)
    return (name, match[1]) if match else (name,)
