"""The first look at a data set: its cases, what their labels are like and what their channels are, case by case."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from synthaug.config import ConfigError
from synthaug.data.cases import Case, CaseError, detected_layout, find_cases, load_case
from synthaug.data.dataset import data_folder
from synthaug.data.dataset_json import listed_labels
from synthaug.data.nifti import Volume, as_label
from synthaug.data.stored import read_voxels
from synthaug.host import host_tissue
from synthaug.host.body import Body, body_of
from synthaug.profile.channels import ChannelEvidence
from synthaug.profile.labels import LabelEvidence

IMAGES_LOOKED_AT = 20
"""Cases whose images tell what the channels are; the labels of all are looked at."""

LOOK_MM = 2.0
"""Distance of the voxels by which it is seen whether an image shows air."""
OUTSIDE_SHARE = 0.02


@dataclass
class Survey:
    """What a first look found.

    Attributes:
        folder: of the data set.
        layout: of the folder.
        cases: labelled ones that can be used.
        called: of the channels, in order, as the data have it.
        channels: canonical names of them.
        listed: labels of dataset.json, or None.
        unlabelled: cases without a label.
        left_out: cases that cannot be used, and why.
        labels: what the label maps say, by value.
        images: what the images say, by channel.
    """

    folder: Path
    layout: str
    cases: list[Case]
    channels: tuple[str, ...]
    listed: dict | None
    unlabelled: list[str]
    left_out: list[str] = field(default_factory=list)
    labels: dict[int, LabelEvidence] = field(default_factory=dict)
    images: dict[str, ChannelEvidence] = field(default_factory=dict)


def open_survey(
    folder: str | Path, layout: str = "auto", channels: Sequence[str] | None = None, group_pattern: str | None = None
) -> Survey:
    """Find the cases; no voxel is read.

    Raises:
        ConfigError: no folder, no cases, none with a label, or no channel that most of the cases have.
    """
    root = data_folder(folder)
    try:
        chosen = detected_layout(root) if layout == "auto" else layout
        names = None if channels is None else tuple(channels)
        if channels is None and chosen in ("nnunet", "msd") and not (root / "dataset.json").is_file():
            names = _numbered(root, chosen)
        found = find_cases(root, chosen, names, group_pattern)
        listed = listed_labels(root)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
    training = [case for case in found if case.split != "test"]
    labelled = [case for case in training if case.label is not None]
    if not labelled:
        raise ConfigError(f"{folder}: {len(found)} cases and no label map: a profile is of labelled cases")
    usual = tuple(channels or _usual_channels(labelled))
    survey = Survey(root, chosen, labelled, usual, listed, [c.name for c in training if c.label is None])
    lacking = [case for case in labelled if not set(usual) <= set(case.images)]
    for case in lacking:
        survey.left_out.append(f"{case.name}: no file for {', '.join(sorted(set(usual) - set(case.images)))}")
    survey.cases = [case for case in labelled if case not in lacking]
    if not survey.cases:
        raise ConfigError(f"{folder}: no case is complete: {'; '.join(survey.left_out[:5])}")
    return survey


def look(survey: Survey, progress: Iterable[Case] | None = None) -> None:
    """Look at each case's label, and at the images of some; cases that cannot be read are left out, and named.

    Raises:
        ConfigError: none can be read, or all labels are empty.
    """
    survey.images = {name: ChannelEvidence() for name in survey.channels}
    step, kept = max(1, len(survey.cases) // IMAGES_LOOKED_AT), []
    for number, case in enumerate(survey.cases if progress is None else progress):
        try:
            if number % step == 0:
                volume = load_case(case, survey.channels)
                label = volume.label
                _look_at_image(survey, volume)
            else:
                if case.label is None:
                    raise CaseError(f"{case.name}: no label map found")
                label = as_label(case.name, case.label, read_voxels(case.name, case.label, 1)[0][0])
            _look_at_label(survey, label)
            kept.append(case)
        except CaseError as error:
            survey.left_out.append(str(error))
    survey.cases = kept
    if not kept:
        raise ConfigError(f"{survey.folder}: no case can be read: {'; '.join(survey.left_out[:5])}")
    if not survey.labels:
        raise ConfigError(
            f"{survey.folder}: the labels of all {len(kept)} cases are empty: there is no lesion to learn"
        )


def renamed(survey: Survey, names: Sequence[str]) -> Survey:
    """Give the survey other channel names, in the same order."""
    table = dict(zip(survey.channels, names, strict=True))
    cases = [replace(c, images={table.get(k, k): p for k, p in c.images.items()}) for c in survey.cases]
    images = {table[name]: found for name, found in survey.images.items()}
    return replace(survey, channels=tuple(names), cases=cases, images=images)


def _look_at_label(survey: Survey, label: np.ndarray) -> None:
    values, counts = np.unique(label, return_counts=True)
    faces: dict[tuple[int, int], int] = {}
    for axis in range(3):
        ahead, behind = np.moveaxis(label, axis, 0)[1:], np.moveaxis(label, axis, 0)[:-1]
        differ = ahead != behind
        pairs, number = np.unique(np.stack([ahead[differ], behind[differ]]), axis=1, return_counts=True)
        for (a, b), n in zip(pairs.T.tolist(), number.tolist(), strict=True):
            for pair in ((a, b), (b, a)):
                faces[pair] = faces.get(pair, 0) + n
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value == 0:
            continue
        found = survey.labels.setdefault(value, LabelEvidence())
        found.cases += 1
        found.voxels.append(float(count))
        own = {b: n for (a, b), n in faces.items() if a == value}
        total = max(sum(own.values()), 1)
        for other, n in own.items():
            # a mean over the cases that have the value, each counting once
            found.border[other] = found.border.get(other, 0.0) + n / total
    # turned into shares once all cases are seen, by `border_shares`


def border_shares(survey: Survey) -> dict[int, LabelEvidence]:
    """Average the borders in the evidence over the cases that have the value."""
    return {
        value: LabelEvidence(e.cases, e.voxels, {other: s / e.cases for other, s in e.border.items()})
        for value, e in survey.labels.items()
    }


def _look_at_image(survey: Survey, volume: Volume) -> None:
    for name, values in zip(survey.channels, volume.image, strict=True):
        found, image = survey.images[name], torch.from_numpy(values)
        found.lowest.append(float(values.min()))
        found.highest.append(float(values.max()))
        found.whole.append(bool((values == np.rint(values)).all()))
        # a share of the air is asked for, which every n-th voxel tells as well
        steps = [max(1, min(round(LOOK_MM / s), n)) for s, n in zip(volume.spacing_mm, image.shape, strict=True)]
        every = (slice(None, None, steps[0]), slice(None, None, steps[1]), slice(None, None, steps[2]))
        spacing = [s * step for s, step in zip(volume.spacing_mm, steps, strict=True)]
        outside = ~body_of(image[every].contiguous(), Body(channel=name), spacing)
        if outside.float().mean() > OUTSIDE_SHARE:
            found.air.append(float(host_tissue(image[None])[every][outside].float().mean()))


def _usual_channels(cases: Sequence[Case]) -> tuple[str, ...]:
    """List the channels that more than half of the cases have, in the order of the first that has them all."""
    names = dict.fromkeys(name for case in cases for name in case.images)
    usual = [n for n in names if sum(n in case.images for case in cases) > len(cases) / 2]
    if not usual:
        raise ConfigError(f"channels: expected one that most cases have, got {', '.join(names) or 'none'}")
    return tuple(usual)


def _numbered(folder: Path, layout: str) -> tuple[str, ...]:
    """Choose names for the channels of a data set without dataset.json."""
    if layout == "msd":
        return ("channel0",)
    numbers = {
        int(path.name.split(".nii")[0][-4:]) for path in (folder / "imagesTr").glob("*_[0-9][0-9][0-9][0-9].nii*")
    }
    return tuple(f"channel{i}" for i in range(max(numbers, default=0) + 1))
