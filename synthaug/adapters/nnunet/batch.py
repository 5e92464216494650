"""Insertion into nnU-Net's batches: its labels, its intensities, its case names."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.adapters.frames import goes_by_place
from synthaug.adapters.nnunet.settings import Settings
from synthaug.adapters.nnunet.task import Task
from synthaug.config import ConfigError
from synthaug.data.cases import group_function
from synthaug.generators.base import TumorGenerator
from synthaug.generators.procedural import ProceduralGenerator
from synthaug.generators.registry import FITTED
from synthaug.host.rule import BLOCKED
from synthaug.insertion.insertion import TumorInsertion
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.sampler import LesionSampler
from synthaug.lesions.shapes import LesionShapes


class BatchInsertion:
    """Inserts tumours into nnU-Net's batches, which have its labels and its normalised intensities.

    Args:
        task: the dataset and its plans.
        engine: an insertion for the task's classes and channels, with ``ignore_label=BLOCKED``.
        group_of: patient of a case name.
    """

    def __init__(self, task: Task, engine: TumorInsertion, group_of: Callable[[str], str]):
        self.task, self.engine, self.group_of = task, engine, group_of

    @classmethod
    def of(
        cls, task: Task, settings: Settings, bank: LesionBank | LesionSampler | None, **options: Any
    ) -> "BatchInsertion":
        """Make the insertion that the settings describe.

        Args:
            task: the dataset and its plans.
            settings: read from the user's YAML file.
            bank: lesions of the fold's training cases, or a sampler of masks; None where the settings name neither.
            **options: further arguments of `TumorInsertion`.

        Raises:
            ConfigError: what `TumorInsertion` refuses: classes, channels, swaps or a generator that do not fit.
        """
        try:
            engine = TumorInsertion(
                _lesions(task, settings, bank),
                _generator(settings, bank),
                classes=task.classes,
                channels=task.channels,
                **settings.insertion.engine_options | {"ignore_label": BLOCKED},
                **settings.generator_options,
                **options,
            )
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"insertion: {error}") from error
        return cls(task, engine, group_function(settings.group_pattern))

    @property
    def by_place(self) -> bool:
        """Whether it needs to know where in their cases the patches lie."""
        return goes_by_place(self.engine)

    @torch.no_grad()
    def __call__(
        self, image: Tensor, label: Tensor, cases: Sequence[str], frames: Sequence[np.ndarray] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Insert tumours; inputs are not modified, and voxels that do not change keep their bits.

        Args:
            image: (B, C, X, Y, Z) float, normalised by nnU-Net.
            label: (B, 1, X, Y, Z) integer with nnU-Net's values.
            cases: name of each sample's case.
            frames: (3, 4) of each sample, voxel indices to host coordinates, where they are known.

        Returns:
            image and label of the same shapes and dtypes.
        """
        raw, view = self.task.units.raw(image), self.task.view(label)
        new_raw, new_view = self.engine(
            raw,
            view,
            self.task.spacing_mm,
            host=lambda sample: self.task.host(raw[sample], label[sample]),
            groups=[self.group_of(str(case)) for case in cases],
            host_stats=(0.0, 1.0) if self.task.known_statistics else None,
            frames=frames,
        )
        if new_raw is raw:
            return image, label
        return self.task.units.written(image, raw, new_raw), torch.where(new_view == view, label, new_view)


def _lesions(
    task: Task, settings: Settings, bank: LesionBank | LesionSampler | None
) -> LesionBank | LesionSampler | LesionShapes:
    if settings.lesions == "shapes":
        return LesionShapes(classes=task.classes, proportions=settings.proportions)
    if bank is None:
        raise ValueError("lesions: bank: expected the fold's bank, got none")
    return bank


def _generator(settings: Settings, bank: LesionBank | LesionSampler | None) -> str | TumorGenerator:
    if settings.generator not in ("fitted", FITTED):
        return settings.generator
    if not isinstance(bank, LesionBank):
        got = "none" if bank is None else "a sampler of masks"
        raise ValueError(f"generator: fitted: expected the bank whose statistics it learns, got {got}")
    return ProceduralGenerator.fit(bank)


def groups_of(cases: Iterable[str], settings: Settings) -> dict[str, str]:
    """Find the patient of each case by the settings' pattern.

    Raises:
        ConfigError: the settings' pattern does not match a case.
    """
    group_of = group_function(settings.group_pattern)
    try:
        return {case: group_of(case) for case in cases}
    except ValueError as error:
        raise ConfigError(str(error)) from error
