"""Scores of a folder of predicted label maps against labelled cases."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib

from synthaug.classes import Classes
from synthaug.data import Case, CaseError
from synthaug.data.dataset import ClassesGiven, find_classes, named_cases
from synthaug.data.labels import named_labels
from synthaug.data.nifti import as_label, check_same_grid
from synthaug.data.stored import read_voxels
from synthaug.evaluation.case import evaluate_case
from synthaug.geometry import triple
from synthaug.host.rule import HostRule


def evaluate_folder(
    predictions: str | os.PathLike,
    folder: str | os.PathLike,
    classes: ClassesGiven = None,
    layout: str = "auto",
    channels: Sequence[str] | None = None,
    group_pattern: str | None = None,
    rule: HostRule | None = None,
    model: str | os.PathLike | None = None,
    **options: Any,
) -> Iterator[list[dict[str, Any]] | CaseError]:
    """Score the predictions ``<case>.nii.gz`` or ``<case>.nii`` of the labelled cases in a folder.

    Args:
        predictions: folder of the predicted label maps.
        folder: folder of the labelled cases; those without a prediction are not scored, unless none has one.
        classes: vocabulary of both maps; where not given, see `scored_classes`.
        layout: layout of `folder`, see `synthaug.data.find_cases`.
        channels: names in order, where the folder does not name them.
        group_pattern: regular expression that finds the patient in a case's name.
        rule: host rule of a profile, whose organs and avoided labels are no lesions.
        model: folder of the run or model that predicted.
        **options: options of `evaluate_case`, such as ``surface=False``.

    Yields:
        The rows of a case, or, where its files cannot be used, why.

    Raises:
        ValueError: no labelled case has a prediction; or what `find_cases` raises.
    """
    vocabulary = scored_classes(predictions, folder, classes, layout, model)[0]
    cases = named_cases(Path(folder), layout, channels, group_pattern)
    return evaluate_cases(predictions, cases, vocabulary, rule, **options)


def evaluate_cases(
    predictions: str | os.PathLike,
    cases: Iterable[Case],
    classes: Classes,
    rule: HostRule | None = None,
    **options: Any,
) -> Iterator[list[dict[str, Any]] | CaseError]:
    """Score the predictions of those of `cases` that have a label; see `evaluate_folder`."""
    predictions, labelled = Path(predictions), [(case, case.label) for case in cases if case.label is not None]
    pairs = [(case, true, path) for case, true in labelled if (path := _prediction(predictions, case.name)) is not None]
    if not pairs:
        names = f", such as {labelled[0][0].name}.nii.gz" if labelled else ""
        raise ValueError(
            f"{predictions}: expected predictions of the {len(labelled)} labelled cases{names}; found none"
        )
    return (_scored(case, true, path, classes, options, rule or HostRule()) for case, true, path in pairs)


def scored_classes(
    predictions: str | os.PathLike,
    folder: str | os.PathLike,
    classes: ClassesGiven = None,
    layout: str = "auto",
    model: str | os.PathLike | None = None,
) -> tuple[Classes, str | None]:
    """Find the classes to score, and what says them where they were not given.

    In this order: those given, those of the model, those of a ``dataset.json`` beside the predictions, as `predict` and
    nnU-Net leave it, and what the labelled cases' data set says (`synthaug.data.dataset`), organs too.

    Raises:
        ValueError: none of them says it, or the model cannot be read.
    """
    if classes is None and model is not None:
        from synthaug.segmentation.model import load_model

        config = load_model(Path(model))[0]
        return Classes(config.classes_name, config.classes), f"the model {model}"
    if classes is None and (named := named_labels(Path(predictions))) is not None and named[0]:
        return Classes(named[1], named[0]), f"{named[1]} of the predictions"
    return find_classes(Path(folder), named_cases(Path(folder), layout), classes, structures=True)


def unpredicted(predictions: str | os.PathLike, cases: Iterable[Case]) -> list[str]:
    """List the names of those cases that have no prediction."""
    return [case.name for case in cases if _prediction(Path(predictions), case.name) is None]


def _prediction(folder: Path, case: str) -> Path | None:
    return next((path for end in (".nii.gz", ".nii") if (path := folder / f"{case}{end}").is_file()), None)


def _scored(
    case: Case, true: Path, path: Path, classes: Classes, options: Mapping[str, Any], rule: HostRule
) -> list[dict[str, Any]] | CaseError:
    """Score a case from the files of its true label and its prediction, or give what is wrong with them."""
    try:
        truth, found = read_voxels(case.name, true, 1), read_voxels(case.name, path, 1)
        check_same_grid(case.name, true, truth, path, found)
        prediction = rule.lesions_of(as_label(case.name, path, found[0][0]))
        label = rule.lesions_of(as_label(case.name, true, truth[0][0]))
    except CaseError as error:
        return error
    spacing = triple(float(s) for s in nib.affines.voxel_sizes(truth[1]))
    try:
        return evaluate_case(prediction, label, classes, spacing, case=case.name, group=case.group, **options)
    except ValueError as error:
        return CaseError(f"{case.name}: {error}")
