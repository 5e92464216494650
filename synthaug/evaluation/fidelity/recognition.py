"""Recognisability: what a segmenter that the user names finds of inserted lesions, and of real ones."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from synthaug.data.nifti import LabelledVolume
from synthaug.evaluation.fidelity.scene import Inserted
from synthaug.evaluation.regions import default_regions
from synthaug.geometry import grown
from synthaug.profile.profile import Profile

Judge = Callable[[LabelledVolume], np.ndarray]
"""A volume to its label map (X, Y, Z), in the values of the data."""

AWAY_MM = 6.0
"""What is found this near to the host's own lesions is not counted, unless it is in the inserted one."""


def load_judge(path: str | Path, channels: Sequence[str]) -> Judge:
    """Load a segmenter: a model of ``synthaug train segmentation``, or a Python file with a class ``Judge``.

    Args:
        path: a run's or model's folder, or the file; ``Judge().segment(**images)`` takes each channel (X, Y, Z) by its
            canonical name and returns the label map.
        channels: canonical names of the data's channels.

    Raises:
        ValueError: neither of the two, a file without the class, or a model of other channels.
    """
    path = Path(path)
    if path.suffix == ".py" and path.is_file():
        return _of_file(path, channels)
    if not path.is_dir():
        raise ValueError(f"judge: expected the folder of a trained model or a Python file, got {path}")
    from synthaug.segmentation.model import Segmenter

    model = Segmenter.load(path)
    if tuple(model.config.channels) != tuple(channels):
        raise ValueError(f"judge: {path} was trained on {', '.join(model.config.channels)}, not {', '.join(channels)}")
    return model.segment


def _of_file(path: Path, channels: Sequence[str]) -> Judge:
    spec = importlib.util.spec_from_file_location("synthaug_judge", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"judge: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "Judge"):
        raise ValueError(f"judge: expected a class Judge with segment(**images) in {path}, got none")
    judge = module.Judge()
    return lambda volume: np.asarray(judge.segment(**dict(zip(channels, volume.image, strict=True))))


def dice_of_inserted(judge: Judge, inserted: Inserted, profile: Profile) -> dict[str, float]:
    """Compute Dice per region between what a segmenter finds in a host and the lesion that was inserted."""
    lesion = inserted.label.numpy()
    own = profile.space.rule.lesions_of(inserted.before.numpy())
    near = grown(torch.from_numpy(own != 0), AWAY_MM, inserted.volume.spacing_mm).numpy()
    return _dice(judge(inserted.volume), lesion, ~near | (lesion != 0), profile)


def dice_of_real(judge: Judge, volume: LabelledVolume, profile: Profile) -> dict[str, float]:
    """Compute Dice per region between what a segmenter finds in a case and its label."""
    lesion = profile.space.rule.lesions_of(volume.label)
    return _dice(judge(volume), lesion, np.ones(lesion.shape, bool), profile)


def _dice(found: np.ndarray, truth: np.ndarray, counted: np.ndarray, profile: Profile) -> dict[str, float]:
    scores = {}
    for name, members in (default_regions(profile.classes) or {n: (n,) for n in profile.classes.names}).items():
        values = [profile.classes.values[member] for member in members]
        a, b = np.isin(found, values) & counted, np.isin(truth, values)
        total = int(a.sum()) + int(b.sum())
        if b.any():  # a class that the lesion does not have says nothing of it
            scores[name] = 2 * float((a & b).sum()) / total
    return scores
