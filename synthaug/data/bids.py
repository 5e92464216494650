"""BIDS: the names of images and lesion masks, for reading and for writing.

Images are ``sub-*/[ses-*/]anat/*_<suffix>.nii.gz``; a T1w with a ``ce-`` entity is the contrast-enhanced ``t1ce``.
Label maps are no raw data in BIDS, so they lie in ``derivatives/<pipeline>/sub-*/[ses-*/]anat/`` with the suffix
``dseg`` (a discrete segmentation) or ``mask``. Of several images of one kind, as runs are, none is guessed.
"""

import re
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = {"t1": "T1w", "t1ce": "ce-GADOLINIUM_T1w", "t2": "T2w", "flair": "FLAIR"}
"""Canonical channel name to what its file name ends with, after the subject and session."""

LABEL_SUFFIXES = ("dseg", "mask")
DERIVATIVES = "derivatives"
_CHANNELS = {"T1w": "t1", "T2w": "t2", "FLAIR": "flair"}


def is_bids(folder: Path) -> bool:
    """Whether a folder has BIDS subjects with anatomical images."""
    return any(True for _ in _anat_folders(folder))


def bids_images(folder: Path) -> Iterator[tuple[str, str, str, Path]]:
    """List the images of a data set: name (``sub-01_ses-2``), subject (``sub-01``), canonical channel, file."""
    for name, subject, anat in _anat_folders(folder):
        for path in sorted(anat.iterdir()):
            channel = _channel(path.name)
            if channel is not None:
                yield name, subject, channel, path


def bids_labels(folder: Path) -> Iterator[tuple[str, Path]]:
    """List the label maps in the derivatives of a data set: name of the case and file."""
    derivatives = folder / DERIVATIVES
    for pipeline in sorted(p for p in derivatives.glob("*") if p.is_dir()):
        for name, _, anat in _anat_folders(pipeline):
            for path in sorted(anat.iterdir()):
                if _entities(path.name)[-1] in LABEL_SUFFIXES and not path.name.startswith("."):
                    yield name, path


def bids_name(text: str) -> str:
    """Make a subject's label of any name; BIDS allows letters and digits only.

    Raises:
        ValueError: none is left.
    """
    label = re.sub(r"[^A-Za-z0-9]", "", text)
    if not label:
        raise ValueError(f"BIDS: expected a name with letters or digits, got {text!r}")
    return f"sub-{label}"


def _anat_folders(folder: Path) -> Iterator[tuple[str, str, Path]]:
    for subject in sorted(p for p in folder.glob("sub-*") if p.is_dir()):
        if (subject / "anat").is_dir():
            yield subject.name, subject.name, subject / "anat"
        for session in sorted(p for p in subject.glob("ses-*") if (p / "anat").is_dir()):
            yield f"{subject.name}_{session.name}", subject.name, session / "anat"


def _channel(name: str) -> str | None:
    if name.startswith(".") or not name.endswith((".nii", ".nii.gz")):
        return None
    *entities, suffix = _entities(name)
    enhanced = suffix == "T1w" and any(entity.startswith("ce-") for entity in entities)
    return "t1ce" if enhanced else _CHANNELS.get(suffix)


def _entities(name: str) -> list[str]:
    stem = re.sub(r"\.nii(\.gz)?$", "", name)
    return stem.split("_") if stem != name else [""]
