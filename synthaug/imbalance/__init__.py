"""Class imbalance of a data set: figures, a picture, and a suggested insertion with its reasons."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from synthaug.data.dataset import ClassesGiven
from synthaug.figures.charts import svg
from synthaug.figures.slices import rendered, require_matplotlib
from synthaug.files import replace_file
from synthaug.host.space import Space
from synthaug.imbalance.measure import Measurements, measure_cases, measure_folder
from synthaug.imbalance.separability import ClassPair, compare_all
from synthaug.imbalance.suggestion import Suggestion, suggest
from synthaug.lesions.cutting import MIN_VOXELS
from synthaug.sizes import SizeClasses

__all__ = [
    "ClassPair",
    "Measurements",
    "Suggestion",
    "check_out",
    "compare_all",
    "measure_cases",
    "measure_folder",
    "run_imbalance",
    "suggest",
]

FILES = ("imbalance.html", "imbalance.png", "imbalance.json", "insertion.yaml")


def check_out(out: str | os.PathLike) -> Path:
    """Check that a folder can be made there, or is there.

    Raises:
        ValueError: it is a file.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {out}")
    return out


def run_imbalance(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    classes: ClassesGiven = None,
    channels: Sequence[str] | None = None,
    layout: str = "auto",
    min_voxels: int = MIN_VOXELS,
    seed: int = 0,
    space: Space | None = None,
) -> str:
    """Measure a folder, and write a page, its picture, the figures and a suggested ``insertion`` section.

    Args:
        folder: labelled cases; only read.
        out: folder for `FILES`; made if it is not there.
        classes: vocabulary of the labels; where not given, what the data say (`synthaug.data.dataset`).
        channels: whose intensities are compared; where not given, those of the cases.
        layout: layout of `folder`, see `synthaug.data.find_cases`.
        min_voxels: smaller components are specks.
        seed: seed of the voxels and sizes that are drawn.
        space: host rule and units of the data's profile; those of skull-stripped images where not given.

    Returns:
        The same in words.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no tumour in the folder, or `out` is a file.
    """
    from synthaug.imbalance import report
    from synthaug.imbalance.picture import draw

    require_matplotlib("the picture of an imbalance")
    out = check_out(out)
    measured = measure_folder(folder, classes, channels, layout, min_voxels, seed, space)
    sizes = SizeClasses()
    pairs = compare_all(measured.intensities, measured.channels)
    suggestion = suggest(measured, pairs, sizes, seed)
    picture = draw(measured, pairs, suggestion, sizes)
    page = report.to_page(measured, pairs, suggestion, sizes, svg(picture), Path(folder).name)
    replace_file(out / FILES[0], page)
    replace_file(out / FILES[1], rendered(picture, picture.canvas))
    replace_file(out / FILES[2], json.dumps(report.to_dict(measured, pairs, suggestion, sizes), indent=1) + "\n")
    replace_file(out / FILES[3], suggestion.yaml())
    return report.to_text(measured, pairs, suggestion, sizes)
