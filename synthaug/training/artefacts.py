"""Files that a run writes for its report: scores of validation, slices of cases and of samples with insertions.

    validation.jsonl            rows of `evaluate_case` with their step
    validation/<case>.npz       axial slices of a case as it was last predicted, and some through its lesions
    validation/<case>.json      where its false regions and its true lesions lie, where that is asked for
    examples/step_00000100.npz  an axial slice of a sample before and after insertion, and some through the insertion

Call these on the main process. Files are written beside and renamed, so that a kill leaves none half-written.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from synthaug.figures.slices import through
from synthaug.files import replace_file
from synthaug.geometry import triple
from synthaug.host import host_tissue
from synthaug.insertion.report import append_rows

ROWS, CASES, EXAMPLES = "validation.jsonl", "validation", "examples"


@dataclass(frozen=True)
class Stack:
    """Axial slices spread through what a page shows, to be scrolled through.

    Attributes:
        image: (S, C, X, Y) uint8, black to white between the levels of each channel.
        tissue: (S, X, Y) bool, what is not background.
        labels: (L, S, X, Y), the truth and the prediction of a case, or the label of a sample.
        z: (S,) positions of the slices.
    """

    image: np.ndarray
    tissue: np.ndarray
    labels: np.ndarray
    z: tuple[int, ...]


@dataclass(frozen=True)
class CaseSlices:
    """Axial slices of a validation case.

    Attributes:
        case: name of the case.
        image: (N, C, X, Y) float16.
        tissue: (N, X, Y) bool, what is not background.
        label: (N, X, Y) the truth.
        prediction: (N, X, Y).
        levels: (C, 2) intensities shown black and white.
        z: (N,) positions of the slices.
        spacing_mm: voxel size.
        stack: slices through the lesions, true and predicted; None in files of before.
    """

    case: str
    image: np.ndarray
    tissue: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    levels: np.ndarray
    z: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    stack: Stack | None


@dataclass(frozen=True)
class ExampleSlice:
    """One axial slice of a sample before and after insertion, and others after it.

    Images are (C, X, Y), the others (X, Y); ``stack`` goes through what was inserted, None in files of before.
    """

    step: int
    before: np.ndarray
    after: np.ndarray
    tissue: np.ndarray
    label_before: np.ndarray
    label_after: np.ndarray
    levels: np.ndarray
    z: int
    rows: list[dict[str, Any]]
    stack: Stack | None


def record_rows(run: str | Path, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append the rows of a validation; those of a step that is done again replace the old ones when they are read."""
    append_rows(Path(run) / ROWS, [{"step": step, **row} for row in rows])


def read_rows(run: str | Path) -> list[dict[str, Any]]:
    """Read the rows of all validations, each (step, case, region, size) once, its last; none where there is no file."""
    file = Path(run) / ROWS
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return list({tuple(row.get(k) for k in ("step", "case", "region", "size")): row for row in rows}.values())


def keep_validation(
    run: str | Path, case: str, image: Any, label: Any, prediction: Any, spacing_mm: Sequence[float] = (1, 1, 1)
) -> None:
    """Keep two slices of a validation case, and some through its lesions, in place of those of the validation before.

    The two are the slice that shows most of all classes and, if another, the slice with most wrong voxels.

    Args:
        run: folder of the run.
        case: name of the case.
        image: (C, X, Y, Z) float, an array or a tensor.
        label: (X, Y, Z) integer, the truth.
        prediction: (X, Y, Z) integer.
        spacing_mm: voxel size.

    Raises:
        ValueError: shapes that do not fit.
    """
    image, label, prediction = (_array(x) for x in (image, label, prediction))
    if image.ndim != 4 or not image.shape[1:] == label.shape == prediction.shape:
        shapes = f"{image.shape}, {label.shape} and {prediction.shape}"
        raise ValueError(f"expected an image (C, X, Y, Z), a label and a prediction (X, Y, Z), got {shapes}")
    wrong = (label != prediction).sum((0, 1))
    z = sorted(
        {_showing(label if label.any() else prediction), int(wrong.argmax())} if wrong.any() else {_showing(label)}
    )
    tissue = _tissue(image)
    levels = _levels(image, tissue)
    labels = np.stack([label, prediction])
    _write(
        Path(run) / CASES / f"{_file_name(case)}.npz",
        case=np.array(case),
        image=np.stack([image[..., i] for i in z]).astype(np.float16),
        tissue=np.stack([tissue[..., i] for i in z]),
        label=np.stack([label[..., i] for i in z]).astype(np.int16),
        prediction=np.stack([prediction[..., i] for i in z]).astype(np.int16),
        levels=levels,
        z=np.array(z),
        spacing_mm=np.array(spacing_mm, dtype=float),
        **_stack(image, tissue, labels, (labels != 0).any((0, 1, 2)), levels),
    )


def keep_example(
    run: str | Path,
    step: int,
    before: Any,
    after: Any,
    label_before: Any,
    label_after: Any,
    rows: Sequence[Mapping[str, Any]],
) -> bool:
    """Keep the slice of a sample that shows most of what was inserted, and some through it; nothing where nothing was.

    Args:
        run: folder of the run.
        step: training step, counted from 1.
        before: (C, X, Y, Z) float, the sample without insertions.
        after: (C, X, Y, Z) float, the sample with them.
        label_before: (X, Y, Z) integer.
        label_after: (X, Y, Z) integer.
        rows: the sample's insertions, as `InsertionPlan.to_rows` gives them.

    Returns:
        Whether there was something to keep.
    """
    before, after, label_before, label_after = (_array(x) for x in (before, after, label_before, label_after))
    new = (label_before != label_after).sum((0, 1))
    if not new.any():
        return False
    z, tissue = int(new.argmax()), _tissue(before)
    levels = _levels(before, tissue)
    levels[:, 1] = np.maximum(levels[:, 1], _levels(after, tissue)[:, 1])
    _write(
        Path(run) / EXAMPLES / f"step_{step:08d}.npz",
        step=np.array(step),
        before=before[..., z].astype(np.float16),
        after=after[..., z].astype(np.float16),
        tissue=tissue[..., z],
        label_before=label_before[..., z].astype(np.int16),
        label_after=label_after[..., z].astype(np.int16),
        levels=levels,
        z=np.array(z),
        rows=np.array(json.dumps(list(rows))),
        **_stack(after, tissue, label_after[None], new > 0, levels),
    )
    return True


def keep_components(run: str | Path, case: str, found: Mapping[str, Any]) -> None:
    """Keep where false regions and true lesions of a validation case lie, in place of those of the validation before.

    Args:
        run: folder of the run.
        case: name of the case.
        found: what `synthaug.evaluation.components.components` gives, with ``case`` and ``group``.
    """
    replace_file(Path(run) / CASES / f"{_file_name(case)}.json", json.dumps(found) + "\n")


def read_components(run: str | Path) -> list[dict[str, Any]]:
    """Read what `keep_components` kept of each validation case, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((Path(run) / CASES).glob("*.json"))]


def read_validation(run: str | Path) -> dict[str, CaseSlices]:
    """Read the slices of validation cases, by the name of their case."""
    found = {}
    for path in sorted((Path(run) / CASES).glob("*.npz")):
        kept, stack = _read(path)
        case, z, spacing = str(kept.pop("case")), kept.pop("z").tolist(), kept.pop("spacing_mm").tolist()
        found[case] = CaseSlices(case=case, z=tuple(z), spacing_mm=triple(spacing), stack=stack, **kept)
    return found


def read_examples(run: str | Path) -> list[ExampleSlice]:
    """Read the examples, in the order of their steps."""
    examples = []
    for path in sorted((Path(run) / EXAMPLES).glob("step_*.npz")):
        kept, stack = _read(path)
        step, z, rows = int(kept.pop("step")), int(kept.pop("z")), json.loads(str(kept.pop("rows")))
        examples.append(ExampleSlice(step=step, z=z, rows=rows, stack=stack, **kept))
    return examples


def _write(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_file(path, buffer.getvalue())


def _read(path: Path) -> tuple[dict[str, np.ndarray], Stack | None]:
    with np.load(path, allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    found = {name: kept.pop(f"stack_{name}") for name in ("image", "tissue", "labels", "z") if f"stack_{name}" in kept}
    return kept, Stack(**found | {"z": tuple(found["z"].tolist())}) if found else None


def _stack(
    image: np.ndarray, tissue: np.ndarray, labels: np.ndarray, shown: np.ndarray, levels: np.ndarray
) -> dict[str, np.ndarray]:
    """Make the arrays of a `Stack` of an image (C, X, Y, Z) and labels (L, X, Y, Z), through slices `shown` (Z,)."""
    z = through(shown)
    low, high = (rearrange(level, "c -> c 1 1 1") for level in levels.T)
    share = ((image[..., z] - low) / np.maximum(high - low, 1e-6)).clip(0, 1)
    return {
        "stack_image": rearrange((255 * share).round().astype(np.uint8), "c x y s -> s c x y"),
        "stack_tissue": rearrange(tissue[..., z], "x y s -> s x y"),
        "stack_labels": rearrange(labels[..., z].astype(np.int16), "l x y s -> l s x y"),
        "stack_z": np.array(z, dtype=int),
    }


def _array(values: Any) -> np.ndarray:
    return values.detach().float().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def _tissue(image: np.ndarray) -> np.ndarray:
    return host_tissue(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))).numpy()


def _levels(image: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Find the intensities shown black and white, (C, 2): the 1st and 99.7th percentile of each channel in tissue."""
    inside = tissue if tissue.any() else np.ones_like(tissue)
    return np.stack([np.percentile(channel[inside], (1, 99.7)) for channel in image]).astype(np.float32)


def _showing(label: np.ndarray) -> int:
    """Find the slice with the greatest shares of all classes, each counted alike; the middle one where none is."""
    values = [value for value in np.unique(label) if value != 0]
    if not values:
        return label.shape[-1] // 2
    return int(sum((label == v).sum((0, 1)) / (label == v).sum() for v in values).argmax())


def _file_name(case: str) -> str:
    """Make a file name of a case's name."""
    return re.sub(r"[^\w.-]+", "_", case) or "case"
