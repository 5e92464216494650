"""A folder of changed cases that can be read again: in the layout of the data set, with what describes it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthaug.classes import Classes
from synthaug.data.bids import DERIVATIVES, is_bids
from synthaug.data.cases import Case
from synthaug.data.writing import case_places, write_case
from synthaug.files import replace_file

ROWS = "insertions.jsonl"


class CaseOutputs:
    """Changed cases, and a row for each insertion, in a folder.

    Cases of nnU-Net, MSD and BIDS data sets keep their places in the data set; others get a folder each.

    Args:
        source: the data set's folder, or that of a single case.
        out: the folder.
        classes: of the labels, and
        channels: of the images, for a ``dataset.json`` where the data set has none.

    Raises:
        ValueError: `out` is a file.
    """

    def __init__(self, source: Path, out: Path, classes: Classes, channels: Sequence[str]):
        if out.exists() and not out.is_dir():
            raise ValueError(f"out: expected a folder, got the file {out}")
        self.source, self.out, self.classes, self.channels = source, out, classes, tuple(channels)
        self.decathlon, self.bids = (source / "imagesTr").is_dir(), is_bids(source)
        self.root = source if self.decathlon or self.bids else None

    def begin(self, cases: Sequence[Case], overwrite: bool) -> None:
        """Make sure that no case has rows of an earlier run; those of cases that are made anew go, and their files.

        Raises:
            ValueError: a case has rows, and they are not to be overwritten.
        """
        file = self.out / ROWS
        rows = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
        names = {case.name for case in cases}
        old = [json.loads(row)["case"] in names for row in rows]
        if any(old) and not overwrite:
            known = sorted({json.loads(row)["case"] for row, is_old in zip(rows, old, strict=True) if is_old})
            more = f" and {len(known) - 1} more" if len(known) > 1 else ""
            raise ValueError(
                f"{file}: an earlier run made {known[0]}{more}; give another --out, or --overwrite to make them anew"
            )
        if any(old):
            for case in cases:
                for place in case_places(case, self._folder(case), self.root).values():
                    place.unlink(missing_ok=True)
            replace_file(file, "".join(row for row, is_old in zip(rows, old, strict=True) if not is_old))

    def write(self, case: Case, image: Mapping[str, np.ndarray], label: np.ndarray) -> list[Path]:
        """Write a changed case; see `synthaug.data.writing.write_case`."""
        return write_case(case, image, label, self._folder(case), self.root)

    def describe(self) -> None:
        """Write what describes the data set, after its cases."""
        if self.decathlon:
            replace_file(self.out / "dataset.json", json.dumps(self._dataset(), indent=1) + "\n")
        elif self.bids:
            for pattern in (
                "dataset_description.json",
                f"{DERIVATIVES}/*/dataset_description.json",
                f"{DERIVATIVES}/*/*dseg.tsv",
            ):
                for file in self.source.glob(pattern):
                    place = self.out / file.relative_to(self.source)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, place)

    def _folder(self, case: Case) -> Path:
        return self.out if self.root is not None else self.out / case.name

    def _dataset(self) -> dict[str, Any]:
        """The data set's own ``dataset.json`` with the cases that are here, or one of its classes and channels."""
        file = self.source / "dataset.json"
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
        else:
            content = {
                "channel_names": {str(i): name for i, name in enumerate(self.channels)},
                "labels": {"background": 0, **self.classes.values},
                "file_ending": ".nii.gz",
            }
        for key in ("training", "test"):
            if isinstance(content.get(key), list):
                content[key] = [entry for entry in content[key] if self._is_here(entry)]
        return content | {"numTraining": sum(1 for _ in (self.out / "labelsTr").glob("*.nii*"))}

    def _is_here(self, entry: Any) -> bool:
        """Whether the image of an entry of MSD's lists, a name or a pair of names, was written."""
        name = entry.get("image") if isinstance(entry, dict) else entry
        return isinstance(name, str) and any(self.out.glob(f"{name.removeprefix('./').removesuffix('.nii.gz')}*"))
