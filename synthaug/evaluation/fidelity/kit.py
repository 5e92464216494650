"""The fidelity kit: any generator or bank against real lesions, measured in a folder, with two pages.

Everything that was measured is kept as it comes; the same question in the same folder goes on, and gives the same.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor

from synthaug.data.cases import Case, load_case
from synthaug.evaluation.fidelity.border import border_profiles, linear_scores
from synthaug.evaluation.fidelity.classifier import Fold, Look, auc_interval, held_out_scores
from synthaug.evaluation.fidelity.config import FidelityConfig
from synthaug.evaluation.fidelity.distances import split_distances
from synthaug.evaluation.fidelity.recognition import dice_of_inserted, dice_of_real, load_judge
from synthaug.evaluation.fidelity.scene import REAL, Scene
from synthaug.evaluation.fidelity.statistics import Specimen, between_patients, diversity
from synthaug.evaluation.fidelity.store import SAMPLES, Store
from synthaug.files import replace_file
from synthaug.generators.identity import generator_facts, settings_of
from synthaug.lesions.bank import LesionBank
from synthaug.profile.profile import Profile
from synthaug.random import stream

PAIRS = 8
"""Insertions that are painted again with another seed, for the diversity."""
LOOKS = 3
"""Lesions of each fold and side whose evidence is kept, of the first seed."""
LINEAR = "linear"
"""Beside the regions: a linear classifier of the border."""

Say = Callable[[str], None]


class Kit:
    """Measures one generator; each step does what is left of it.

    Args:
        generator: name, folder, hub id, the file of a bank, whose lesions are pasted, ``"real"`` or ``"noise"``.
        profile: of the data.
        cases: labelled, of patients that the generator has not seen.
        out: folder of the measurement.
        config: how thoroughly.
        donors: bank whose masks are inserted; cut from the cases where not given.
        judge: segmenter, see `synthaug.evaluation.fidelity.recognition.load_judge`.
        say: takes a line for each step.

    Raises:
        ConfigError: the folder holds the measurement of something else.
        ValueError: an unknown generator, or cases that cannot be compared.
    """

    def __init__(
        self,
        generator: str | os.PathLike,
        profile: Profile,
        cases: Sequence[Case],
        out: str | os.PathLike,
        config: FidelityConfig | None = None,
        donors: LesionBank | None = None,
        judge: str | Path | None = None,
        say: Say = print,
    ):
        self.name, self.config, self.say, self.judge = str(generator), config or FidelityConfig(), say, judge
        self.profile, painted = profile, self.name
        if Path(self.name).is_file():
            donors, painted = LesionBank.load(self.name), "paste"
        self.real_only = self.name == REAL
        told = (self.config.least_voxels, self.config.tries, self.config.options)
        self.scene = Scene(cases, profile, "paste" if self.real_only else painted, donors, *told)
        self.store = Store(Path(out), self._asked(painted))

    def _asked(self, painted: str) -> dict[str, Any]:
        known = self.scene.generator
        facts = {"name": self.name} if self.real_only else generator_facts(painted, known) | settings_of(known)
        asked = {"generator": self.name, **{key: value for key, value in facts.items() if key != "name"}}
        asked |= {"donors": self.scene.donors.checksum, "cases": [case.name for case in self.scene.cases]}
        return asked | {"judge": None if self.judge is None else str(self.judge)} | self.config.model_dump()

    def run(self) -> dict[str, Any]:
        """Measure what is not measured yet; returns what `results` does, and writes the pages and ``fidelity.json``."""
        from synthaug.evaluation.fidelity.page import write_pages

        self.samples()
        if self.judge is not None:
            self.recognised()
        real, made = ([s.specimen for s in self.store.samples(kind)] for kind in ("real", "made"))
        if not made and not self.real_only:
            raise ValueError(f"{self.name}: no lesion found a place in the cases; see {self.store.out}")
        self.compared(real, made)
        self.told_apart(real, made)
        found = self.results()
        write_pages(self, found)
        return found

    def samples(self) -> None:
        """Cut the real lesions, and insert; a lesion that finds no place is kept as refused."""
        if "real" not in self.store.rows:
            count = 0
            for count, sample in enumerate(self.scene.real(), 1):
                self.store.keep(f"real-{count:03d}", sample)
            self.store.add("real", {"lesions": count})
            self.say(f"{count} real lesions")
        for lesion, number in [] if self.real_only else self.scene.jobs(self.config.insertions):
            if (key := f"insert {number}") not in self.store.rows:
                self.store.add(key, self._insert(lesion, number))
                self.say(f"{key}: {lesion}, {self.store.rows[key]['outcome']}")

    def _insert(self, lesion: str, number: int) -> dict[str, Any]:
        inserted = self.scene.insertion(lesion, number, self.config.seed)
        if inserted is None:
            return {"outcome": "no place", "lesion": lesion}
        if (sample := self.scene.sample(inserted)) is None:
            return {"outcome": "too little of it left", "lesion": lesion}
        self.store.keep(f"made-{number:03d}", sample)
        if number < PAIRS and (twin := self.scene.sample(self.scene.twin(inserted))) is not None:
            self.store.keep(f"twin-{number:03d}", twin)
        return {"outcome": "done", "lesion": lesion, "host": sample.facts["host"]}

    def recognised(self) -> None:
        """Show the segmenter inserted lesions, and the cases' own."""
        judge, profile = None, self.profile
        for lesion, number in [] if self.real_only else self.scene.jobs(self.config.insertions)[: self.config.judged]:
            if (key := f"judge {number}") in self.store.rows or self.store.rows[f"insert {number}"][
                "outcome"
            ] != "done":
                continue
            judge = judge or load_judge(self.judge or "", profile.names)
            inserted = self.scene.insertion(lesion, number, self.config.seed)
            assert inserted is not None  # it was done before
            dice = dice_of_inserted(judge, inserted, profile)
            self.store.add(key, {"lesion": lesion, "ml": _ml(inserted), "dice": dice})
            self.say(f"{key}: {dice}")
        for case in self.scene.cases[: self.config.judged]:
            if (key := f"judge real {case.name}") not in self.store.rows:
                judge = judge or load_judge(self.judge or "", profile.names)
                self.store.add(key, {"dice": dice_of_real(judge, load_case(case, profile.names), profile)})
                self.say(f"{key}: {self.store.rows[key]['dice']}")

    def compared(self, real: list[Specimen], made: list[Specimen]) -> None:
        """Measure distances from real lesions, and diversity."""
        classes, channels = self.profile.classes.names, self.profile.names
        if "distances" not in self.store.rows:
            rows = split_distances(real, made or real, classes, channels, self.config.splits, self.config.seed)
            self.store.add("distances", {"rows": rows})
        if "diversity" not in self.store.rows and made:
            twins = {s.facts["lesion"]: s.specimen for s in self.store.samples("twin")}
            firsts = {s.facts["lesion"]: s.specimen for s in reversed(self.store.samples("made"))}
            # the places are one, the boxes too: a twin differs in its seed alone
            pairs = [(firsts[name], twin) for name, twin in twins.items() if name in firsts]
            seeds = diversity(pairs, real, self.config.seed).tolist() if pairs else None
            patients = (between_patients(made) / between_patients(real)).tolist()
            self.store.add("diversity", {"channels": list(channels), "seeds": seeds, "patients": patients})

    def told_apart(self, real: list[Specimen], made: list[Specimen]) -> None:
        """Train classifiers on each region, with several seeds, and keep their scores."""
        for number in range(self.config.seeds):
            seed = self.config.seed + number
            sides = _halves(real, seed) if self.real_only else (real, made)
            patients = min(len({s.group for s in side}) for side in sides)
            if patients < 2:
                return
            for region in self.config.regions:
                if (key := f"auc {region} {number}") in self.store.rows:
                    continue
                options = self.config.classifier(patients)
                folds, looks = held_out_scores(*sides, region, options, seed, 0 if number else LOOKS)
                if looks:
                    self._keep_looks(region, looks)
                self._add_auc(key, folds)
            if "border" in self.config.regions and (key := f"auc {LINEAR} {number}") not in self.store.rows:
                own, others = (border_profiles(side, seed) for side in sides)
                self._add_auc(key, linear_scores(own, others, min(self.config.folds, patients), seed))

    def _add_auc(self, key: str, folds: Sequence[Fold]) -> None:
        self.store.add(key, {"folds": [_plain(fold) for fold in folds]})
        self.say(f"{key}: {np.mean([fold.auc for fold in folds]):.3f}")

    def _keep_looks(self, region: str, looks: Sequence[Look]) -> None:
        tensors: dict[str, Tensor] = {}
        for n, look in enumerate(looks):
            name = f"{n:03d} {'inserted' if look.inserted else 'real'} {look.score:.3f} {look.group}"
            tensors |= {f"crop {name}": look.crop.contiguous(), f"evidence {name}": look.evidence.contiguous()}
        replace_file(self.store.out / SAMPLES / f"looks-{region}.safetensors", serialized(tensors))

    def looks(self, region: str) -> list[Look]:
        """Read what the classifiers of a region looked at."""
        file = self.store.out / SAMPLES / f"looks-{region}.safetensors"
        tensors = load_file(file) if file.is_file() else {}
        found = []
        for key in sorted(key for key in tensors if key.startswith("crop ")):
            _, number, kind, score, group = key.split(" ", 4)
            evidence = tensors[f"evidence {number} {kind} {score} {group}"]
            found.append(Look(tensors[key], evidence, float(score), kind == "inserted", group))
        return found

    def results(self) -> dict[str, Any]:
        """Collect what was measured: ``auc`` by region and ``linear``, ``distances``, diversity, dice, counts."""
        rows = self.store.rows
        auc = {}
        for region in (*self.config.regions, LINEAR):
            folds = [
                Fold(_arrays(fold["real"]), _arrays(fold["inserted"]), number)
                for number in range(self.config.seeds)
                for fold in rows.get(f"auc {region} {number}", {}).get("folds", [])
            ]
            if folds:
                mean, low, high = auc_interval(folds)
                auc[region] = {"auc": mean, "low": low, "high": high, "seeds": _by_seed(folds)}
        inserted = [row for key, row in rows.items() if key.startswith("insert ")]
        return {
            "generator": self.name,
            "auc": auc,
            "distances": rows["distances"]["rows"],
            "diversity": rows.get("diversity"),
            "dice": {what: _mean_dice(rows, what) for what in ("inserted", "real")},
            "lesions": {
                "real": rows["real"]["lesions"],
                "inserted": sum(row["outcome"] == "done" for row in inserted),
                "refused": sum(row["outcome"] != "done" for row in inserted),
                "patients": len({case.group for case in self.scene.cases}),
            },
        }


def _halves(real: Sequence[Specimen], seed: int) -> tuple[list[Specimen], list[Specimen]]:
    """Cut each real lesion in two by a plane drawn at random: the control of what cannot be told apart."""
    sides: tuple[list[Specimen], list[Specimen]] = ([], [])
    for number, specimen in enumerate(real):
        voxels = specimen.mask.sum(0).nonzero().numpy()
        normal = stream(seed, number).standard_normal(3)
        away = (voxels - voxels.mean(0)) @ normal
        for side, here in zip(sides, (away < np.median(away), away >= np.median(away)), strict=True):
            part = torch.zeros_like(specimen.mask[0])
            part[tuple(voxels[here].T)] = 1
            side.append(replace(specimen, mask=specimen.mask * part))
    return sides


def _plain(fold: Fold) -> dict[str, list]:
    return {
        side: [[group, [round(float(x), 5) for x in scores]] for group, scores in getattr(fold, side)]
        for side in ("real", "inserted")
    }


def _arrays(side: list) -> list[tuple[str, np.ndarray]]:
    return [(group, np.array(scores)) for group, scores in side]


def _by_seed(folds: Sequence[Fold]) -> list[float]:
    return [float(np.mean([f.auc for f in folds if f.seed == seed])) for seed in sorted({f.seed for f in folds})]


def _ml(inserted: Any) -> float:
    return round(float((inserted.label != 0).sum()) * float(np.prod(inserted.volume.spacing_mm)) / 1000, 2)


def _mean_dice(rows: dict[str, dict], what: str) -> dict[str, float] | None:
    """Average the segmenter's Dice of each region, over lesions that have it; None where it was not asked."""
    real = what == "real"
    found = [row["dice"] for key, row in rows.items() if key.startswith("judge") and ("real" in key.split(" ")) == real]
    names = list(dict.fromkeys(name for dice in found for name in dice))
    return {name: float(np.mean([dice[name] for dice in found if name in dice])) for name in names} or None
