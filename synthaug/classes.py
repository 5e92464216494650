"""Label vocabularies: which class has which value in a label map.

A vocabulary is ordered: class `i` of a one-hot mask is `names[i]`. Data sets give the same tissue different
names and values (BraTS 2018 writes enhancing tumour as 4, BraTS 2023 as 3; BraTS 2024 calls oedema SNFH, others edema),
so a lesion bank and an insertion are matched by name, never by value; names of the field (`tissue_name`) are the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

FEW_VALUES = 8
"""Label values that a message lists; an image taken for a label map has thousands."""

NO_LESIONS = "an organ that may hold lesions is no class: set it to 0 in the label and give its mask as host"
"""What to do about label values that are of no lesion."""

_FIELD = {
    "NCR": (
        "ncr, netc, net, ncr net, ncr netc, necrosis, necrotic, necrotic core, necrotic tumour, necrotic tumour core, "
        "non enhancing, nonenhancing, non enhancing core, non enhancing tumour, nonenhancing tumour, "
        "non enhancing tumour core, necrotic and non enhancing, necrotic and non enhancing core, "
        "necrotic and non enhancing tumour, necrotic and non enhancing tumour core, necrotic non enhancing tumour core"
    ),
    "ED": "ed, snfh, edema, peritumoural edema, perilesional edema, vasogenic edema, flair hyperintensity, "
    "surrounding flair hyperintensity, surrounding non enhancing flair hyperintensity",
    "ET": "et, enhancing, enhancement, enhancing tumour, enhancing core, enhancing tissue, contrast enhancing, "
    "contrast enhancing tumour, contrast enhancement, active tumour",
    "RC": "rc, cavity, resection cavity",
    "tumour": "tumour, tumours",
}
_TISSUES = {text.strip(): tissue for tissue, texts in _FIELD.items() for text in texts.split(",")}


def tissue_name(name: str) -> str:
    """What the field calls a class: necrosis is NCR, oedema ED, enhancing ET, tumor tumour; others in plain words.

    Example:
        >>> tissue_name("Oedema"), tissue_name("non-enhancing tumor"), tissue_name("Liver_Tumors")
        ('ED', 'NCR', 'liver tumours')
    """
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip().replace("tumor", "tumour").replace("oedema", "edema")
    return _TISSUES.get(words, words)


def same_tissue(name: str, known: Sequence[str]) -> str | None:
    """The one of `known` that is called `name`, or is alone in naming the same tissue; None where there is none."""
    alike = [other for other in known if tissue_name(other) == tissue_name(name)]
    return name if name in known else (alike[0] if len(alike) == 1 else None)


def in_names_of(names: Sequence[str], known: Sequence[str] | None) -> tuple[str, ...]:
    """Class names as `known` (a generator, a bank) has them, where it names the same tissues; others as they are.

    Two classes never get one name: where they would, both stay as they are.

    Example:
        >>> in_names_of(("necrosis", "edema", "cyst"), ("NCR", "ED", "ET"))
        ('NCR', 'ED', 'cyst')
    """
    found = [(same_tissue(name, known) or name) if known is not None else name for name in names]
    return tuple(other if found.count(other) == 1 else name for name, other in zip(names, found, strict=True))


@dataclass(frozen=True)
class Classes:
    """The lesion classes of a label map.

    Args:
        name: what the vocabulary is called in messages, for example ``"BRATS18"``.
        values: class name to label value, in channel order; values are integers other than 0 (background).
        aliases: other names for some of the classes, for example ``{"SNFH": "ED"}``.

    Raises:
        ValueError: no class, a value that is 0, negative or given twice, or an alias of an unknown class.

    Example:
        >>> Classes("liver", {"tumour": 2}).values["tumour"]
        2
    """

    name: str
    values: Mapping[str, int]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.values:
            raise ValueError(f"classes {self.name!r}: expected at least one class, got none")
        seen: dict[int, str] = {}
        for class_name, value in self.values.items():
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"classes {self.name!r}: {class_name} needs an integer above 0, got {value!r}")
            if value in seen:
                raise ValueError(f"classes {self.name!r}: {class_name} and {seen[value]} share the value {value}")
            seen[value] = class_name
        for alias, target in self.aliases.items():
            if target not in self.values:
                raise ValueError(f"classes {self.name!r}: alias {alias} of unknown class {target}")
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        object.__setattr__(self, "aliases", MappingProxyType(dict(self.aliases)))

    def __reduce__(self):
        return Classes, (self.name, dict(self.values), dict(self.aliases))

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in channel order."""
        return tuple(self.values)

    def index_map(self, label: np.ndarray) -> np.ndarray:
        """Convert a label map to class numbers, (X, Y, Z) uint8: k + 1 for class k, 0 for every other value."""
        index = np.zeros(label.shape, np.uint8)
        for k, value in enumerate(self.values.values()):
            index[label == value] = k + 1
        return index

    def unknown_values(self, label: Any) -> list[int]:
        """List the values of a label map (array, or tensor on the CPU) that are neither 0 nor of these classes."""
        return sorted({*np.unique(np.asarray(label)).tolist()} - {0, *self.values.values()})

    def strange_values(self, label: Any) -> str | None:
        """What is wrong with the values of a label map (array or tensor on the CPU), in words, or None."""
        if not (unknown := self.unknown_values(label)):
            return None
        few, count = ", ".join(f"{v:g}" for v in unknown[:FEW_VALUES]), len(unknown)
        if count > FEW_VALUES:
            return (
                f"the label has {count} values that are not in {self}, such as {few}: is it the image? label and image "
                "may have been swapped"
            )
        return f"label values [{few}] are not in {self}"

    def __len__(self) -> int:
        return len(self.values)

    def canonical(self, name: str) -> str:
        """The vocabulary's own name of a class, also where an alias or another name of the field is given.

        Raises:
            ValueError: the name is neither a class nor an alias.
        """
        found = self.aliases.get(name, name)
        if found not in self.values:
            found = same_tissue(name, self.names) or found
        if found not in self.values:
            known = ", ".join((*self.names, *self.aliases))
            raise ValueError(f"unknown class {name!r}: classes {self.name!r} has {known}")
        return found

    def index(self, name: str) -> int:
        """Find the channel of a class (or of its alias) in a one-hot mask, from 0."""
        return self.names.index(self.canonical(name))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{n}={v}' for n, v in self.values.items())})"


_BRATS_ALIASES = {"NETC": "NCR", "SNFH": "ED"}

BRATS18 = Classes("BRATS18", {"NCR": 1, "ED": 2, "ET": 4}, _BRATS_ALIASES)
"""BraTS 2017-2020: necrotic and non-enhancing core 1, oedema 2, enhancing tumour 4."""

BRATS23 = Classes("BRATS23", {"NCR": 1, "ED": 2, "ET": 3}, _BRATS_ALIASES)
"""BraTS 2021 (converted) and 2023 glioma: as 2018 with enhancing tumour 3."""

BRATS24 = Classes("BRATS24", {"NCR": 1, "ED": 2, "ET": 3, "RC": 4}, _BRATS_ALIASES)
"""BraTS 2024 post-treatment glioma: as 2023 with the resection cavity 4."""

MSD_BRAIN = Classes("MSD_BRAIN", {"NCR": 2, "ED": 1, "ET": 3}, _BRATS_ALIASES)
"""Medical Segmentation Decathlon Task01: oedema 1, non-enhancing 2, enhancing 3."""

VOCABULARIES = MappingProxyType({c.name: c for c in (BRATS18, BRATS23, BRATS24, MSD_BRAIN)})
"""The vocabularies above by name, for configuration files and the command line."""


def single(name: str = "tumour", value: int = 1) -> Classes:
    """Make a vocabulary of one class, for binary masks.

    Example:
        >>> single("lesion").values["lesion"]
        1
    """
    return Classes(name, {name: value})


def of_names(names: Sequence[str]) -> Classes:
    """Make a vocabulary of class names, with values from 1 and the aliases of the BraTS classes among them."""
    aliases = {alias: name for alias, name in _BRATS_ALIASES.items() if name in names and alias not in names}
    return Classes("of the bank", {name: k + 1 for k, name in enumerate(names)}, aliases)


def get_classes(classes: "Classes | str | Mapping[str, int]") -> Classes:
    """Resolve what configuration files and the command line give: a vocabulary, its name, or names and values.

    Args:
        classes: a vocabulary, the name of one, a mapping, or text such as ``"tumour=1"`` or ``"core=1,rim=2"``.

    Raises:
        ValueError: an unknown vocabulary name, or a value that is no integer.
        TypeError: neither of the three.

    Example:
        >>> get_classes("BRATS23"), get_classes("core=1,rim=2").names
        (BRATS23(NCR=1, ED=2, ET=3), ('core', 'rim'))
    """
    if isinstance(classes, Classes):
        return classes
    if isinstance(classes, str) and "=" in classes:
        return Classes("custom", dict(_named_value(part) for part in classes.split(",")))
    if isinstance(classes, str):
        if classes not in VOCABULARIES:
            known = ", ".join(VOCABULARIES)
            raise ValueError(f"unknown class vocabulary {classes!r}: known are {known}; or give names, tumour=1,rim=2")
        return VOCABULARIES[classes]
    if isinstance(classes, Mapping):
        return Classes("custom", dict(classes))
    raise TypeError(f"classes: expected Classes, a name or a mapping of names to values, got {type(classes).__name__}")


def _named_value(text: str) -> tuple[str, int]:
    name, _, value = (part.strip() for part in text.partition("="))
    if not name or not value.isdigit():
        raise ValueError(f"classes: expected NAME=VALUE,NAME=VALUE with integers above 0, got {text!r}")
    return name, int(value)
