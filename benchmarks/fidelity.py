"""How real inserted tumours are: an outside segmenter, a classifier, statistics, diversity, pictures.

    python benchmarks/fidelity.py judge --data DATA --judge JUDGE.py --out OUT --generators paste procedural brats-gan
    python benchmarks/fidelity.py classifier --data DATA --out OUT --generators brats-gan
    python benchmarks/fidelity.py statistics --data DATA --out OUT --generators brats-gan
    python benchmarks/fidelity.py pictures --data DATA --out OUT --generators brats-gan

DATA holds `brats/` (labelled cases) and `tumour_free/openms_07/`. Everything that was measured is kept in OUT, one line
each; the same command again measures only what is missing, then prints the tables.

`judge`: lesions of the four validation cases at scale 1 in `openms_07` and at 0.6 in the tumour-free hemisphere of
another validation case, and 20 lesions of the bank at scales from 0.3 to 1, in these hosts by turns. Inserted by
`TumorInsertion`, and segmented by JUDGE.py (see judge.py here); in a hemisphere the real tumour's side is not counted.

`classifier` and `statistics` compare real lesions with inserted ones of the same masks, rounded to the integers of the
files. `repaint`: painted over the real lesion in its own surroundings (not paste, whose donor it would be).
`transplant`: inserted by `TumorInsertion` at scale 1 into the tumour-free hemisphere of another patient, the first of
them that it fits. `painted:NAME` paints each lesion before its insertion in a neutral host, as `LesionBank.painted`
does, with the seed that NAME has there, and pastes it. Weights that were trained on all cases saw these lesions; give
`--groups` to take some patients only.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from judge import CHANNELS, load_module

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.data import Volume, find_cases, load_case
from synthaug.evaluation import fidelity
from synthaug.evaluation.fidelity import Specimen
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator
from synthaug.geometry import grown
from synthaug.host import from_model, host_statistics, host_tissue, to_model
from synthaug.insertion.render import one_hot
from synthaug.lesions.painted.painter import LesionPainter
from synthaug.lesions.painted.recipes import Recipe

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


def transplants(world: World, generator: TumorGenerator | Ahead) -> tuple[list[Specimen], list[Specimen]]:
    """Real lesions, and the same masks inserted into another patient."""
    real, inserted = [], []
    for n, lesion in enumerate(world.lesions.values()):
        hosts = [group for group in world.cases if group != lesion.group]
        for host in hosts[n % len(hosts) :] + hosts[: n % len(hosts)]:
            image, label, row = insert(world, Job(lesion.name, host, 1.0, n), generator, 0.75, turn=False)
            if row["outcome"] == "done":
                volume, before, _ = world.host(host)
                inserted.append(specimen(image, label, *statistics_of(volume, before), lesion.group))
                real += real_lesions(world, lesion.group)
                break
    return real, inserted


def real_lesions(world: World, group: str) -> list[Specimen]:
    volume, label, _ = world.host(group)
    return [specimen(volume.image, label, *statistics_of(volume, label), group)]


def statistics_of(volume: Volume, label: np.ndarray):
    """Mean and standard deviation of the case's host tissue."""
    image = torch.from_numpy(volume.image)
    return host_statistics(image, host_tissue(image) & torch.from_numpy(label == 0))


def repaints(world: World, generator: TumorGenerator, seed: int) -> list[Specimen]:
    """Each patient's lesions painted anew in their own surroundings."""
    generator = generator.bind(CHANNELS, BRATS18.names)
    painted = []
    for n, group in enumerate(world.cases):
        own = real_lesions(world, group)[0]
        volume, label, _ = world.host(group)
        shape = own.image.shape[1:]
        side = [-(-n // 16) * 16 for n in shape]
        pad = [p for n, s in zip(reversed(shape), reversed(side), strict=True) for p in (0, s - n)]
        lesion = own.mask.sum(0, keepdim=True)
        context = torch.nn.functional.pad((own.image * (1 - lesion))[None], pad, mode="replicate")
        mask = torch.nn.functional.pad(own.mask[None], pad)
        z = generator.generate(context, mask, [seed * 1000 + n])[0][:, : shape[0], : shape[1], : shape[2]]
        mean, std = statistics_of(volume, label)
        whole = to_model(from_model(torch.where(lesion > 0, z, own.image), mean, std).round(), mean, std)
        painted.append(Specimen(whole, own.mask, group))
    return painted


def settings(world: World, generator: TumorGenerator | Ahead) -> Iterator[tuple[str, list, list]]:
    """(setting, real, inserted) for each setting that makes sense for the generator."""
    yield ("transplant", *transplants(world, generator))
    if not generator.needs_donor:
        real = [s for group in world.cases for s in real_lesions(world, group)]
        yield "repaint", real, repaints(world, generator, 0)


def run_classifier(world: World, args) -> None:
    """AUC of a classifier, on the lesion and on its border."""
    for name in args.generators:
        generator = make_generator(name, args)
        log = Log(args.out / f"classifier-{Path(name).name}{args.tag}.jsonl")
        for setting, real, inserted in settings(world, generator):
            for region in fidelity.REGIONS:
                if f"{setting} {region}" not in log.rows:
                    auc = fidelity.classifier_auc(real, inserted, region)
                    log.add(f"{setting} {region}", {"lesions": len(inserted)} | auc)
        print(json.dumps({"generator": name, "auc": {k: round(r["auc"], 3) for k, r in log.rows.items()}}))


def run_statistics(world: World, args) -> None:
    """Means, spreads and texture of inserted beside real, per class and channel; diversity."""
    real = [s for group in world.cases for s in real_lesions(world, group)]
    for name in args.generators:
        generator = make_generator(name, args)
        for setting, own, inserted in settings(world, generator):
            rows = fidelity.compare_statistics(own, inserted, BRATS18.names, CHANNELS)
            path = args.out / f"statistics-{Path(name).name}{args.tag}-{setting}.json"
            path.write_text(json.dumps(rows, indent=1))
            print(f"{name}, {setting}: {len(inserted)} lesions; mean in standard deviations, the others as ratios")
            for row in rows:
                print("  " + "  ".join(v if isinstance(v, str) else f"{k} {v:5.2f}" for k, v in row.items()))
            print("  share within 15 %:", {k: round(v, 2) for k, v in fidelity.within(rows, 0.15).items()})
        if not generator.needs_donor:
            pairs = list(zip(repaints(world, generator, 0), repaints(world, generator, 1), strict=True))
            share = dict(zip(CHANNELS, fidelity.diversity(pairs, real).tolist(), strict=True))
            print(f"{name}: two seeds / two patients", {c: round(v, 2) for c, v in share.items()})


def run_pictures(world: World, args) -> None:
    """16 random insertions, four channels each, before and after; no overlay."""
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(7)
    hosts = (FREE, *world.cases)
    for name in args.generators:
        generator, shown = make_generator(name, args), []
        while len(shown) < 16:
            lesion = str(rng.choice(sorted(world.lesions)))
            host, scale = str(rng.choice(hosts)), float(rng.uniform(0.4, 1))
            if host == world.lesions[lesion].group:
                continue
            image, label, row = insert(world, Job(lesion, host, scale, int(rng.integers(1 << 30))), generator)
            if row["outcome"] == "done":
                shown.append((image, label, world.host(host)[0].image, f"{lesion} x{scale:.2f}"))
        for page in range(4):
            figure, axes = plt.subplots(4, 8, figsize=(16, 8.4))
            for line, (image, label, before, title) in zip(axes, shown[4 * page : 4 * page + 4], strict=True):
                draw_row(line, image, label, before, title)
            figure.tight_layout(pad=0.2)
            figure.savefig(args.out / f"pictures-{Path(name).name}{args.tag}-{page}.png", dpi=75)
            plt.close(figure)


def draw_row(line, image: np.ndarray, label: np.ndarray, before: np.ndarray, title: str) -> None:
    """Four channels before and four after, the axial slice with most lesion, 112 voxels around it."""
    z = int(np.count_nonzero(label, axis=(0, 1)).argmax())
    x, y = (int(np.median(i)) for i in np.nonzero(label[:, :, z]))
    cut = (slice(max(x - 56, 0), x + 56), slice(max(y - 56, 0), y + 56), z)
    for i, volume in enumerate((before, image)):
        for c, channel in enumerate(CHANNELS):
            panel = line[4 * i + c]
            panel.imshow(np.rot90(volume[c][cut]), cmap="gray", vmin=0, vmax=np.percentile(before[c], 99.8))
            panel.set_title(title if i == c == 0 else channel, fontsize=7)
            panel.axis("off")


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


MEASURES = {"judge": run_judge, "classifier": run_classifier, "statistics": run_statistics, "pictures": run_pictures}


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
    parser.add_argument("--judge", type=Path, help="judge.py, for the measure judge")
    parser.add_argument("--groups", nargs="*", help="patients to take, all where not given")
    parser.add_argument("--truncation", type=float, help="of generators with a style prior")
    parser.add_argument("--tag", default="", help="added to the names of what is written")
    parser.add_argument("--first", type=int, default=0, help="first of the judge's insertions")
    parser.add_argument("--last", type=int, help="end before this one of the judge's insertions")
    args = parser.parse_args()
    if args.measure == "judge" and args.judge is None:
        parser.error("judge: expected --judge JUDGE.py")
    return args


if __name__ == "__main__":
    main()
