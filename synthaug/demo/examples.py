"""Single tumours in whole tumour-free brains, one for each of some options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthaug.demo.brains import Brain
from synthaug.demo.loop import CHANNELS
from synthaug.insertion.insertion import TumorInsertion
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.shapes import LesionShapes
from synthaug.progress import shown

TRIES = 4
"""A draw may find no place, such as a large lesion in a narrow brain; then the next draw is asked for."""


@dataclass(frozen=True)
class Example:
    """One insertion; images (C, X, Y, Z), labels (X, Y, Z).

    Attributes:
        title: options in words.
        code: the arguments of `TumorInsertion`, as written in Python.
        host: name of the brain.
        row: row of the plan, as `InsertionPlan.to_rows` gives it.
    """

    title: str
    code: str
    host: str
    before: np.ndarray
    after: np.ndarray
    label_before: np.ndarray
    label_after: np.ndarray
    row: dict[str, Any]


def make_examples(bank: LesionBank, hosts: Sequence[Brain], audit: Path, seed: int) -> list[Example]:
    """Insert one tumour for each option set, into the hosts in turn; every try is recorded in `audit`.

    Raises:
        RuntimeError: an option set for which every try was refused.
    """
    largest = max(bank, key=lambda lesion: sum(lesion.voxels) * np.prod(lesion.spacing_mm))
    one = bank.subset([largest.name])
    swaps = [("ED", "ET", 1.0), ("ET", "NCR", 1.0)]
    sets: tuple[tuple[str, str, LesionBank | LesionShapes, str, dict[str, Any]], ...] = (
        ("A donor's lesion at its own size", "one_lesion", one, "paste", {"scale": 1.0}),
        ("The same lesion, half as long", "one_lesion", one, "paste", {"scale": 0.5}),
        ("Oedema becomes enhancing, enhancing necrotic", "one_lesion", one, "paste", {"scale": 0.7, "swaps": swaps}),
        ("A donor's mask, painted by a trained network", "one_lesion", one, "brats-gan", {"scale": 0.8}),
        ("A donor's mask, painted from statistics", "bank", bank, "procedural", {"diameter_mm": 28.0}),
        ("An invented shape, no data needed", "LesionShapes()", LesionShapes(), "procedural", {"diameter_mm": 36.0}),
        ("An invented shape, a trained network", "LesionShapes()", LesionShapes(), "brats-gan", {"diameter_mm": 40.0}),
        ("A small invented shape", "LesionShapes()", LesionShapes(), "procedural", {"diameter_mm": 14.0}),
    )
    examples = []
    for number, (title, source, lesions, generator, options) in enumerate(shown(sets, "examples", "tumour")):
        insert = TumorInsertion(
            lesions, generator, channels=CHANNELS, prob=1.0, second=0.0, audit=audit, seed=seed + number, **options
        )
        arguments = ", ".join((source, f'"{generator}"', *(f"{k}={v!r}".replace("'", '"') for k, v in options.items())))
        examples.append(_example(title, arguments, insert, hosts[number % len(hosts)]))
    return examples


def _example(title: str, code: str, insert: TumorInsertion, host: Brain) -> Example:
    volume = host.volume
    image, label = torch.from_numpy(volume.image)[None], torch.from_numpy(volume.label)[None, None]
    for _ in range(TRIES):
        new_image, new_label, plan = insert.recorded(image, label, volume.spacing_mm, groups=[host.name])
        (row,) = plan.to_rows()
        if row["outcome"] == "done":
            after, label_after = new_image[0].numpy(), new_label[0, 0].numpy()
            return Example(title, code, host.name, volume.image, after, volume.label, label_after, row)
    raise RuntimeError(f"the demo could not insert {title!r} into {host.name} in {TRIES} tries: {row['reason']}")
