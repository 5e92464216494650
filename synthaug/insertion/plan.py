"""What was decided: one row per asked insertion, the record and the replay of what `TumorInsertion` does."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

ROW_VERSION = 1


class Outcome(IntEnum):
    """What became of an asked insertion; the value is the code on the device, `reason` the words."""

    DONE = 0
    NO_TISSUE = 1
    NO_ROOM = 2
    TOO_SMALL = 3
    TOO_LARGE = 4
    NO_DONOR = 5
    BAD_INPUT = 6

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


@dataclass(eq=False)
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
        host_given: whether the plan was made with a `host` mask, which `apply` then needs as well.
        host_stats: mean and standard deviation per sample and channel where the caller gave them, else None.
        samples: number of samples in the batch; a plan from rows knows only those that were asked for.
    """

    insertions: tuple[Insertion, ...]
    classes: tuple[str, ...]
    center_vox: Tensor
    outcome: Tensor
    voxels: Tensor
    volume_vox: tuple[int, int, int]
    host_given: bool = False
    host_stats: tuple[list[list[float]], list[list[float]]] | None = None
    samples: int = 0
    counted: bool = field(default=False, repr=False)
    hosts: dict[int, Any] = field(default_factory=dict, repr=False)
    rendered: dict[int, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.insertions)

    def to(self, device: torch.device | str) -> "InsertionPlan":
        """The plan with its tensors on `device`; itself where they are there already."""
        device = torch.device(device)
        if self.center_vox.device == device:
            return self
        # a copy to the host must be waited for
        free = device.type != "cpu"
        moved = {n: getattr(self, n).to(device, non_blocking=free) for n in ("center_vox", "outcome", "voxels")}
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*moved, "hosts", "rendered")}
        return InsertionPlan(**kept, **moved)

    def check_fits(self, samples: int, volume_vox: tuple[int, ...], classes: tuple[str, ...], host: bool) -> None:
        """Check that the plan can be applied to a batch.

        Raises:
            ValueError: it was made for other sizes or classes, asks for samples that the batch does not have, or was
                made with a host mask and the batch comes without.
        """
        if not len(self):
            return
        if self.volume_vox != volume_vox:
            raise ValueError(f"plan: made for samples of {self.volume_vox} voxels, got {volume_vox}")
        if self.classes != classes:
            raise ValueError(f"plan: made for the classes {self.classes}, the insertion has {classes}")
        last = max(row.sample for row in self.insertions)
        if last >= samples:
            raise ValueError(f"plan: asks for sample {last}, the batch has {samples}")
        if self.host_given and not host:
            raise ValueError("plan: it was made with a host mask, give apply the same host=...")

    def forget(self) -> None:
        """Drop what `plan` worked out on the device and `apply` can work out again: it may be large."""
        self.hosts.clear()
        self.rendered.clear()

    def select(self, sample: int) -> "InsertionPlan":
        """The rows of one sample, as the plan of a batch of that sample alone."""
        rows = [{**row, "sample": 0} for row in self.to_rows() if row["sample"] == sample]
        plan = InsertionPlan.from_rows(rows)
        plan.samples = 1
        return plan.to(self.center_vox.device)

    def to_rows(self) -> list[dict[str, Any]]:
        """JSON-able rows, one per asked insertion; makes the host wait for the device.

        Besides the fields of `Insertion` a row has ``center_vox``, ``outcome`` (the lower-case name), ``reason`` (its
        words), ``voxels`` (per class) and ``diameter_mm`` (of the sphere of equal volume, 0 where refused).
        """
        centers, outcomes, voxels = self.center_vox.tolist(), self.outcome.tolist(), self.voxels.tolist()
        return [self._row(*items) for items in zip(self.insertions, centers, outcomes, voxels, strict=True)]

    def _row(self, insertion: Insertion, center: list[int], code: int, voxels: list[int]) -> dict[str, Any]:
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
            "version": ROW_VERSION,
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
            if row["version"] != ROW_VERSION:
                raise ValueError(f"row {i}: expected version {ROW_VERSION}, got {row['version']!r}")
            for name in ("volume_vox", "host_given"):
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
            host_given=bool(rows and rows[0]["host_given"]),
            host_stats=stats,
            samples=len({row["sample"] for row in rows}),
        )


def _insertion(row: Mapping[str, Any], outcome: Outcome) -> Insertion:
    values = {f.name: row[f.name] for f in fields(Insertion) if f.name != "refused"}
    for name in ("spacing_mm", "axes", "flips", "angles_deg", "crop_vox"):
        values[name] = None if values[name] is None else tuple(values[name])
    return Insertion(**values, refused=None if outcome is Outcome.DONE else outcome)


_ROW_FIELDS = (
    *(f.name for f in fields(Insertion) if f.name != "refused"),
    *("center_vox", "outcome", "voxels", "volume_vox", "host_given", "host_stats", "version"),
)


def equivalent_diameter_mm(voxels: Any, spacing_mm: Sequence[float]) -> Any:
    """Diameter in mm of the sphere that has the volume of `voxels` voxels; a number or an array of them."""
    volume = voxels * spacing_mm[0] * spacing_mm[1] * spacing_mm[2]
    return (6.0 * volume / math.pi) ** (1.0 / 3.0)
