"""Where insertions by a data set's profile lie, by four ways in, on CT: the share in soft tissue, and lesions' medians.

    synthaug fit DATA -o FITTED [--train]
    python benchmarks/tissue.py --data DATA --fitted FITTED --out OUT [--generators paste procedural:fitted generator]

Each generator inserts `--count` lesions by `synthaug insert` (one seed after another), by `synthaug cohort` with its
gate, by the segmentation trainer's patches and by MONAI's transform, all with the profile alone. A voxel counts as soft
tissue where the 3 x 3 x 3 mean before the insertion lies in --soft; in patches of coarser voxels, theirs.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from synthaug.data import find_cases, load_case
from synthaug.profile import Profile

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image before and after, (X, Y, Z) in HU, and the new voxels, bool."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fitted", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--generators", nargs="+", default=["paste", "procedural:fitted"])
    parser.add_argument("--ways", nargs="+", default=["insert", "cohort", "trainer", "monai"])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--soft", type=float, nargs=2, default=(-120, 200))
    args = parser.parse_args()
    ways = {"insert": by_insert, "cohort": by_cohort, "trainer": by_trainer, "monai": by_monai}
    for name in args.generators:
        folder = args.fitted / name
        generator = str(folder) if folder.is_dir() else name
        for way in args.ways:
            out = args.out / name.replace(":", "-") / way
            shutil.rmtree(out, ignore_errors=True)
            facts: dict = {}
            pairs = ways[way](args, generator, out, facts)
            print(json.dumps({"generator": name, "way": way} | measured(pairs, args.soft) | facts), flush=True)


def measured(pairs: Iterator[Pair], soft: tuple[float, float]) -> dict:
    """What is printed of insertions."""
    voxels = inside = 0
    medians = []
    for before, after, new in pairs:
        mean = uniform_filter(before, 3)[new]
        voxels, inside = voxels + mean.size, inside + int(((mean >= soft[0]) & (mean <= soft[1])).sum())
        medians.append(float(np.median(after[new])))
    low, middle, high = np.percentile(medians, (0, 50, 100)).round(1).tolist()
    outside = sum(not 10 <= m <= 90 for m in medians)
    return {
        "lesions": len(medians),
        "soft": round(inside / voxels, 5),
        "medians": [low, middle, high],
        "outside 10 to 90": outside,
    }


def run(*words: object) -> None:
    done = subprocess.run([sys.executable, "-m", "synthaug", *map(str, words)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{words}: {done.stderr[-500:]}")


def volumes(profile: Profile, data: Path) -> dict:
    cases = {case.name: load_case(case, profile.names) for case in find_cases(data)}
    return {name: (volume.image[0].astype(np.float64), volume.label) for name, volume in cases.items()}


def by_insert(args, generator: str, out: Path, facts: dict) -> Iterator[Pair]:
    profile = Profile.load(args.fitted)
    originals = volumes(profile, args.data)
    for seed in range(-(-args.count // len(originals))):
        words = ("--profile", args.fitted, "--out", out / f"{seed}", "--seed", seed, "--generator", generator)
        run("insert", args.data, *words)
        for case in find_cases(out / f"{seed}"):
            volume, (image, label) = load_case(case, profile.names), originals[case.name]
            yield image, volume.image[0], volume.label != label


def by_cohort(args, generator: str, out: Path, facts: dict) -> Iterator[Pair]:
    profile = Profile.load(args.fitted)
    run(
        "cohort", "--config", args.fitted / "cohort.yaml", "--out", out, f"count={args.count}", f"generator={generator}"
    )
    records = [json.loads(line) for line in (out / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    gate = sum(refused["reason"].startswith("gate") for record in records for refused in record["refused"])
    facts["refused by the gate"] = round(gate / (gate + sum(bool(record["files"]) for record in records)), 3)
    originals, cases = volumes(profile, args.data), {case.name: case for case in find_cases(out)}
    for record in records:
        if record["files"]:
            volume, (image, label) = load_case(cases[record["case"]], profile.names), originals[record["host"]]
            yield image, volume.image[0], volume.label != label


def by_trainer(args, generator: str, out: Path, facts: dict) -> Iterator[Pair]:
    from accelerate import Accelerator

    from synthaug.config import read_config
    from synthaug.training.launch import load_trainer
    from synthaug.training.segmentation_config import SegmentationConfig, open_split
    from synthaug.training.segmentation_insertion import make_insertion

    trainer, wanted = load_trainer("segmentation"), [f"data.cache={out / 'cache'}", "insertion.prob=1.0"]
    wanted += [f"insertion.generator={generator}", "optimizer.steps=1000"]
    config = read_config(args.fitted / "segmentation_coarse.yaml", SegmentationConfig, wanted)
    train, held_out = open_split(config.data, out, Accelerator(cpu=True))
    insert = make_insertion(config, train, held_out, 0)
    mean, spread = config.data.space.units.statistics(config.data.channels)[0]
    made = 0
    for batch in trainer.batches(trainer.cached(train, config.data), [], config, 0, 0, 1):
        stats = (batch.host_mean, batch.host_std)
        known = {"groups": batch.groups, "host_stats": stats, "frames": batch.frames, "host": batch.host}
        image, label = insert(batch.image, batch.label, batch.spacing_mm, **known)
        for n in range(len(image)):
            new = (label[n, 0] != batch.label[n, 0]).numpy()
            if new.any() and made < args.count:
                made += 1
                before, after = (x[n, 0].numpy() * spread + mean for x in (batch.image, image))
                yield before, after, new
        if made >= args.count:
            break
    facts["asked"] = insert.report().asked


def by_monai(args, generator: str, out: Path, facts: dict) -> Iterator[Pair]:
    import torch
    from monai.transforms import CastToTyped, Compose, EnsureChannelFirstd, LoadImaged

    from synthaug.adapters.monai import RandInsertTumord

    profile = Profile.load(args.fitted)
    keys, channel = ("image", "label"), profile.names[0]
    load = Compose([LoadImaged(keys), EnsureChannelFirstd(keys), CastToTyped("label", torch.int16)])
    options = {"prob": 1.0, "group_key": "patient", "generator": generator}
    insert = RandInsertTumord(["image"], "label", profile=args.fitted, **options).set_random_state(0)
    cases = [
        {"image": str(case.images[channel]), "label": str(case.label), "patient": case.group}
        for case in find_cases(args.data, channels=profile.names)
    ]
    for number in range(args.count):
        before = load(cases[number % len(cases)])
        after = insert(dict(before))
        new = (np.asarray(after["label"]) != np.asarray(before["label"]))[0]
        if new.any():
            yield np.asarray(before["image"])[0].astype(np.float64), np.asarray(after["image"])[0], new


if __name__ == "__main__":
    main()
