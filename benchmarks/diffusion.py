"""How many steps the diffusion generator needs: realism, diversity and seconds by scheduler and number of steps.

    python benchmarks/diffusion.py --data DATA --out OUT --generator brats-diffusion --beside brats-gan \
        --rows flow_match_euler:1 flow_match_euler:4 ddim:4 dpmsolver++:4 flow_match_euler:50 [--judge JUDGE.py]

DATA is that of benchmarks/fidelity.py. Each row is a scheduler and a number of steps; `:plain` after them leaves out
the jump at the path's end, so that the scheduler alone is at work. `--beside` adds other generators.
Measured are, on windows of `--window` voxels around lesions of the cases, painted anew in their own surroundings with
two seeds: `within`, the share of classes and channels whose spread and three bands of texture lie within 15 % of the
real ones; `distance`, between the distributions of intensities of real and painted voxels (Wasserstein-1, in standard
deviations of the real class, mean over classes and channels; those of each follow the table); `diversity`, two seeds
as a share of two patients; `seconds`, CPU seconds a lesion; with `--auc N`, the AUC of classifiers on lesion and
border, mean over N seeds of paintings, folds and classifiers; with `--judge`, the judge's mean Dice WT / TC / ET for
the `--jobs` of fidelity.py's insertions, over those that every row of the command has. Every measurement is kept in
OUT, one line each; the same command again measures what is missing and prints the table.
"""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fidelity import Bench, Log, World, judge_jobs, real_lesions
from judge import CHANNELS

from synthaug import BRATS18
from synthaug.evaluation import fidelity
from synthaug.evaluation.fidelity import Specimen
from synthaug.generators.base import TumorGenerator
from synthaug.generators.registry import resolve_generator

QUANTILES = np.linspace(0.005, 0.995, 100)
SHARE = 0.15
REGIONS = ("lesion", "border")


def generators(args) -> dict[str, TumorGenerator]:
    """By row."""
    rows = {}
    for name in args.beside:
        rows[Path(name).name] = resolve_generator(name)
    for row in args.rows:
        scheduler, steps, *plain = row.split(":")
        rows[row] = resolve_generator(args.generator, scheduler=scheduler, steps=int(steps))
        if plain:
            rows[row].painter.refined = False
    for generator in rows.values():
        if args.truncation is not None:
            generator.truncation = args.truncation
    return rows


# ------------------------------------------------------------------------------------------------- windows


def windows(world: World, size: int, most: int) -> list[Specimen]:
    """Real lesions in cubes of `size`, up to `most` a patient: around the middle of each class, the rarest first."""
    cut = []
    for group in world.cases:
        whole = real_lesions(world, group)[0]
        image, mask = (
            F.pad(x, (size // 2,) * 6, mode=m) for x, m in ((whole.image, "replicate"), (whole.mask, "constant"))
        )
        counts = mask.sum((1, 2, 3))
        order = [k for k in counts.argsort().tolist() if counts[k] >= fidelity.LEAST_VOXELS]
        for k in order[:most]:
            voxels = mask[k].nonzero()
            middle = voxels[(voxels - voxels.float().mean(0)).square().sum(1).argmin()]
            box = (slice(None), *(slice(int(c) - size // 2, int(c) + size // 2) for c in middle))
            cut.append(Specimen(image[box].contiguous(), mask[box].contiguous(), group))
    return cut


def painted(generator: TumorGenerator, real: list[Specimen], seed: int) -> tuple[list[Specimen], float]:
    """The windows' lesions painted anew, and the CPU seconds that one took."""
    generator, out = generator.bind(CHANNELS, BRATS18.names), []
    start = time.process_time()
    for n, own in enumerate(real):
        lesion = own.mask.sum(0, keepdim=True)
        context = own.image if generator.needs_host else own.image * (1 - lesion)
        z = generator.generate(context[None], own.mask[None], [seed * 1000 + n])[0]
        out.append(Specimen(torch.where(lesion > 0, z, own.image), own.mask, own.group))
    return out, (time.process_time() - start) / len(real)


def distances(real: list[Specimen], inserted: list[Specimen]) -> dict[str, float]:
    """Wasserstein-1 distance of the voxels' intensities, in standard deviations of the real ones, by class, channel."""
    found = {}
    for k, name in enumerate(BRATS18.names):
        pools = [torch.cat([s.image[:, s.mask[k] > 0] for s in side], 1).numpy() for side in (real, inserted)]
        for channel, a, b in zip(CHANNELS, *pools, strict=True):
            if len(a) >= fidelity.LEAST_VOXELS:
                gap = np.abs(np.quantile(a, QUANTILES) - np.quantile(b, QUANTILES)).mean()
                found[f"{name} {channel}"] = float(gap / a.std())
    return found


def looks(generator: TumorGenerator, real: list[Specimen]) -> dict:
    """Statistics, distances, diversity and seconds."""
    first, seconds = painted(generator, real, 0)
    second, _ = painted(generator, real, 1)
    within = {}
    for rows in (fidelity.compare_statistics(real, p, BRATS18.names, CHANNELS) for p in (first, second)):
        for name, share in fidelity.within(rows, SHARE).items():
            within[name] = within.get(name, 0.0) + share / 2
    share = fidelity.diversity(list(zip(first, second, strict=True)), real)
    both = [distances(real, side) for side in (first, second)]
    mean = {name: round((both[0][name] + both[1][name]) / 2, 3) for name in both[0]}
    return {
        "within": {name: round(value, 3) for name, value in within.items()},
        "distance": round(float(np.mean(list(mean.values()))), 4),
        "distances": mean,
        "diversity": round(float(share.mean()), 3),
        "seconds": round(seconds, 3),
        "windows": len(real),
    }


# ------------------------------------------------------------------------------------------------- measures


def measure_judge(world: World, row: str, generator: TumorGenerator, bench: Bench, args) -> dict[str, dict]:
    """The judge's Dice by job, each kept as it comes."""
    log, known = Log(args.out / f"judge-{row.replace(':', '-')}{args.tag}.jsonl"), judge_jobs(world)
    jobs = [known[n] for n in args.jobs]
    bench.hear(world, jobs, generator, log)
    return {job.key: log.rows[job.key] for job in jobs if log.rows[job.key]["outcome"] == "done"}


def auc_key(row: str, region: str, seed: int) -> str:
    """What an AUC is kept under."""
    return f"{row} {region}" + (f" seed {seed}" if seed else "")


def measure_auc(real: list[Specimen], row: str, generator: TumorGenerator, log: Log, args) -> None:
    """AUC of classifiers on lesion and border, where it is not known yet."""
    options = fidelity.ClassifierOptions(folds=min(4, len({s.group for s in real})), steps=args.auc_steps)
    for seed in range(args.auc):
        unknown = [region for region in REGIONS if auc_key(row, region, seed) not in log.rows]
        inserted = painted(generator, real, seed)[0] if unknown else []
        for region in unknown:
            auc = fidelity.classifier_auc(real, inserted, region, options, seed)
            log.add(auc_key(row, region, seed), auc)


def main() -> None:
    args = arguments()
    torch.set_flush_denormal(True)
    args.out.mkdir(parents=True, exist_ok=True)
    log, world = Log(args.out / f"rows{args.tag}.jsonl"), World(args.data, args.groups)
    real = windows(world, args.window, args.windows)
    rows, scores = generators(args), {}
    everyone, bench = (World(args.data), Bench(args.judge)) if args.judge else (None, None)
    for row, generator in rows.items():
        if f"{row} looks" not in log.rows:
            log.add(f"{row} looks", looks(generator, real))
        if args.auc:
            measure_auc(real, row, generator, log, args)
        if args.judge:
            scores[row] = measure_judge(everyone, row, generator, bench, args)
    print_table(log, rows, scores, args.auc)


def print_table(log: Log, rows: Iterable[str], scores: dict[str, dict], seeds: int) -> None:
    """A line for each row, then its distances by class and channel."""
    common = sorted(set.intersection(*(set(found) for found in scores.values()))) if scores else []
    if scores:
        print(f"the judge's Dice over {len(common)} insertions")
    for row in rows:
        found = log.rows[f"{row} looks"]
        auc = [auc_text(log, row, region, seeds) for region in REGIONS] if seeds else []
        dice = [f"{np.mean([scores[row][key][r] for key in common]):.3f}" for r in ("WT", "TC", "ET") if common]
        within = " ".join(f"{name} {value:.2f}" for name, value in found["within"].items())
        print(
            f"{row:24s} distance {found['distance']:.3f}  diversity {found['diversity']:.2f}  "
            f"seconds {found['seconds']:.2f}  within {within}"
            + (f"  auc {' / '.join(auc)}" if auc else "")
            + (f"  judge {' / '.join(dice)}" if dice else "")
        )
    for row in rows:
        each = log.rows[f"{row} looks"]["distances"]
        print(f"{row:24s} " + "  ".join(f"{name} {value:.2f}" for name, value in each.items()))


def auc_text(log: Log, row: str, region: str, seeds: int) -> str:
    """Mean over the seeds, and each of them where there are several."""
    found = [log.rows[auc_key(row, region, seed)]["auc"] for seed in range(seeds)]
    return f"{np.mean(found):.2f}" + (f" ({' '.join(f'{auc:.2f}' for auc in found)})" if seeds > 1 else "")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--generator", required=True, help="name or folder of a diffusion generator")
    parser.add_argument("--rows", nargs="*", default=[f"flow_match_euler:{n}" for n in (1, 2, 4, 8, 50)])
    parser.add_argument("--beside", nargs="*", default=[], help="other generators, by name or folder")
    parser.add_argument("--groups", nargs="*", help="patients whose lesions are painted anew, all where not given")
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--windows", type=int, default=2, help="most of one patient")
    parser.add_argument("--truncation", type=float, help="of the style prior")
    parser.add_argument("--auc", type=int, nargs="?", const=1, default=0, help="train classifiers, with so many seeds")
    parser.add_argument("--auc-steps", type=int, default=250)
    parser.add_argument("--judge", type=Path, help="judge.py; without it, no judge")
    parser.add_argument("--jobs", type=int, nargs="*", default=list(range(28)), help="of fidelity.py's insertions")
    parser.add_argument("--tag", default="", help="added to the names of what is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
