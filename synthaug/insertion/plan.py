"""What was decided: one row per asked insertion, the record and the replay of what `TumorInsertion` does.

A plan is a record and nothing else. What is worked out on the way to it or from it (tissue, lesions in their crops)
belongs to the call that works it out; so a plan and its own JSON rows give the same bits, whatever happened in between.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

ROW_VERSION = 3
"""Rows of version 1 can be read; they do not say what the host tissue was like, which is then not compared. Those of
versions 1 and 2 do not say by which rule the place was chosen, which was any place clear of lesions."""


class Outcome(IntEnum):
    """What became of an asked insertion; the value is the code on the device, `reason` the words."""

    DONE = 0
    NO_TISSUE = 1
    NO_ROOM = 2
    TOO_SMALL = 3
    TOO_LARGE = 4
    NO_DONOR = 5
    BAD_INPUT = 6
    OTHER_BATCH = 7
    NO_HOME = 8

    @property
    def reason(self) -> str:
        """The outcome in words, as reports and rows give it."""
        return _REASONS[self]


_REASONS = {
    Outcome.DONE: "done",
    Outcome.NO_TISSUE: "no host tissue in the patch",
    Outcome.NO_ROOM: "no place in host tissue clear of existing labels",
    Outcome.TOO_SMALL: "below the volume floor",
    Outcome.TOO_LARGE: "larger than the patch or the generator's crops",
    Outcome.NO_DONOR: "no donor of another patient group",
    Outcome.BAD_INPUT: "invalid voxels in the batch",
    Outcome.OTHER_BATCH: "the plan was made for another batch",
    Outcome.NO_HOME: "no donor whose own place lies in the patch",
}


@dataclass(frozen=True)
class Insertion:
    """The part of a row that is known without asking the device: what is inserted, how large and how turned.

    Attributes:
        sample: index in the batch.
        number: running number of the sample over all calls; with `order` it makes the seed.
        order: 0 for a sample's first lesion, 1 for its second.
        seed: the insertion's own seed; everything random about it follows from this number.
        lesion: name of the donor in the bank, or of the procedural shape.
        donor_group: the donor's patient group, if known.
        host_group: the host's patient group, if given.
        swaps: classes renamed in the lesion, old name to new name.
        scale: linear factor in mm (1 keeps the donor's size).
        spacing_mm: the host's voxel size.
        axes: which donor axis becomes axis X, Y, Z.
        flips: whether X, Y, Z are mirrored after the axes were exchanged.
        angles_deg: free rotation about X, Y, Z.
        elastic_mm: greatest displacement of the elastic change, 0 for none.
        crop_vox: size of the crop that holds the lesion and its surroundings.
        refused: an outcome that was certain before the device was asked, or None.
        place: by which rule its place was chosen; see `synthaug.LesionOptions`.
    """

    sample: int
    number: int
    order: int
    seed: int
    lesion: str | None
    donor_group: str | None
    host_group: str | None
    swaps: Mapping[str, str]
    scale: float
    spacing_mm: tuple[float, float, float]
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elastic_mm: float = 0.0
    crop_vox: tuple[int, int, int] | None = None
    refused: Outcome | None = None
    place: str = "anywhere"


@dataclass(frozen=True, eq=False)
class InsertionPlan:
    """All insertions of one batch.

    Places, outcomes and class counts are found on the batch's device and stay there until `to_rows` reads them.

    Attributes:
        insertions: the host's part, in the order in which they are applied.
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
    """

    insertions: tuple[Insertion, ...]
    classes: tuple[str, ...]
    center_vox: Tensor
    outcome: Tensor
    voxels: Tensor
    volume_vox: tuple[int, int, int]
    tissue: Tensor | None = None
    host_given: bool = False
    host_stats: tuple[list[list[float]], list[list[float]]] | None = None
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
        """The plan with its tensors on `device`; itself where they are there already."""
        device = torch.device(device)
        if self.center_vox.device == device:
            return self
        # a copy to the host must be waited for
        free = device.type != "cpu"
        tensors = {name: getattr(self, name) for name in ("center_vox", "outcome", "voxels", "tissue")}
        moved = {name: x if x is None else x.to(device, non_blocking=free) for name, x in tensors.items()}
        return replace(self, **moved)

    def tissue_of(self, samples: int) -> tuple[Tensor, Tensor]:
        """The host tissue of a batch's samples, and which of them get a lesion.

        Args:
            samples: B of the batch.

        Returns:
            (B, 3, C) of `tissue`, 0 for samples without a live insertion, and (B,) bool.
        """
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
        """The rows of one sample, as the plan of a batch of that sample alone; a repetition, as any plan from rows."""
        rows = [{**row, "sample": 0} for row in self.to_rows() if row["sample"] == sample]
        return replace(InsertionPlan.from_rows(rows), samples=1).to(self.center_vox.device)

    def to_rows(self) -> list[dict[str, Any]]:
        """JSON-able rows, one per asked insertion; makes the host wait for the device.

        Besides the fields of `Insertion` a row has ``center_vox``, ``outcome`` (the lower-case name), ``reason`` (its
        words), ``voxels`` (per class), ``diameter_mm`` (of the sphere of equal volume, 0 where refused) and ``tissue``
        (``mean``, ``std`` and ``floor`` per channel, or None).
        """
        centers, outcomes, voxels = self.center_vox.tolist(), self.outcome.tolist(), self.voxels.tolist()
        tissue = [None] * len(self) if self.tissue is None else self.tissue.tolist()
        return [self._row(*items) for items in zip(self.insertions, centers, outcomes, voxels, tissue, strict=True)]

    def _row(
        self, insertion: Insertion, center: list[int], code: int, voxels: list[int], tissue: list[list[float]] | None
    ) -> dict[str, Any]:
        row = asdict(insertion)
        row.pop("refused")
        for name in ("spacing_mm", "axes", "flips", "angles_deg", "crop_vox"):
            row[name] = None if row[name] is None else list(row[name])
        row["swaps"] = dict(insertion.swaps)
        stats = None
        if self.host_stats is not None:
            stats = {key: self.host_stats[i][insertion.sample] for i, key in enumerate(("mean", "std"))}
        outcome = Outcome(code)
        return row | {
            "center_vox": center,
            "outcome": outcome.name.lower(),
            "reason": outcome.reason,
            "voxels": dict(zip(self.classes, voxels, strict=True)),
            "diameter_mm": equivalent_diameter_mm(sum(voxels), insertion.spacing_mm),
            "volume_vox": list(self.volume_vox),
            "host_given": self.host_given,
            "host_stats": stats,
            # without a crop it was refused before the batch was looked at
            "tissue": None if insertion.crop_vox is None else _tissue_row(tissue),
            "version": ROW_VERSION if self.tissue is not None else 1,
        }

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "InsertionPlan":
        """The plan that wrote these rows, on the CPU; `TumorInsertion.apply` moves it to the batch.

        Raises:
            ValueError: a row of another version, without one of its fields, or of another batch than the first.
        """
        rows = list(rows)
        for i, row in enumerate(rows):
            missing = [name for name in _ROW_FIELDS if name not in row]
            if missing:
                raise ValueError(f"row {i} of an insertion plan lacks {', '.join(missing)}")
            if row["version"] not in range(1, ROW_VERSION + 1):
                raise ValueError(f"row {i}: expected version 1 to {ROW_VERSION}, got {row['version']!r}")
            later = {"tissue": 2, "place": 3}
            if absent := [name for name, since in later.items() if row["version"] >= since and name not in row]:
                raise ValueError(f"row {i} of an insertion plan lacks {', '.join(absent)}")
            for name in ("volume_vox", "host_given", "version"):
                if row[name] != rows[0][name]:
                    raise ValueError(f"row {i}: {name} is {row[name]}, but {rows[0][name]} in row 0: not one batch")
        return cls._from_checked(rows)

    @classmethod
    def _from_checked(cls, rows: Sequence[Mapping[str, Any]]) -> "InsertionPlan":
        classes = tuple(rows[0]["voxels"]) if rows else ()
        outcomes = [Outcome[row["outcome"].upper()] for row in rows]
        samples = 1 + max((row["sample"] for row in rows), default=-1)
        stats = None
        if rows and rows[0]["host_stats"] is not None:
            by_sample = {row["sample"]: row["host_stats"] for row in rows}
            width = len(rows[0]["host_stats"]["mean"])
            blank = {"mean": [0.0] * width, "std": [1.0] * width}
            stats = tuple([by_sample.get(s, blank)[key] for s in range(samples)] for key in ("mean", "std"))
        return cls(
            insertions=tuple(_insertion(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)),
            classes=classes,
            center_vox=torch.tensor([row["center_vox"] for row in rows], dtype=torch.int64).reshape(-1, 3),
            outcome=torch.tensor(outcomes, dtype=torch.int64),
            voxels=torch.tensor([list(row["voxels"].values()) for row in rows]).reshape(-1, len(classes)).long(),
            volume_vox=tuple(rows[0]["volume_vox"]) if rows else (0, 0, 0),
            tissue=_tissue_table(rows),
            host_given=bool(rows and rows[0]["host_given"]),
            host_stats=stats,
            samples=len({row["sample"] for row in rows}),
        )


_TISSUE = ("mean", "std", "floor")


def _tissue_row(tissue: list[list[float]] | None) -> dict[str, list[float | None]] | None:
    """JSON knows no infinity: a sample without tissue has the floor None."""
    if tissue is None:
        return None
    finite = [[value if math.isfinite(value) else None for value in values] for values in tissue]
    return dict(zip(_TISSUE, finite, strict=True))


def _tissue_table(rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
    if any(row["version"] == 1 for row in rows):
        return None
    width = next((len(row["tissue"]["mean"]) for row in rows if row["tissue"]), 0)
    blank = {name: [0.0] * width for name in _TISSUE}
    tissue = [[(row["tissue"] or blank)[name] for name in _TISSUE] for row in rows]
    filled = [[[-math.inf if value is None else value for value in values] for values in one] for one in tissue]
    return torch.tensor(filled, dtype=torch.float32).reshape(len(rows), len(_TISSUE), width)


def _insertion(row: Mapping[str, Any], outcome: Outcome) -> Insertion:
    values = {f.name: row[f.name] for f in fields(Insertion) if f.name in row}
    for name in ("spacing_mm", "axes", "flips", "angles_deg", "crop_vox"):
        values[name] = None if values[name] is None else tuple(values[name])
    return Insertion(**values, refused=None if outcome is Outcome.DONE else outcome)


_ROW_FIELDS = (
    *(f.name for f in fields(Insertion) if f.name not in ("refused", "place")),
    *("center_vox", "outcome", "voxels", "volume_vox", "host_given", "host_stats", "version"),
)


def equivalent_diameter_mm(voxels: Any, spacing_mm: Sequence[float]) -> Any:
    """Diameter in mm of the sphere that has the volume of `voxels` voxels; a number or an array of them."""
    volume = voxels * spacing_mm[0] * spacing_mm[1] * spacing_mm[2]
    return (6.0 * volume / math.pi) ** (1.0 / 3.0)
