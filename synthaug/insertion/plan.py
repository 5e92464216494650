"""`InsertionPlan`: the record of a batch's insertions, from which they can be repeated.

A plan is a record and nothing else. What is worked out on the way to it or from it (tissue, lesions in their crops)
belongs to the call that works it out; so a plan and its own JSON rows give the same bits, whatever happened in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synthaug.geometry import triple
from synthaug.insertion.asked import Insertion, Outcome
from synthaug.insertion.rows import HostStats, check_rows, host_stats_of, insertion_of, outcome_of, row_of, tissue_of
from synthaug.sizes import equivalent_diameter_mm

__all__ = ["Insertion", "InsertionPlan", "Outcome", "equivalent_diameter_mm"]


@dataclass(frozen=True, eq=False)
class InsertionPlan:
    """Records all insertions of one batch, one row each.

    Places, outcomes and class counts are found on the batch's device and stay there until `to_rows` reads them.

    Attributes:
        insertions: what the host decided, in the order in which it is applied.
        classes: class names of the columns of `voxels`.
        center_vox: (N, 3) int64, the lesion's centre in the sample, in voxels.
        outcome: (N,) int64, codes of `Outcome`.
        voxels: (N, K) int64, voxels written per class; 0 where refused.
        volume_vox: (X, Y, Z) of the batch.
        tissue: (N, 3, C) float32, mean, standard deviation and lowest intensity of the sample's host tissue, with which
            the lesion is written; 0 where the insertion was refused before the batch was looked at. None where rows
            of version 1 do not say.
        host_given: whether the plan was made with a `host` mask, which `apply` then needs as well.
        host_stats: mean and standard deviation per sample and channel where the caller gave them, else None.
        samples: number of samples in the batch; a plan from rows knows only those that were asked for.
        number: running number of the batch's first sample; None in a plan from rows, which is a repetition.
        mix_voxels: what each insertion that `class_mix` chose adds to its running counts, (K,) voxels.

    Example:
        >>> from synthaug import LesionShapes, TumorInsertion
        >>> insert = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
        >>> image, label = torch.rand(2, 4, 40, 40, 40), torch.zeros(2, 1, 40, 40, 40, dtype=torch.int16)
        >>> plan = insert.plan(image, label)
        >>> rows = plan.to_rows()
        >>> [(row["sample"], row["outcome"]) for row in rows]
        [(0, 'done'), (1, 'done')]
        >>> first, second = insert.apply(image, label, plan), insert.apply(image, label, InsertionPlan.from_rows(rows))
        >>> torch.equal(first[0], second[0]), torch.equal(first[1], second[1])
        (True, True)
    """

    insertions: tuple[Insertion, ...]
    classes: tuple[str, ...]
    center_vox: Tensor
    outcome: Tensor
    voxels: Tensor
    volume_vox: tuple[int, int, int]
    tissue: Tensor | None = None
    host_given: bool = False
    host_stats: HostStats | None = None
    samples: int = 0
    number: int | None = None
    mix_voxels: tuple[tuple[float, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.insertions)

    @property
    def live(self) -> list[int]:
        """Positions of the insertions that were not refused before the device was asked."""
        return [n for n, row in enumerate(self.insertions) if row.refused is None]

    def to(self, device: torch.device | str) -> "InsertionPlan":
        """Move the plan's tensors to `device`; the plan itself where they are there already."""
        device = torch.device(device)
        if self.center_vox.device == device:
            return self
        # a copy to the host must be waited for
        free = device.type != "cpu"
        return replace(
            self,
            center_vox=self.center_vox.to(device, non_blocking=free),
            outcome=self.outcome.to(device, non_blocking=free),
            voxels=self.voxels.to(device, non_blocking=free),
            tissue=None if self.tissue is None else self.tissue.to(device, non_blocking=free),
        )

    def spacing_of(self, spacing_mm: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
        """Put the plan's voxel sizes in place of those of the samples that it asks for."""
        known = {row.sample: row.spacing_mm for row in self.insertions}
        return [known.get(sample, spacing) for sample, spacing in enumerate(spacing_mm)]

    def tissue_of(self, samples: int) -> tuple[Tensor, Tensor]:
        """Spread the rows' host tissue over a batch's samples, and tell which of them get a lesion.

        Args:
            samples: number B of samples in the batch.

        Returns:
            (B, 3, C) of `tissue`, 0 for samples without a live insertion, and (B,) bool.

        Raises:
            ValueError: the plan is from rows of version 1, which do not say.
        """
        if self.tissue is None:
            raise ValueError("plan: expected rows that say what the host tissue was like, got rows of version 1")
        table = self.tissue.new_zeros(samples, *self.tissue.shape[1:])
        changed = torch.zeros(samples, dtype=torch.bool, device=table.device)
        for n in self.live:
            b = self.insertions[n].sample
            table[b] = self.tissue[n]
            changed[b] |= self.outcome[n] == Outcome.DONE
        return table, changed

    def check_fits(
        self, samples: int, channels: int, volume_vox: tuple[int, ...], classes: tuple[str, ...], host: bool
    ) -> None:
        """Check that the plan can be applied to a batch.

        Raises:
            ValueError: it was made for other sizes, channels or classes, asks for samples that the batch does not have,
                or was made with a host mask and the batch comes without.
        """
        if not len(self):
            return
        if self.volume_vox != volume_vox:
            raise ValueError(f"plan: made for samples of {self.volume_vox} voxels, got {volume_vox}")
        if self.tissue is not None and self.live and self.tissue.shape[2] != channels:
            raise ValueError(f"plan: made for {self.tissue.shape[2]} channels, got {channels}")
        if self.classes != classes:
            raise ValueError(f"plan: made for the classes {self.classes}, the insertion has {classes}")
        last = max(row.sample for row in self.insertions)
        if last >= samples:
            raise ValueError(f"plan: asks for sample {last}, the batch has {samples}")
        if self.host_given and not host:
            raise ValueError("plan: it was made with a host mask, give apply the same host=...")

    def select(self, sample: int) -> "InsertionPlan":
        """Select one sample's rows as the plan of a batch of it alone; a repetition, as any plan from rows."""
        rows = [{**row, "sample": 0} for row in self.to_rows() if row["sample"] == sample]
        return replace(InsertionPlan.from_rows(rows), samples=1).to(self.center_vox.device)

    def to_rows(self) -> list[dict[str, Any]]:
        """Write the plan as JSON-able rows, one per asked insertion; makes the host wait for the device.

        Besides the fields of `Insertion` a row has ``center_vox``, ``outcome`` (the lower-case name), ``reason`` (its
        words), ``voxels`` (per class), ``diameter_mm`` (of the sphere of equal volume, 0 where refused) and ``tissue``
        (``mean``, ``std`` and ``floor`` per channel, or None).
        """
        centers, outcomes, voxels = self.center_vox.tolist(), self.outcome.tolist(), self.voxels.tolist()
        tissue: list[Any] = [None] * len(self) if self.tissue is None else self.tissue.tolist()
        return [row_of(self, *of) for of in zip(self.insertions, centers, outcomes, voxels, tissue, strict=True)]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "InsertionPlan":
        """Read a plan from its rows, on the CPU; `TumorInsertion.apply` moves it to the batch.

        Raises:
            ValueError: a row of another version, without one of its fields, or of another batch than the first.
        """
        rows = list(rows)
        check_rows(rows)
        classes = tuple(rows[0]["voxels"]) if rows else ()
        return cls(
            insertions=tuple(insertion_of(row) for row in rows),
            classes=classes,
            center_vox=torch.tensor([row["center_vox"] for row in rows], dtype=torch.int64).reshape(-1, 3),
            outcome=torch.tensor([outcome_of(row) for row in rows], dtype=torch.int64),
            voxels=torch.tensor([list(row["voxels"].values()) for row in rows]).reshape(-1, len(classes)).long(),
            volume_vox=triple(rows[0]["volume_vox"]) if rows else (0, 0, 0),
            tissue=tissue_of(rows),
            host_given=bool(rows and rows[0]["host_given"]),
            host_stats=host_stats_of(rows),
            samples=len({row["sample"] for row in rows}),
        )
