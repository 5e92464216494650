"""Which labels are lesions, which are organs that may hold one, and which are neither: by name, else by evidence.

1. Names, of dataset.json or of the user, say most: `LESION` and `ORGAN` words. An organ that borders on lesions may
   hold one; another is avoided.
2. Where the files are those of BraTS, by the names of all four sequences and by the cases' names or the value 4, the
   values are those of BraTS.
3. A data set with one label marks lesions with it.
4. Of several labels without names, one that is large, in nearly every case, and around the others is an organ; what
   borders on it is lesion, what does not is avoided.
5. Else nobody knows, and that is an error that says what to give.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synthaug.classes import BRATS18, BRATS23, BRATS24, Classes
from synthaug.config import ConfigError

LESION = (
    "tumo", "lesion", "cancer", "carcino", "metasta", "gliom", "necro", "edema", "enhanc", "nodule", "mass", "sarcom",
    "gtv", "infarct", "stroke", "cyst", "lymphom", "melanom", "malign", "neoplas", "haemat", "hemat", "hemorr",
    "haemorr", "wmh", "plaque", "polyp", "blastom", "adenom", "resection",
)  # fmt: skip
LESION_WORDS = {"ncr", "ed", "et", "rc", "snfh", "netc", "net", "tc", "wt", "gtvp", "gtvn", "ms"}
ORGAN = (
    "liver", "hepat", "kidney", "renal", "pancrea", "spleen", "lung", "brain", "prostat", "colon", "bowel", "muscle",
    "bone", "breast", "bladder", "stomach", "gastr", "esophag", "heart", "gland", "body", "vessel", "arter", "vein",
    "vena", "aorta", "cord", "organ", "tissue", "skull", "ventric", "matter", "cerebell", "rectum", "uter", "ovar",
    "thyroid", "adrenal", "duoden", "skin", "fat", "head", "vertebr", "trachea", "airway", "nerve", "eye", "limb",
)  # fmt: skip

GLIOMA = {
    "NCR": (
        "ncr",
        "netc",
        "net",
        "necrosis",
        "necrotic",
        "necrotic core",
        "non-enhancing tumor",
        "non-enhancing tumour",
    ),
    "ED": ("ed", "snfh", "edema", "oedema", "peritumoral edema"),
    "ET": ("et", "enhancing", "enhancement", "enhancing tumor", "enhancing tumour"),
    "RC": ("rc", "resection cavity", "cavity"),
}
"""Canonical names of the glioma classes and what else they are called."""

LEAST_BORDER = 0.3
NEARLY_ALL = 0.9
TIMES_LARGER = 3.0


@dataclass
class LabelEvidence:
    """What the label maps say of one value.

    Attributes:
        cases: that have it.
        voxels: in those, each.
        border: share of its surface, over all cases, that borders on each other value, 0 among them.
    """

    cases: int = 0
    voxels: list[float] = field(default_factory=list)
    border: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Roles:
    """Label values by role, and why."""

    lesions: dict[str, int]
    organs: dict[str, int]
    avoided: dict[str, int]
    why: str


def named(evidence: Mapping[int, LabelEvidence], names: Mapping[str, int], cases: int) -> Roles:
    """Find roles by names.

    Raises:
        ConfigError: values without names, or a name that says neither lesion nor organ.
    """
    if unknown := sorted(set(evidence) - set(names.values())):
        raise ConfigError(f"labels: the values {unknown} occur and have no name ({_listed(names)} are named); {ADVICE}")
    lesions = {name: value for name, value in names.items() if is_lesion(name)}
    rest = {name: value for name, value in names.items() if name not in lesions}
    unclear = {name: value for name, value in rest.items() if not is_organ(name) and value in evidence}
    if unclear and lesions:
        # a name that says nothing is no lesion where others say that they are
        words = f"; {', '.join(unclear)} says neither, so it is taken for no lesion"
    elif not lesions:
        raise ConfigError(f"labels: none of {_listed(names)} is called like a lesion; {ADVICE}")
    else:
        words = ""
    organs, avoided = _holding(evidence, lesions, rest)
    return Roles(lesions, organs, avoided, f"by name: {', '.join(lesions)} are lesions{words}{_told(organs, avoided)}")


def given(
    evidence: Mapping[int, LabelEvidence],
    lesions: Mapping[str, int],
    organs: Mapping[str, int],
    names: Mapping[str, int],
) -> Roles:
    """Take roles as the user gave them; other values that occur are organs that hold a lesion or avoided."""
    taken = {*lesions.values(), *organs.values()}
    known = {value: name for name, value in names.items()}
    rest = {known.get(v, f"label {v}"): v for v in sorted({*evidence, *names.values()} - taken)}
    if organs:
        return Roles(dict(lesions), dict(organs), rest, "as given")
    found, avoided = _holding(evidence, lesions, rest)
    return Roles(dict(lesions), found, avoided, f"lesions as given{_told(found, avoided)}")


def unnamed(
    evidence: Mapping[int, LabelEvidence], cases: int, channels: Sequence[str], case_names: Sequence[str]
) -> Roles:
    """Find the roles of label values without names.

    Raises:
        ConfigError: several values, of which nothing says what they are.
    """
    if (brats := _brats(evidence, channels, case_names)) is not None:
        values = dict(brats.values)
        return Roles(values, {}, {}, f"files and values are those of BraTS ({brats.name})")
    if len(evidence) == 1:
        (value,) = evidence
        return Roles({"tumour": value}, {}, {}, f"the only label, {value}, marks lesions")
    organ = _organ(evidence, cases)
    if organ is None:
        raise ConfigError(
            f"labels: the values {sorted(evidence)} have no names, and none is an organ around the others; {ADVICE}"
        )
    inside = {v for v in evidence if v != organ and evidence[v].border.get(organ, 0) >= LEAST_BORDER}
    lesions = {("tumour" if len(inside) == 1 else f"lesion {v}"): v for v in sorted(inside)}
    avoided = {f"label {v}": v for v in sorted(set(evidence) - inside - {organ})}
    others = ", ".join(map(str, sorted(inside)))
    why = f"label {organ} is large, in nearly every case and around {others}, so it is an organ"
    return Roles(lesions, {f"organ {organ}": organ}, avoided, why + _told({}, avoided))


ADVICE = (
    "say which are lesions, and which organs may hold them: --classes tumour=1, or --classes core=1,rim=2 "
    "--organs liver=3; other values are then left alone"
)


def is_lesion(name: str) -> bool:
    """Tell whether a label's name is that of a lesion."""
    text = name.lower()
    return any(word in text for word in LESION) or bool(LESION_WORDS & {*re.split(r"[^a-z]+", text)})


def is_organ(name: str) -> bool:
    """Tell whether a label's name is that of an organ or a tissue."""
    return any(word in name.lower() for word in ORGAN)


def glioma_name(name: str) -> str | None:
    """Translate a class's name to NCR, ED, ET or RC; None where it is none of these."""
    text = re.sub(r"[_\s]+", " ", name.strip().lower())
    return next((canonical for canonical, others in GLIOMA.items() if text in others), None)


def vocabulary(lesions: Mapping[str, int]) -> Classes:
    """Make the classes of a profile; those of gliomas answer to the names of BraTS too."""
    own = {canonical: name for name in lesions if (canonical := glioma_name(name)) is not None}
    others = {"NETC": "NCR", "SNFH": "ED"}
    own |= {alias: own[canonical] for alias, canonical in others.items() if canonical in own}
    return Classes("profile", dict(lesions), {a: name for a, name in own.items() if a not in lesions})


def _holding(
    evidence: Mapping[int, LabelEvidence], lesions: Mapping[str, int], rest: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Part labels that are no lesions into those that lesions border on, and the others."""
    shares = {
        name: np.mean([evidence[v].border.get(value, 0.0) for v in lesions.values() if v in evidence] or [0.0])
        for name, value in rest.items()
    }
    best = max(shares.values(), default=0.0)
    organs = {n: v for n, v in rest.items() if best >= LEAST_BORDER and shares[n] >= LEAST_BORDER / 2 and v > 0}
    return organs, {name: value for name, value in rest.items() if name not in organs}


def _told(organs: Mapping[str, int], avoided: Mapping[str, int]) -> str:
    told = f"; lesions border on {', '.join(organs)}, which may hold more" if organs else ""
    return told + (f"; {', '.join(avoided)} is left alone" if avoided else "")


def _brats(evidence: Mapping[int, LabelEvidence], channels: Sequence[str], names: Sequence[str]) -> Classes | None:
    values = set(evidence)
    if not {"flair", "t1", "t1ce", "t2"} <= set(channels):
        return None
    called = sum(bool(re.match(r"brats", name, re.I)) for name in names) > len(names) / 2
    if values <= {1, 2, 4} and (4 in values or (called and not any("-" in name for name in names))):
        return BRATS18
    if called and values <= {1, 2, 3}:
        return BRATS23
    return BRATS24 if called and values <= {1, 2, 3, 4} else None


def _organ(evidence: Mapping[int, LabelEvidence], cases: int) -> int | None:
    """Find the value that is large, in nearly every case, and around most of the others' surface."""
    size = {value: float(np.median(found.voxels)) for value, found in evidence.items()}
    for value in sorted(size, key=lambda v: -size[v]):
        others = [v for v in evidence if v != value and evidence[v].border.get(value, 0) >= LEAST_BORDER]
        larger = all(size[value] >= TIMES_LARGER * size[v] for v in others)
        around = [evidence[v].border.get(value, 0) > evidence[value].border.get(v, 0) for v in others]
        if others and larger and all(around) and evidence[value].cases >= NEARLY_ALL * cases:
            return value
    return None


def _listed(names: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in names.items())
