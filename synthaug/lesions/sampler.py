"""A learned sampler of lesion masks: as a bank's lesions are in size, classes and outline, or as they are asked for.

The counterpart of GliGAN's label generator (Ferreira et al. 2024, arXiv 2402.17317), small enough to be learned from a
dozen lesions in seconds: a statistical shape model (`synthaug.lesions.shape_model`). Its file holds no mask.
"""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor

from synthaug.checks import checked_at_least, checked_range
from synthaug.classes import Classes, of_names
from synthaug.files import replace_file
from synthaug.geometry import bounding_box
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Candidates, Lesion, LesionSource
from synthaug.lesions.shape_model import ShapeModel, enlarged, outline_of
from synthaug.lesions.tensors import read_tensors
from synthaug.random import stream

FORMAT, VERSION = "synthaug-lesion-sampler", 1
PREFIX = "sampled:"
ROUNDS = 60


class LesionSampler(LesionSource):
    """Samples lesion masks from a model that was fitted to a bank.

    Args:
        model: of the shapes.
        classes: class names of the masks.
        values: label values of the classes in the cases, where they are known.
        diameter_mm: range of the diameter of the sphere of equal volume; as in the bank where not given.
        proportions: class name to share of the volume; as lesions of the bank have them where not given.
        irregularity: how far outlines stray from the mean lesion's: 0 for that, 1 as in the bank.

    Raises:
        ValueError: an unknown class, shares that are negative or all 0, an inverted range.

    Example:
        >>> from synthaug import LesionShapes
        >>> shapes = LesionShapes(diameter_mm=(20, 40))
        >>> cpu = torch.device("cpu")
        >>> lesions = [(shapes.mask(f"shape:{n}", cpu), shapes.lesion(f"shape:{n}").spacing_mm) for n in range(6)]
        >>> sampler = LesionSampler(ShapeModel.fit(lesions, 3), ("NCR", "ED", "ET"), diameter_mm=(30, 30))
        >>> lesion = sampler.lesion("sampled:7")
        >>> round(float(sum(lesion.voxels) * lesion.spacing_mm[0] ** 3 / 1000), 1)  # ml of a ball of 30 mm
        14.1
        >>> sampler.mask("sampled:7", cpu).shape == tuple(n + 6 for n in lesion.size_vox)
        True
    """

    margin_vox = 3

    def __init__(
        self,
        model: ShapeModel,
        classes: tuple[str, ...],
        values: Mapping[str, int] | None = None,
        diameter_mm: float | tuple[float, float] | None = None,
        proportions: Mapping[str, float] | None = None,
        irregularity: float = 1.0,
    ):
        if model.classes != len(classes):
            raise ValueError(f"classes: expected {model.classes} names, got {', '.join(classes)}")
        self.model, self.classes, self._values = model, tuple(classes), values
        self.diameter_mm = None if diameter_mm is None else checked_range("diameter_mm", diameter_mm)
        self.irregularity = checked_at_least("irregularity", irregularity)
        self.shares = None if proportions is None else self._checked_shares(proportions)
        self._made = lru_cache(maxsize=64)(self._sampled)

    def _checked_shares(self, proportions: Mapping[str, float]) -> np.ndarray:
        known = of_names(self.classes)
        shares = dict.fromkeys(self.classes, 0.0)
        for name, share in proportions.items():
            shares[known.canonical(name)] = checked_at_least(f"proportions[{name}]", share)
        found = np.array(list(shares.values()))
        if found.sum() <= 0:
            raise ValueError(f"proportions: expected a positive sum, got {dict(proportions)}")
        return found / found.sum()

    @classmethod
    def fit(cls, bank: LesionBank, seed: int = 0, **asked: Any) -> "LesionSampler":
        """Learn from a bank.

        Args:
            bank: lesions; three or more.
            seed: by which lesions are drawn of a bank of more than 256.
            **asked: `diameter_mm`, `proportions`, `irregularity`.

        Raises:
            ValueError: fewer than three lesions, and what the constructor raises.
        """
        cpu = torch.device("cpu")
        lesions = [(bank.mask(lesion.name, cpu), lesion.spacing_mm) for lesion in bank]
        values = None if bank.vocabulary is None else bank.vocabulary.values
        return cls(ShapeModel.fit(lesions, len(bank.classes), seed), bank.classes, values, **asked)

    def asked(self, **changes: Any) -> "LesionSampler":
        """Make a sampler of the same model that is asked for other lesions; see the class for the arguments."""
        shares = None if self.shares is None else dict(zip(self.classes, self.shares.tolist(), strict=True))
        now = {"diameter_mm": self.diameter_mm, "proportions": shares, "irregularity": self.irregularity}
        return LesionSampler(self.model, self.classes, self._values, **(now | changes))

    @property
    def vocabulary(self) -> Classes | None:
        """The classes with the label values of the bank's cases; None where these are not known."""
        if self._values is None:
            return None
        return Classes("of the sampler", self._values, of_names(self.classes).aliases)

    def candidates(self, rng: np.random.Generator, exclude_group: str | None) -> Candidates:
        """Draw one fresh lesion; it is of no patient, so `exclude_group` excludes nothing."""
        return Candidates([self.lesion(f"{PREFIX}{rng.integers(2**62)}")])

    def lesion(self, name: str) -> Lesion:
        """Sample the lesion of that name, which carries its seed.

        Raises:
            ValueError: the name is not one of a sampled lesion.
        """
        mask, diameter = self._made(self._seed(name))
        counts = np.bincount(mask.numpy().ravel(), minlength=len(self.classes) + 1)[1:]
        spacing = float(diameter / (6 * counts.sum() / np.pi) ** (1 / 3))
        size = tuple(n - 2 * self.margin_vox for n in mask.shape)
        return Lesion(name, None, size, (spacing,) * 3, tuple(counts.tolist()))  # type: ignore[arg-type] # of three

    def mask(self, name: str, device: torch.device) -> Tensor:
        """Return a sampled lesion's mask, (X, Y, Z) uint8, k + 1 in class k: the tight box and 3 voxels around it."""
        return self._made(self._seed(name))[0].to(device, non_blocking=True)

    def _seed(self, name: str) -> int:
        if not name.startswith(PREFIX) or not name[len(PREFIX) :].isdigit():
            raise ValueError(
                f"LesionSampler has no lesion {name!r}: expected {PREFIX}<seed>; was the plan made with it?"
            )
        return int(name[len(PREFIX) :])

    def _sampled(self, seed: int) -> tuple[Tensor, float]:
        """Sample a mask with its margin, and the diameter in mm that it has."""
        rng = stream(seed)
        place = rng.random()
        diameter = None if self.diameter_mm is None else float(np.interp(place, (0, 1), self.diameter_mm))
        diameter, shares, fields = self.model.drawn(rng, diameter, self.shares, self.irregularity)
        fields = enlarged(fields)
        outline = _largest(outline_of(fields[0]))
        mask = _divided(fields[1:], outline, shares)
        tight = mask[bounding_box(mask.numpy() > 0)]
        return F.pad(tight, (self.margin_vox,) * 6), diameter

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to one safetensors file; what the sampler is asked for is not part of it."""
        model = self.model
        header = {
            "format": FORMAT,
            "version": VERSION,
            "classes": list(self.classes),
            "values": None if self._values is None else dict(self._values),
        }
        tensors = {
            "mean": model.mean.contiguous(),
            "components": model.components.half().contiguous(),
            "roughness": model.roughness.contiguous(),
            "told": torch.from_numpy(model.told),
            "covariance": torch.from_numpy(np.ascontiguousarray(model.covariance)),
        }
        replace_file(path, serialized(tensors, metadata={"sampler": json.dumps(header)}))

    @classmethod
    def load(cls, path: str | os.PathLike, **asked: Any) -> "LesionSampler":
        """Read a sampler's file.

        Args:
            path: of the file.
            **asked: `diameter_mm`, `proportions`, `irregularity`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of another kind or version.
        """
        header, tensors = read_tensors(path, "sampler")
        if not isinstance(header, dict) or (header.get("format"), header.get("version")) != (FORMAT, VERSION):
            raise ValueError(f"lesion sampler {path}: expected a file of LesionSampler.save, version {VERSION}")
        model = ShapeModel(
            tensors["mean"],
            tensors["components"].float(),
            tensors["roughness"],
            tensors["told"].numpy(),
            tensors["covariance"].numpy(),
        )
        return cls(model, tuple(header["classes"]), header["values"], **asked)


def is_sampler(path: str | os.PathLike) -> bool:
    """Tell whether a file is one of `LesionSampler.save`."""
    try:
        with safe_open(path, "pt") as file:
            return "sampler" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _largest(mask: Tensor) -> Tensor:
    """Keep the largest connected part."""
    return torch.from_numpy(cc3d.largest_k(mask.numpy(), k=1, connectivity=26) > 0)


def _divided(scores: Tensor, outline: Tensor, shares: np.ndarray) -> Tensor:
    """Divide a lesion among its classes by their scores, raised or lowered until each has about its share.

    Args:
        scores: (K, X, Y, Z) logarithms of local shares.
        outline: (X, Y, Z) bool.
        shares: (K,) of the volume.
    """
    inside, wanted = scores[:, outline], torch.from_numpy(shares).float()
    raised = torch.where(wanted > 0, torch.zeros_like(wanted), torch.tensor(-torch.inf))
    step = 1.0
    for _ in range(ROUNDS):
        has = torch.bincount((inside + raised[:, None]).argmax(0), minlength=len(wanted)) / inside.shape[1]
        raised = torch.where(wanted > 0, raised + step * ((wanted + 1e-3) / (has + 1e-3)).log().clamp(-1, 1), raised)
        step *= 0.95
    mask = torch.zeros(outline.shape, dtype=torch.uint8)
    mask[outline] = ((inside + raised[:, None]).argmax(0) + 1).to(torch.uint8)
    return mask
