"""Segment the cases of a folder with a trained model."""

import json
from collections.abc import Iterator
from pathlib import Path

from synthaug.data.cases import CaseError, find_cases
from synthaug.files import replace_file
from synthaug.progress import shown
from synthaug.segmentation.inference import InferenceConfig
from synthaug.segmentation.model import Segmenter


def predict_folder(
    model: Segmenter,
    folder: str | Path,
    out: str | Path,
    layout: str = "auto",
    inference: InferenceConfig | None = None,
) -> Iterator[Path | CaseError]:
    """Segment each case of a folder and write ``<case>.nii.gz`` on its own grid; ``dataset.json`` names the values.

    A case that cannot be used does not stop the others: its error is given in place of its file.

    Args:
        model: trained model.
        folder: cases, labelled or not; see `synthaug.data.find_cases`.
        out: folder of the label maps, made where it is missing.
        layout: layout of `folder`.
        inference: windows and mirror images, in place of the model's own.

    Raises:
        ValueError: no case there, or `out` is the folder itself.
    """
    folder, out = Path(folder), Path(out)
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} holds the cases themselves; expected another folder to write to")
    for case in shown(find_cases(folder, layout, model.config.channels), "predict", "case"):
        try:
            yield model.write_prediction(case, out, inference)
        except CaseError as error:
            yield error
    labels = {"background": 0, **model.config.classes}
    replace_file(out / "dataset.json", json.dumps({"labels": labels}, indent=1) + "\n")
