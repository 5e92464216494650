"""A learned sampler of lesion masks: as a bank's lesions are in size, classes and outline, or as they are asked for.

The counterpart of GliGAN's label generator (Ferreira et al. 2024, arXiv 2402.17317), small enough to be learned from a
dozen lesions in seconds: a statistical shape model (`synthaug.lesions.shape_model`). Its file holds no mask.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor

from synthaug.channels import BRATS_CHANNELS
from synthaug.checks import checked_at_least, checked_range
from synthaug.classes import Classes, of_names
from synthaug.files import replace_file
from synthaug.frames import place
from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.hub import SHIPPED
from synthaug.geometry import bounding_box, triple
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import Candidates, Lesion, LesionSource, center_of
from synthaug.lesions.places import PlaceFrequency
from synthaug.lesions.shape_model import ShapeModel, enlarged, outline_of
from synthaug.lesions.tensors import read_tensors
from synthaug.random import stream

FORMAT, VERSION = "synthaug-lesion-sampler", 2
PREFIX = "sampled:"
ROUNDS = 60
MOST_LESIONS = 256
FILE = "sampler.safetensors"


@dataclass(frozen=True)
class Homes:
    """Where the lesions lay that a sampler has learned from, in host coordinates (`synthaug.frames`).

    Attributes:
        centers: (N, 3) float64 middles of the lesions; NaN where one is not known.
        per_mm: (N, 3) float64, how far one mm goes in their hosts.
        frequency: of lesions over a host.
    """

    centers: np.ndarray
    per_mm: np.ndarray
    frequency: PlaceFrequency

    @classmethod
    def of(cls, lesions: Sequence[Lesion], margin_vox: int, frequency: PlaceFrequency | None) -> "Homes | None":
        """Collect those of a bank's lesions; None where no place is known."""
        if frequency is None:
            return None
        centers, per_mm = np.full((2, len(lesions), 3), np.nan)
        for n, lesion in enumerate(lesions):
            if lesion.frame is not None:
                centers[n] = center_of(lesion, margin_vox)
                per_mm[n] = np.linalg.norm(np.array(lesion.frame)[:, :3] / lesion.spacing_mm, axis=1)
        return cls(centers, per_mm, frequency)

    def frame(self, number: int, size: Sequence[int], spacing_mm: float) -> tuple[tuple[float, ...], ...] | None:
        """Make the frame of a box with its middle where lesion `number` lay, upright; None where that is not known."""
        linear = np.diag(self.per_mm[number]) * spacing_mm
        offset = self.centers[number] - place(np.c_[linear, np.zeros(3)], [n // 2 for n in size])
        return None if np.isnan(offset).any() else tuple(map(tuple, np.c_[linear, offset].tolist()))


class LesionSampler(LesionSource):
    """Samples lesion masks from a model that was fitted to a bank.

    Args:
        model: of the shapes.
        classes: class names of the masks.
        values: label values of the classes in the cases, where they are known.
        diameter_mm: range of the diameter of the sphere of equal volume; as in the bank where not given.
        proportions: class name to share of the volume; as lesions of the bank have them where not given.
        irregularity: how far outlines stray from the mean lesion's: 0 for that, 1 as in the bank.
        homes: where the bank's lesions lay, where that is known: each sampled one has the place of one that it is like.
        patients: whose lesions the bank's are.

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
        homes: Homes | None = None,
        patients: Iterable[str] = (),
    ):
        if model.classes != len(classes):
            raise ValueError(f"classes: expected {model.classes} names, got {', '.join(classes)}")
        self.model, self.classes, self._values = model, tuple(classes), values
        self.homes, self.patients = homes, tuple(sorted({*patients}))
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
        lesions, cpu = list(bank), torch.device("cpu")
        if len(lesions) > MOST_LESIONS:
            drawn = np.random.default_rng(seed).choice(len(lesions), MOST_LESIONS, replace=False)
            lesions = [lesions[i] for i in sorted(drawn)]
        model = ShapeModel.fit([(bank.mask(x.name, cpu), x.spacing_mm) for x in lesions], len(bank.classes))
        known: dict[str, Any] = {
            "values": None if bank.vocabulary is None else bank.vocabulary.values,
            "homes": Homes.of(lesions, bank.margin_vox, bank.places),
            "patients": bank.groups,
        }
        return cls(model, bank.classes, **known, **asked)

    def asked(self, **changes: Any) -> "LesionSampler":
        """Make a sampler of the same model that is asked for other lesions; see the class for the arguments."""
        shares = None if self.shares is None else dict(zip(self.classes, self.shares.tolist(), strict=True))
        now = {"diameter_mm": self.diameter_mm, "proportions": shares, "irregularity": self.irregularity}
        known = {"homes": self.homes, "patients": self.patients}
        return LesionSampler(self.model, self.classes, self._values, **(now | known | changes))

    @property
    def vocabulary(self) -> Classes | None:
        """The classes with the label values of the bank's cases; None where these are not known."""
        if self._values is None:
            return None
        return Classes("of the sampler", self._values, of_names(self.classes).aliases)

    @property
    def places(self) -> PlaceFrequency | None:
        """How often the bank's lesions lay where; None where that is not known."""
        return None if self.homes is None else self.homes.frequency

    def candidates(self, rng: np.random.Generator, exclude_group: str | None) -> Candidates:
        """Draw one fresh lesion; it is of no patient, so `exclude_group` excludes nothing."""
        return Candidates([self.lesion(f"{PREFIX}{rng.integers(2**62)}")])

    def lesion(self, name: str) -> Lesion:
        """Sample the lesion of that name, which carries its seed.

        Raises:
            ValueError: the name is not one of a sampled lesion.
        """
        mask, diameter, near = self._made(self._seed(name))
        counts = np.bincount(mask.numpy().ravel(), minlength=len(self.classes) + 1)[1:]
        spacing = float(diameter / (6 * counts.sum() / np.pi) ** (1 / 3))
        size = tuple(n - 2 * self.margin_vox for n in mask.shape)
        frame = None if self.homes is None else self.homes.frame(near, mask.shape, spacing)
        return Lesion(name, None, triple(size), (spacing,) * 3, tuple(counts.tolist()), frame)

    def mask(self, name: str, device: torch.device) -> Tensor:
        """Return a sampled lesion's mask, (X, Y, Z) uint8, k + 1 in class k: the tight box and 3 voxels around it."""
        return self._made(self._seed(name))[0].to(device, non_blocking=True)

    def _seed(self, name: str) -> int:
        if not name.startswith(PREFIX) or not name[len(PREFIX) :].isdigit():
            raise ValueError(
                f"LesionSampler has no lesion {name!r}: expected {PREFIX}<seed>; was the plan made with it?"
            )
        return int(name[len(PREFIX) :])

    def _sampled(self, seed: int) -> tuple[Tensor, float, int]:
        """Sample a mask with its margin, the diameter in mm that it has, and the bank's lesion that it is like."""
        rng = stream(seed)
        quantile = rng.random()
        diameter = None if self.diameter_mm is None else float(np.interp(quantile, (0, 1), self.diameter_mm))
        diameter, shares, fields, near = self.model.drawn(rng, diameter, self.shares, self.irregularity)
        fields = enlarged(fields)
        outline = _largest(outline_of(fields[0]))
        mask = _divided(fields[1:], outline, shares)
        tight = mask[bounding_box(mask.numpy() > 0)]
        return F.pad(tight, (self.margin_vox,) * 6), diameter, near

    def painted(
        self,
        generator: str | TumorGenerator,
        count: int,
        *,
        channels: Sequence[str] | None = None,
        seed: int = 0,
        progress: bool = False,
        **options: Any,
    ) -> LesionBank:
        """Sample masks and paint them ahead: a bank of lesions of no patient, to be inserted with ``"paste"``.

        Each keeps its place (``place="home"``). See `LesionBank.painted` for the rest.

        Args:
            generator: name, folder, hub id, or `TumorGenerator`; one that needs no donor.
            count: number of lesions.
            channels: canonical names; those that the generator knows, or BraTS's four, where not given.
            seed: of masks and paintings.
            progress: show a progress bar.
            **options: of `LesionBank.painted`.

        Raises:
            ValueError: what `LesionBank.painted` raises.
        """
        from synthaug.generators.registry import resolve_generator
        from synthaug.lesions.painted.sampled import mask_bank

        number = int(checked_at_least("count", count, 1))
        known = channels or resolve_generator(generator).channels or BRATS_CHANNELS
        painted = mask_bank(self, number, seed, known).painted(
            generator, number, seed=seed, progress=progress, **options
        )
        assert painted.painting is not None  # it was painted
        painted.painting["source"]["patients"] = list(self.patients)
        return painted

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to one safetensors file; what the sampler is asked for is not part of it."""
        model = self.model
        header = {
            "format": FORMAT,
            "version": VERSION,
            "classes": list(self.classes),
            "values": None if self._values is None else dict(self._values),
            "patients": list(self.patients),
        }
        tensors = {
            "mean": model.mean.contiguous(),
            "components": model.components.half().contiguous(),
            "roughness": model.roughness.contiguous(),
            "told": torch.from_numpy(model.told),
            "covariance": torch.from_numpy(np.ascontiguousarray(model.covariance)),
        }
        if self.homes is not None:
            tensors |= {
                "home_centers": torch.from_numpy(self.homes.centers),
                "home_per_mm": torch.from_numpy(self.homes.per_mm),
                "home_frequency": torch.from_numpy(self.homes.frequency.grid),
            }
        replace_file(path, serialized(tensors, metadata={"sampler": json.dumps(header)}))

    @classmethod
    def load(cls, path: str | os.PathLike, **asked: Any) -> "LesionSampler":
        """Read a sampler's file.

        Args:
            path: of the file, or the name of a sampler that ships: ``"brats-masks"``.
            **asked: `diameter_mm`, `proportions`, `irregularity`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of another kind or version.
        """
        header, tensors = read_tensors(shipped(path) or path, "sampler")
        if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("version") not in (1, VERSION):
            raise ValueError(f"lesion sampler {path}: expected a file of LesionSampler.save, version 1 or {VERSION}")
        model = ShapeModel(
            tensors["mean"],
            tensors["components"].float(),
            tensors["roughness"],
            tensors["told"].numpy(),
            tensors["covariance"].numpy(),
        )
        homes = None
        if "home_centers" in tensors:
            frequency = PlaceFrequency(tensors["home_frequency"].numpy())
            homes = Homes(tensors["home_centers"].numpy(), tensors["home_per_mm"].numpy(), frequency)
        known = {"homes": homes, "patients": header.get("patients", ())}
        return cls(model, tuple(header["classes"]), header["values"], **known, **asked)


def shipped(name: str | os.PathLike) -> Path | None:
    """Find the file of a sampler that ships, by its name; None where there is none of that name."""
    known = Path(name)
    file = SHIPPED / known / FILE
    return file if len(known.parts) == 1 and not known.exists() and file.is_file() else None


def is_sampler(path: str | os.PathLike) -> bool:
    """Tell whether a file is one of `LesionSampler.save`, or the name of one that ships."""
    try:
        with safe_open(shipped(path) or path, "pt") as file:
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
