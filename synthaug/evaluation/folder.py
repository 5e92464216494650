"""Scores of a folder of predicted label maps against labelled cases."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib

from synthaug.classes import Classes
from synthaug.data import Case, CaseError, find_cases
from synthaug.data.dataset import ClassesGiven, find_classes
from synthaug.data.labels import named_labels
from synthaug.data.nifti import as_label, check_same_grid, read_nifti
from synthaug.evaluation.case import evaluate_case
from synthaug.geometry import triple


def evaluate_folder(
    predictions: str | os.PathLike,
    folder: str | os.PathLike,
    classes: ClassesGiven = None,
    layout: str = "auto",
    model: str | os.PathLike | None = None,
    **options: Any,
) -> Iterator[list[dict[str, Any]] | CaseError]:
    """Score the predictions ``<case>.nii.gz`` or ``<case>.nii`` of the labelled cases in a folder.

    Args:
        predictions: folder of the predicted label maps.
        folder: folder of the labelled cases; those without a prediction are not scored, unless none has one.
        classes: vocabulary of both maps; where not given, see `scored_classes`.
        layout: layout of `folder`, see `synthaug.data.find_cases`.
        model: folder of the run or model that predicted.
        **options: options of `evaluate_case`, such as ``surface=False``.

    Yields:
        The rows of a case, or, where its files cannot be used, why.

    Raises:
        ValueError: no labelled case has a prediction; or what `find_cases` raises.
    """
    vocabulary, predictions = scored_classes(predictions, folder, classes, layout, model)[0], Path(predictions)
    cases = [(case, case.label) for case in find_cases(Path(folder), layout=layout) if case.label is not None]
    pairs = [(case, true, path) for case, true in cases if (path := _prediction(predictions, case.name)) is not None]
    if not pairs:
        names = f", such as {cases[0][0].name}.nii.gz" if cases else ""
        raise ValueError(f"{predictions}: expected predictions of the {len(cases)} labelled cases{names}; found none")
    return (_scored(case, true, path, vocabulary, options) for case, true, path in pairs)


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
    return find_classes(Path(folder), find_cases(Path(folder), layout=layout), classes, structures=True)


def unpredicted(
    predictions: str | os.PathLike, folder: str | os.PathLike, layout: str = "auto"
) -> tuple[list[str], int]:
    """Names of the labelled cases without a prediction, and how many labelled cases there are."""
    cases = [case for case in find_cases(Path(folder), layout=layout) if case.label is not None]
    return [case.name for case in cases if _prediction(Path(predictions), case.name) is None], len(cases)


def _prediction(folder: Path, case: str) -> Path | None:
    return next((path for end in (".nii.gz", ".nii") if (path := folder / f"{case}{end}").is_file()), None)


def _scored(
    case: Case, true: Path, path: Path, classes: Classes, options: Mapping[str, Any]
) -> list[dict[str, Any]] | CaseError:
    """Score a case from the files of its true label and its prediction, or give what is wrong with them."""
    try:
        truth, found = read_nifti(case.name, true, 1), read_nifti(case.name, path, 1)
        check_same_grid(case.name, true, truth, path, found)
        prediction, label = as_label(case.name, path, found[0][0]), as_label(case.name, true, truth[0][0])
    except CaseError as error:
        return error
    spacing = triple(float(s) for s in nib.affines.voxel_sizes(truth[1]))
    try:
        return evaluate_case(prediction, label, classes, spacing, case=case.name, group=case.group, **options)
    except ValueError as error:
        return CaseError(f"{case.name}: {error}")
