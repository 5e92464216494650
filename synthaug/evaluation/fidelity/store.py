"""The folder of a measurement: what it is of, samples as files, and measurements one line each, so that it goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as serialized

from synthaug.config import ConfigError
from synthaug.evaluation.fidelity.scene import Sample
from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.files import replace_file
from synthaug.insertion.render import one_hot

ASKED, LOG, SAMPLES = "asked.json", "measured.jsonl", "samples"


class Store:
    """Keeps samples and measurements of one question in a folder.

    Args:
        out: folder, made where it is not there.
        asked: what is measured, JSON-able; another one in the same folder is refused.

    Raises:
        ConfigError: the folder holds the measurement of something else; what differs is named.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any]):
        self.out = out
        self.rows: dict[str, dict[str, Any]] = {}
        new, file = json.loads(json.dumps(asked)), out / ASKED
        if file.is_file():
            old = json.loads(file.read_text(encoding="utf-8"))
            if changed := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
                words = "; ".join(f"{key} was {old.get(key)} and is {new.get(key)}" for key in changed[:3])
                raise ConfigError(f"{out} holds another measurement ({words[:400]}): give another --out")
        else:
            replace_file(file, json.dumps(new, indent=1) + "\n")
        self._read()

    @classmethod
    def reading(cls, out: Path) -> "Store":
        """Open a folder to read what it holds, whatever it was made for.

        Raises:
            ConfigError: the folder holds no measurement.
        """
        if not (out / ASKED).is_file():
            raise ConfigError(f"{out}: expected a folder of synthaug fidelity, got one without {ASKED}")
        return cls(out, json.loads((out / ASKED).read_text(encoding="utf-8")))

    def _read(self) -> None:
        out = self.out
        if (out / LOG).is_file():
            for line in (out / LOG).read_text(encoding="utf-8").splitlines():
                if line.endswith("}"):  # the last one may be half-written
                    row = json.loads(line)
                    self.rows[row.pop("key")] = row

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a measurement, in memory and at the end of the file."""
        self.rows[key] = dict(row)
        text = json.dumps({"key": key} | self.rows[key]) + "\n"
        path = self.out / LOG
        whole = not path.is_file() or path.read_bytes()[-1:] in (b"", b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write(text if whole else "\n" + text)

    def keep(self, name: str, sample: Sample) -> None:
        """Write a sample's file."""
        index = (sample.specimen.mask * torch.arange(1, len(sample.specimen.mask) + 1)[:, None, None, None]).sum(0)
        tensors = {
            "image": sample.specimen.image.half().contiguous(),
            "index": index.to(torch.uint8).contiguous(),
            "view": torch.from_numpy(np.ascontiguousarray(sample.view)).half(),
            "outline": torch.from_numpy(np.ascontiguousarray(sample.outline)),
        }
        facts = sample.facts | {"group": sample.specimen.group, "classes": len(sample.specimen.mask)}
        replace_file(self._file(name), serialized(tensors, metadata={"facts": json.dumps(facts)}))

    def sample(self, name: str) -> Sample:
        """Read a sample's file."""
        with safe_open(self._file(name), "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            image, index, view, outline = (file.get_tensor(key) for key in ("image", "index", "view", "outline"))
        specimen = Specimen(image.float(), one_hot(index, facts.pop("classes")), facts.pop("group"))
        return Sample(specimen, view.float().numpy(), outline.numpy(), facts)

    def samples(self, prefix: str) -> list[Sample]:
        """Read all samples whose names begin so, in the order of their names."""
        names = sorted(path.stem for path in (self.out / SAMPLES).glob(f"{prefix}-*.safetensors"))
        return [self.sample(name) for name in names]

    def _file(self, name: str) -> Path:
        return self.out / SAMPLES / f"{name}.safetensors"
