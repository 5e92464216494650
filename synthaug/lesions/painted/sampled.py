"""Lesions of no patient: masks from a `LesionSampler`, painted ahead by a generator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from synthaug.channels import BRATS_CHANNELS
from synthaug.checks import checked_at_least
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.lesions.bank import FORMAT, VERSION, LesionBank
from synthaug.lesions.cutting import lesion_row, names_of, tensors_of
from synthaug.lesions.painted.painter import LesionPainter
from synthaug.lesions.painted.threads import painted_by
from synthaug.lesions.sampler import LesionSampler
from synthaug.random import stream


def paint_samples(
    sampler: LesionSampler,
    generator: str | TumorGenerator,
    count: int,
    channels: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> LesionBank:
    """Paint sampled masks; see `LesionSampler.painted`."""
    number = int(checked_at_least("count", count, 1))
    known = resolve_generator(generator).channels if channels is None else tuple(channels)
    masks = _mask_bank(sampler, number, seed, known or BRATS_CHANNELS)
    painter = LesionPainter(masks, generator, seed=seed, **options)
    painter.facts["source"]["patients"] = list(sampler.patients)
    paintings = painted_by(painter, range(number), progress)
    return masks.of_rows([timed.painting.row for timed in paintings], painter.facts)


def _mask_bank(sampler: LesionSampler, count: int, seed: int, channels: Sequence[str]) -> LesionBank:
    """Collect sampled masks as the donors of a painter; they have no look, and no statistics of any."""
    rows, cpu = [], torch.device("cpu")
    for number in range(count):
        lesion = sampler.lesion(f"sampled:{int(stream(seed, number).integers(2**62))}")
        mask = sampler.mask(lesion.name, cpu).numpy()
        nothing = torch.zeros(len(channels), *mask.shape)
        frame = None if lesion.frame is None else np.array(lesion.frame)
        row = lesion_row(lesion.name, None, mask, nothing, lesion.spacing_mm, len(sampler.classes), frame=frame)
        unknown = torch.full((len(sampler.classes), len(channels)), torch.nan)
        rows.append(row | {"mean": unknown, "std": unknown})
    values = None if sampler.vocabulary is None else dict(sampler.vocabulary.values)
    header = {"format": FORMAT, "version": VERSION, "classes": list(sampler.classes), "values": values}
    header |= {"channels": list(channels), "per": "lesion", "skipped": []}
    return LesionBank(header | names_of(rows), tensors_of(rows))
