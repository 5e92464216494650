"""Insertion into one host: each case from (seed, case number) alone, with further attempts where one is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.cohort.config import CohortConfig
from synthaug.cohort.gate import Gate
from synthaug.cohort.hosts import Host
from synthaug.config import ConfigError
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.geometry import triple
from synthaug.insertion.insertion import TumorInsertion
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource
from synthaug.lesions.registry import resolve_lesions
from synthaug.lesions.sampler import LesionSampler
from synthaug.lesions.shapes import LesionShapes
from synthaug.random import Purpose, stream

ATTEMPTS, ORDERS = 1024, 64
DOMINANT_SHARE = 0.6

Donors = LesionBank | LesionSampler | LesionShapes
"""Where the masks of a cohort come from."""


@dataclass
class InsertedLesion:
    """A lesion that was inserted.

    Attributes:
        row: the plan's row, for the box of the host.
        attempt: number of the attempt that succeeded, from 0.
        extent_vox: size of its bounding box.
        quality: what the gate measured.
    """

    row: dict[str, Any]
    attempt: int
    extent_vox: tuple[int, int, int]
    quality: dict[str, Any] = field(default_factory=dict)


@dataclass
class InsertedCase:
    """The result of inserting into a case.

    Attributes:
        image: (C, x, y, z) float32, the host's box with the lesions.
        label: (x, y, z) int16.
        asked: number of lesions that were wanted.
        lesions: those that were inserted.
        refused: failed attempts: lesion number, attempt, reason.
    """

    image: np.ndarray
    label: np.ndarray
    asked: int
    lesions: list[InsertedLesion]
    refused: list[dict[str, Any]]


class CaseInserter:
    """Inserts lesions into hosts.

    Args:
        config: the cohort's configuration.
        lesions: bank, sampler or shapes that give the masks.
        generator: paints them.
        gate: refuses lesions of poor quality; None for no gate.
        device: device of the insertion.

    Raises:
        ConfigError: lesions, generator, classes and channels that do not fit each other.
    """

    def __init__(
        self,
        config: CohortConfig,
        lesions: Donors,
        generator: TumorGenerator,
        gate: Gate | None,
        device: torch.device | str,
    ):
        self.config, self.gate, self.device = config, gate, torch.device(device)
        try:
            self.engines = {kind: self._engine(kind, lesions, generator) for kind in config.kinds}
        except (ValueError, TypeError) as error:
            raise ConfigError(f"lesions: {error}") from error
        self._start = {kind: engine.state_dict() for kind, engine in self.engines.items()}

    def kind(self, index: int) -> str | None:
        """Return the kind of a case in a balanced set; None in others."""
        return self.config.kinds[index % len(self.config.kinds)]

    def insert(self, host: Host, index: int) -> InsertedCase:
        """Insert the lesions of case `index` into its host."""
        image, label = host.image.to(self.device), host.label.to(self.device)
        tissue = host.tissue.to(self.device)
        done, refused, asked = [], [], self._asked(index)
        for order in range(asked):
            for attempt in range(self.config.lesions.retries + 1):
                reason, image, label, lesion = self._attempt(host, image, label, tissue, index, order, attempt)
                if lesion is not None:
                    done.append(lesion)
                    break
                refused.append({"lesion": order, "attempt": attempt, "reason": reason})
        return InsertedCase(image[0].cpu().numpy(), label[0].cpu().numpy(), asked, done, refused)

    def _attempt(
        self, host: Host, image: Tensor, label: Tensor, tissue: Tensor, index: int, order: int, attempt: int
    ) -> tuple[str, Tensor, Tensor, InsertedLesion | None]:
        """Try one lesion with a seed of its own: why it was refused, or the changed image and label and the lesion."""
        kind = self.kind(index)
        engine = self.engines[kind]
        engine.load_state_dict({**self._start[kind], "number": (index * ATTEMPTS + attempt) * ORDERS + order})
        known: dict[str, Any] = {"host": tissue, "groups": [host.case.group], "host_stats": host.stats}
        known["prior"] = None if host.prior is None else host.prior.to(self.device)
        plan = engine.plan(image, label, host.spacing_mm, frames=host.frame, **known)
        row = plan.to_rows()[0]
        reason = None if row["outcome"] == "done" else row["reason"]
        reason = reason or self._of_another_kind(row, kind)
        if reason is not None:
            return reason, image, label, None
        new_image, new_label = engine.apply(image, label, plan, host=tissue)
        quality: dict[str, Any] = {}
        if self.gate is not None:
            quality, reason = self.gate.look(host, new_image[0], new_label[0], (new_label != label)[0])
            if reason is not None:
                return reason, image, label, None
        where = (new_label != label)[0].nonzero()
        extent = triple((where.amax(0) - where.amin(0) + 1).tolist())
        return "", new_image, new_label, InsertedLesion(row, attempt, extent, quality)

    def _asked(self, index: int) -> int:
        low, high = self.config.lesions.range_per_case
        return int(stream(self.config.seed, Purpose.COHORT_COUNTS, index).integers(low, high + 1))

    def _of_another_kind(self, row: Mapping[str, Any], kind: str | None) -> str | None:
        balance = self.config.balance
        if balance is None or kind is None:
            return None
        if balance.by == "class":
            dominant = max(row["voxels"], key=row["voxels"].__getitem__)
            return None if dominant == kind else f"dominated by another class than {kind}"
        low, high = balance.sizes_mm[kind]
        return None if low <= row["diameter_mm"] <= high else f"of another size than {kind}"

    def _engine(self, kind: str | None, lesions: Donors, generator: TumorGenerator) -> TumorInsertion:
        config, options = self.config, self.config.lesions.engine_options
        if config.balance is not None and kind is not None:
            if config.balance.by == "class":
                lesions = dominated(lesions, kind, config.vocabulary)
            else:
                options["diameter_mm"] = config.balance.sizes_mm[kind]
        return TumorInsertion(
            lesions,
            generator,
            classes=config.vocabulary,
            channels=config.names,
            space=config.space,
            places=config.places,
            prob=1.0,
            second=0.0,
            seed=config.seed,
            rank=0,
            **options,
        )


def open_shapes(config: CohortConfig) -> LesionShapes:
    """The procedural shapes of a configuration without a bank.

    Raises:
        ConfigError: shapes that do not fit the classes.
    """
    shapes = config.lesions.shapes.model_dump() if config.lesions.shapes else {}
    try:
        return LesionShapes(classes=config.vocabulary, **shapes)
    except ValueError as error:
        raise ConfigError(f"lesions: {error}") from error


def open_bank(config: CohortConfig) -> LesionBank | LesionSampler | None:
    """The bank of a configuration, or the sampler in its place, whose lesions are of no patient; or None.

    Raises:
        ConfigError: a bank that cannot be read; or, where `lesions.unknown_groups` refuses it, one whose donors'
            patients are unknown; or a sampler, which has masks alone, for ``paste``.
    """
    lesions = config.lesions
    if lesions.bank is None:
        return None
    try:
        bank = resolve_lesions(lesions.bank)
    except (ValueError, OSError) as error:
        raise ConfigError(f"lesions: {error}") from error
    if isinstance(bank, LesionSampler):
        if config.generator_name == "paste":
            raise ConfigError(f"generator: paste needs a bank's lesions, got a sampler of masks, {lesions.bank}")
        return bank
    unknown = [lesion.name for lesion in bank if lesion.group is None]
    if unknown and lesions.unknown_groups == "refuse":
        raise ConfigError(
            f"{lesions.bank}: the patients of {len(unknown)} donors are unknown ({', '.join(unknown[:3])}), so that a "
            "host might get a lesion of its own patient; lesions.unknown_groups=allow takes them nevertheless"
        )
    return bank


def open_generator(config: CohortConfig, generator: TumorGenerator | None, lesions: LesionSource) -> TumorGenerator:
    """Return the generator that was given, or load the configuration's, which may be fitted to the lesions.

    Raises:
        ConfigError: there is none of that name, or its files cannot be used.
    """
    try:
        return resolve_generator(generator or config.generator_name, lesions, **config.generator_options)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"generator: {error}") from error


def dominated(lesions: Donors, kind: str, classes: Classes) -> Donors:
    """Restrict a source to lesions in which one class has most voxels; a sampler is asked for its share.

    Raises:
        ConfigError: a bank that has none; class swaps can make some.
    """
    if not isinstance(lesions, LesionBank):
        rest = [name for name in classes.names if name != kind]
        shares = {name: (1 - DOMINANT_SHARE) / len(rest) for name in rest} if rest else {}
        if isinstance(lesions, LesionSampler):
            return lesions.asked(proportions={kind: 1.0, **shares})
        return LesionShapes(lesions.diameter_mm, {kind: 1.0, **shares}, lesions.irregularity, classes=classes)
    index = [classes.canonical(name) for name in lesions.classes].index(kind)
    names = [lesion.name for lesion in lesions if lesion.voxels[index] == max(lesion.voxels)]
    if not names:
        raise ConfigError(f"balance: no lesion of the bank has most of its voxels in {kind}")
    return lesions.subset(names)
