"""Masks from a `LesionSampler` as donors of a painter: they become lesions of no patient."""

from collections.abc import Sequence

import numpy as np
import torch

from synthaug.lesions.bank import FORMAT, VERSION, LesionBank
from synthaug.lesions.cutting import lesion_row, names_of, tensors_of
from synthaug.lesions.sampler import LesionSampler
from synthaug.random import stream


def mask_bank(sampler: LesionSampler, count: int, seed: int, channels: Sequence[str]) -> LesionBank:
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
