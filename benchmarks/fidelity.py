"""How an outside segmenter sees inserted tumours on fixed insertions, and the fidelity kit on the same cases.

    python benchmarks/fidelity.py judge --data DATA --judge JUDGE.py --out OUT --generators paste procedural brats-gan
    python benchmarks/fidelity.py kit --data DATA --profile PROFILE --out OUT --generators brats-gan [--groups ...]

DATA holds `brats/` (labelled cases) and `tumour_free/openms_07/`. Everything that was measured is kept in OUT; the same
command again measures only what is missing, then prints the tables.

`judge`: lesions of the four validation cases at scale 1 in `openms_07` and at 0.6 in the tumour-free hemisphere of
another validation case, and 20 lesions of the bank at scales from 0.3 to 1, in these hosts by turns. Inserted by
`TumorInsertion`, and segmented by JUDGE.py (see judge.py here); in a hemisphere the real tumour's side is not counted.
`painted:NAME` paints each lesion before its insertion in a neutral host, as `LesionBank.painted` does, with the seed
that NAME has there, and pastes it.

`kit`: what `synthaug fidelity GENERATOR --cases DATA/brats` measures, for several generators: classifier, statistics,
diversity, pictures. Weights that were trained on all cases saw these lesions; `--groups` takes some patients only.
"""

import argparse
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from judge import CHANNELS, load_module

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.data import Volume, find_cases, load_case
from synthaug.evaluation.fidelity import Specimen
from synthaug.evaluation.fidelity.kit import Kit
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.geometry import grown
from synthaug.host import host_statistics, host_tissue, to_model
from synthaug.insertion.render import one_hot
from synthaug.lesions.painted.painter import LesionPainter
from synthaug.lesions.painted.recipes import Recipe
from synthaug.profile.profile import Profile

VALIDATION = ("CBICA_AME", "CBICA_AQN", "TCIA01_425", "TCIA10_639")
FREE = "openms_07"
LEAST_VOXELS = 1000
LARGE_ML = 5
"""The judge overlooks most lesions that are smaller, pasted ones too; means are given with and without them."""

AHEAD = "painted:"
"""Before the name of a generator: its lesions are painted ahead."""

MARGIN = 12
AWAY_MM = 6.0
"""No insertion nearer than this to a real tumour in the same brain."""


@dataclass(frozen=True)
class Job:
    """One lesion for one host."""

    lesion: str
    host: str
    scale: float
    seed: int

    @property
    def key(self) -> str:
        """What a measurement is kept under."""
        return f"{self.lesion} in {self.host} x{self.scale:.2f} #{self.seed}"


class World:
    """The cases and their lesions."""

    def __init__(self, data: Path, groups: list[str] | None = None):
        self.cases = {c.group: c for c in find_cases(data / "brats") if not groups or c.group in groups}
        self.bank = LesionBank.from_cases(list(self.cases.values()), BRATS18, CHANNELS)
        self.free = find_cases(data / "tumour_free")[0]
        self.lesions = {lesion.name: lesion for lesion in self.bank if sum(lesion.voxels) >= LEAST_VOXELS}

    def largest(self, group: str) -> str:
        """Name of the patient's largest lesion."""
        return max((x for x in self.lesions.values() if x.group == group), key=lambda x: sum(x.voxels)).name

    @lru_cache(maxsize=4)  # noqa: B019 (there is one world)
    def host(self, name: str) -> tuple[Volume, np.ndarray, np.ndarray]:
        """Volume, label (X, Y, Z) and where lesions may lie: the whole brain, or the half without tumour."""
        if name == FREE:
            volume = load_case(self.free, CHANNELS, require_label=False)
            tissue = host_tissue(torch.from_numpy(volume.image)).numpy()
            return volume, np.zeros(tissue.shape, np.int16), tissue
        volume = load_case(self.cases[name], CHANNELS)
        tissue = host_tissue(torch.from_numpy(volume.image)).numpy()
        x = np.flatnonzero(tissue.any((1, 2)))
        middle = (x[0] + x[-1] + 1) // 2
        left, right = (np.count_nonzero(volume.label[s]) for s in (slice(None, middle), slice(middle, None)))
        tissue[slice(None, middle) if left > right else slice(middle, None)] = False
        around = grown(torch.from_numpy(volume.label != 0), AWAY_MM, volume.spacing_mm).numpy()
        return volume, volume.label, tissue & ~around


@dataclass(frozen=True)
class Ahead:
    """A generator whose lesions are painted before they are inserted, and pasted."""

    generator: TumorGenerator
    needs_donor = True

    def bank(self, donors: LesionBank, row: dict) -> LesionBank:
        """The lesion of a plan's row, painted at its scale and with its seed, which gives it the same style."""
        painter = LesionPainter(donors, self.generator, spacing_mm=row["spacing_mm"])
        known = painter.recipes
        recipe = Recipe(row["lesion"], round(row["scale"], 3), known.spacing_mm, {}, known.painter, row["seed"])
        return donors.of_rows([painter.repaint(recipe.name).row], painter.facts)


def insert(world: World, job: Job, generator: TumorGenerator | Ahead, tissue_share: float = 0.9, turn: bool = True):
    """The host with the lesion: image (C, X, Y, Z), its label (X, Y, Z) and the plan's row."""
    volume, label, room = world.host(job.host)
    options = {"prob": 1, "second": 0, "flip": 0.5 if turn else 0, "rotate90": turn, "seed": job.seed}
    options |= {"tissue_share": tissue_share}
    image, before = torch.from_numpy(volume.image)[None], torch.from_numpy(label.astype(np.int16))[None, None]
    context = {"host": torch.from_numpy(room)[None, None]}
    donors, ahead = world.bank.subset([job.lesion]), isinstance(generator, Ahead)
    engine = TumorInsertion(donors, generator.generator if ahead else generator, scale=job.scale, **options)
    plan = engine.plan(image, before, volume.spacing_mm, **context)
    if ahead:
        engine = TumorInsertion(generator.bank(donors, plan.to_rows()[0]), "paste", **options)
        plan = engine.plan(image, before, volume.spacing_mm, **context)
    image, after = engine.apply(image, before, plan, **context)
    inserted = torch.where(after != before, after, 0)
    return image[0].numpy(), inserted[0, 0].numpy(), plan.to_rows()[0]


# ------------------------------------------------------------------------------------------------- the judge


def judge_jobs(world: World) -> list[Job]:
    """The insertions that the judge sees; see the head of this file."""
    jobs = []
    for i, group in enumerate(VALIDATION):
        lesion = world.largest(group)
        jobs += [Job(lesion, FREE, 1.0, i), Job(lesion, VALIDATION[i - 1], 0.6, i)]
    names, hosts = sorted(world.lesions), (FREE, *VALIDATION)
    order = np.random.default_rng(0).permutation(20)
    for i in range(20):
        lesion, host = names[i % len(names)], hosts[i % len(hosts)]
        if world.lesions[lesion].group == host:
            host = FREE
        jobs.append(Job(lesion, host, 0.3 + 0.7 * int(order[i]) / 19, 100 + i))
    return jobs


class Bench:
    """The judge of JUDGE.py, loaded when the first insertion is to be judged."""

    def __init__(self, path: Path):
        self.module = load_module(path)
        self.regions = tuple(self.module.REGIONS)

    @cached_property
    def judge(self):
        """JUDGE.py's segmenter."""
        return self.module.Judge()

    def hear(self, world: World, jobs: list[Job], generator: TumorGenerator | Ahead, log: "Log") -> None:
        """Judge the insertions that are not in the log yet, each kept as it comes."""
        for job in jobs:
            if job.key not in log.rows:
                log.add(job.key, self.judged(world, job, generator))

    def judged(self, world: World, job: Job, generator: TumorGenerator | Ahead) -> dict:
        """Dice of each region between the judge's segmentation and the inserted label, or why nothing was inserted."""
        image, label, row = insert(world, job, generator)
        if row["outcome"] != "done":
            return {"outcome": row["reason"]}
        found = self.judge.segment(**dict(zip(CHANNELS, image, strict=True)))
        counted = world.host(job.host)[2] | (label != 0) if job.host != FREE else True
        dice = {
            region: float(self.module.dice(np.isin(found, values) & counted, np.isin(label, values)))
            for region, values in self.module.REGIONS.items()
        }
        return {"outcome": "done", **dice, "ml": round(np.count_nonzero(label) / 1000, 2)}


def run_judge(world: World, args) -> None:
    """Dice per region of the judge's segmentation and the label, for each job and generator."""
    bench, jobs, tables = Bench(args.judge), judge_jobs(world)[args.first : args.last], {}
    for name in args.generators:
        log = Log(args.out / f"judge-{Path(name).name}{args.tag}.jsonl")
        bench.hear(world, jobs, make_generator(name, args), log)
        tables[name] = log.rows
    done = [j.key for j in jobs if all(t[j.key]["outcome"] == "done" for t in tables.values())]
    for name, table in tables.items():
        refused = sum(table[j.key]["outcome"] != "done" for j in jobs)
        print(json.dumps({"generator": name, "refused": refused}))
        for what, least in (("all", 0), (f"{LARGE_ML} ml and more", LARGE_ML)):
            keys = [key for key in done if min(t[key]["ml"] for t in tables.values()) >= least]
            mean = {r: round(float(np.mean([table[key][r] for key in keys])), 3) for r in bench.regions if keys}
            print(json.dumps({"lesions": what, "insertions": len(keys), "mean dice": mean}))


# ------------------------------------------------------------------------------------------- real and inserted


def specimen(image: np.ndarray, label: np.ndarray, mean, std, group: str) -> Specimen:
    """The lesion's box with some margin, rounded as files are, in model intensities."""
    classes = torch.from_numpy(BRATS18.index_map(label))
    box = tuple(slice(max(int(i.min()) - MARGIN, 0), int(i.max()) + MARGIN + 1) for i in classes.nonzero(as_tuple=True))
    crop = to_model(torch.from_numpy(np.rint(image[(slice(None), *box)])), mean, std)
    return Specimen(crop, one_hot(classes[box], len(BRATS18)), group)


def real_lesions(world: World, group: str) -> list[Specimen]:
    volume, label, _ = world.host(group)
    return [specimen(volume.image, label, *statistics_of(volume, label), group)]


def statistics_of(volume: Volume, label: np.ndarray):
    """Mean and standard deviation of the case's host tissue."""
    image = torch.from_numpy(volume.image)
    return host_statistics(image, host_tissue(image) & torch.from_numpy(label == 0))


def run_kit(world: World, args) -> None:
    """What `synthaug fidelity` measures, of each generator."""
    profile = Profile.load(args.profile)
    for name in args.generators:
        kit = Kit(name, profile, list(world.cases.values()), args.out / f"kit-{Path(name).name}{args.tag}")
        print(json.dumps({"generator": name, "auc": kit.run()["auc"]}))


# ---------------------------------------------------------------------------------------------------- helpers


class Log:
    """Measurements by key, one line each, written as they come."""

    def __init__(self, path: Path):
        self.path, self.rows = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row.pop("key")] = row

    def add(self, key: str, row: dict) -> None:
        """Keep and print a measurement."""
        self.rows[key] = row
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key} | row) + "\n")
        print(self.path.stem, key, row, flush=True)


def make_generator(name: str, args) -> TumorGenerator | Ahead:
    generator = resolve_generator(name.removeprefix(AHEAD))
    if args.truncation is not None:
        generator.truncation = args.truncation
    return Ahead(generator) if name.startswith(AHEAD) else generator


MEASURES = {"judge": run_judge, "kit": run_kit}


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)
    args.out.mkdir(parents=True, exist_ok=True)
    MEASURES[args.measure](World(args.data, args.groups), args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--generators", nargs="+", required=True)
    parser.add_argument("--profile", type=Path, help="of the cases, for the measure kit")
    parser.add_argument("--judge", type=Path, help="judge.py, for the measure judge")
    parser.add_argument("--groups", nargs="*", help="patients to take, all where not given")
    parser.add_argument("--truncation", type=float, help="of generators with a style prior")
    parser.add_argument("--tag", default="", help="added to the names of what is written")
    parser.add_argument("--first", type=int, default=0, help="first of the judge's insertions")
    parser.add_argument("--last", type=int, help="end before this one of the judge's insertions")
    args = parser.parse_args()
    if args.measure == "judge" and args.judge is None:
        parser.error("judge: expected --judge JUDGE.py")
    if args.measure == "kit" and args.profile is None:
        parser.error("kit: expected --profile PROFILE, which synthaug fit writes")
    return args


if __name__ == "__main__":
    main()
