"""What a data set says of its labels: names in ``dataset.json`` or BIDS's tables, BraTS's file names, the values."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from synthaug.channels import BRATS_CHANNELS
from synthaug.classes import BRATS18, BRATS23, BRATS24, FEW_VALUES, VOCABULARIES, Classes, tissue_name
from synthaug.data.bids import DERIVATIVES
from synthaug.data.cases import Case
from synthaug.data.dataset_json import label_names, listed_labels
from synthaug.data.nifti import CaseError, as_label
from synthaug.data.stored import read_stored

LABELS_LOOKED_AT = 20
"""Label maps that are read to find out which values there are."""

_BRATS_NAMES = (
    (re.compile(r"brats-gli-\d+-1\d\d$", re.I), BRATS24),
    (re.compile(r"brats-(gli|ssa|men|met)-\d+-\d{3}$", re.I), BRATS23),
    (re.compile(r"brats(17|18|19|20|2020|2021)_", re.I), BRATS18),
)
_BRATS_VALUES = (({1, 2, 4}, 4, BRATS18), ({1, 2, 3}, 3, BRATS23), ({1, 2, 3, 4}, 4, BRATS24))

_LESION_WORDS = re.compile(
    r"\b(tumours?|lesions?|cancers?|neoplasms?|mets|metastas[ei]s|\w*carcinomas?|\w*sarcomas?|gliomas?|glioblastomas?|"
    r"meningiomas?|\w*adenomas?|schwannomas?|lymphomas?|nodules?|mass(es)?|necrosis|necrotic|edema|enhancing|gtv\w*|"
    r"hcc|pdac|malignan\w+|polyps?|infarcts?|strokes?|plaques?|wmh|h(a)?emorrhages?)\b"
)
_ORGANS = re.compile(
    r"\b(organs?|body|liver|kidneys?|spleen|pancreas|prostate|lungs?|brain|muscles?|bones?|heart|bladder|breasts?|colon|"
    r"stomach|uterus|ovar(y|ies)|esophagus|aorta|vessels?|hippocampus|thyroid|skin|fat|rectum|skull|gland|zone)\b"
)


def named_labels(folder: Path) -> tuple[dict[str, int], str] | None:
    """Read names and values of a data set's labels, and the file that says so; None where none does.

    Read are ``labels`` of a ``dataset.json``, of nnU-Net 2 (``{"tumour": 1}``) as of nnU-Net 1 and the Medical
    Segmentation Decathlon (``{"1": "tumour"}``), and the ``*dseg.tsv`` of a BIDS data set's derivatives.

    Raises:
        ValueError: a file whose labels are in no such form.
    """
    try:
        labels = listed_labels(folder)
    except ValueError as error:
        raise ValueError(f"{error}; or give the classes, such as tumour=1") from error
    if labels is not None:
        return label_names(labels), "dataset.json"
    for table in sorted((folder / DERIVATIVES).glob("*/*dseg.tsv")):
        with table.open(encoding="utf-8", newline="") as rows:
            found = {row["name"]: int(row["index"]) for row in csv.DictReader(rows, delimiter="\t")}
        return label_names(found), table.name
    return None


def is_lesion(name: str) -> bool:
    """Tell whether a label's name is one that lesions and their parts have."""
    tissue = tissue_name(name)
    return tissue in ("NCR", "ED", "ET", "RC") or bool(_LESION_WORDS.search(tissue))


def is_organ(name: str) -> bool:
    """Tell whether a label's name is one that organs have, and no lesion."""
    return not is_lesion(name) and bool(_ORGANS.search(tissue_name(name)))


def brats_classes(cases: Sequence[Case]) -> Classes | None:
    """Find the vocabulary of cases that are named as BraTS's are, or whose four sequences and label values are BraTS's.

    None where they are not, or the values are not enough to tell.
    """
    found = {next((c.name for pattern, c in _BRATS_NAMES if pattern.match(case.name)), "") for case in cases}
    if found in ({"BRATS23", "BRATS24"}, {"BRATS24"}):
        return BRATS24
    if len(found) == 1 and found != {""}:
        return VOCABULARIES[found.pop()]
    if not cases or not all(set(BRATS_CHANNELS) <= set(case.images) for case in cases):
        return None
    values = set(label_values(cases))
    recent = all(_is_recent(case) for case in cases)
    for allowed, needed, classes in _BRATS_VALUES:
        if values <= allowed and needed in values and recent == (classes is not BRATS18):
            return classes
    return None


def _is_recent(case: Case) -> bool:
    """Tell whether the files are named as by BraTS from 2023 on, ``-t1c`` and ``-t2f`` beside others."""
    return re.search(r"-t1c\.nii(\.gz)?$", case.images["t1ce"].name, re.I) is not None


def label_values(cases: Iterable[Case], most: int = LABELS_LOOKED_AT) -> list[int]:
    """List the values other than 0 in the first label maps that can be read, ascending."""
    values: set[int] = set()
    for name, path in [(case.name, case.label) for case in cases if case.label is not None][:most]:
        try:
            label = as_label(name, path, read_stored(name, path, 1).scaled)
        except CaseError:
            continue  # whoever reads the case says so
        values.update(np.unique(label).tolist())
    return sorted(values - {0})


def values_in_short(values: Sequence[int], most: int = FEW_VALUES) -> str:
    """Say label values in words, not all of the thousands that an image would have."""
    some = ", ".join(str(v) for v in values[:most])
    return f"{some}, ... ({len(values)} of {values[0]} to {values[-1]})" if len(values) > most else some or "none"
