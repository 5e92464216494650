"""How an outside segmenter sees inserted tumours: Dice of its segmentation and the label, per region.

    python benchmarks/judge.py --data DATA --judge JUDGE.py --generator paste --largest 10 [--pictures DIR]

DATA holds `brats/` (labelled cases) and `tumour_free/openms_07/` (the host); JUDGE.py is a module with a class `Judge`
whose `segment(flair, t1, t1ce, t2)` gives a label map, `dice` and `REGIONS`. The largest donors of the bank are
inserted one by one at `--scale`, not turned, at a place of the engine's own choice.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.data import find_cases, load_case

CHANNELS = ("flair", "t1", "t1ce", "t2")


def main() -> None:
    args = arguments()
    module = load_module(args.judge)
    judge = module.Judge()
    bank = LesionBank.from_folder(args.data / "brats", BRATS18, CHANNELS)
    donors = sorted(bank, key=lambda lesion: -sum(lesion.voxels))[: args.largest]
    host = load_case(find_cases(args.data / "tumour_free")[0], CHANNELS, require_label=False)
    rows = []
    for donor in donors:
        image, label, row = insert(bank.subset([donor.name]), host, args)
        if row["outcome"] != "done":
            print(f"{donor.name:24s} refused: {row['reason']}", flush=True)
            continue
        found = judge.segment(**dict(zip(CHANNELS, image, strict=True)))
        scores = {r: module.dice(np.isin(found, v), np.isin(label, v)) for r, v in module.REGIONS.items()}
        rows.append(scores)
        text = "  ".join(f"{r} {s:.3f}" for r, s in scores.items())
        print(f"{donor.name:24s} {text}  {sum(row['voxels'].values()) / 1000:.1f} ml", flush=True)
        if args.pictures:
            draw(
                args.pictures / f"{args.generator}-{donor.name.replace('/', '-')}.png", image, host.image, label, scores
            )
    mean = {r: float(np.mean([row[r] for row in rows])) for r in module.REGIONS} if rows else {}
    print(json.dumps({"generator": args.generator, "lesions": len(rows), "dice": mean}))


def insert(bank: LesionBank, host, args) -> tuple[np.ndarray, np.ndarray, dict]:
    """One lesion in the host; image (C, X, Y, Z), label (X, Y, Z) and the plan's row."""
    image = torch.from_numpy(host.image)[None]
    label = torch.zeros((1, 1, *image.shape[2:]), dtype=torch.int16)
    engine = TumorInsertion(
        bank,
        args.generator,
        prob=1,
        second=0,
        scale=args.scale,
        flip=0,
        rotate90=False,
        tissue_share=args.tissue_share,
        seed=args.seed,
    )
    plan = engine.plan(image, label, host.spacing_mm)
    image, label = engine.apply(image, label, plan)
    return image[0].numpy(), label[0, 0].numpy(), plan.to_rows()[0]


def draw(path: Path, image: np.ndarray, before: np.ndarray, label: np.ndarray, scores: dict[str, float]) -> None:
    """Axial and coronal slices through the lesion: the four channels, the host before, the label."""
    import matplotlib.pyplot as plt

    centre = [int(np.median(i)) for i in np.nonzero(label)]
    figure, axes = plt.subplots(2, 6, figsize=(18, 6.4))
    for line, axis in zip(axes, (2, 1), strict=True):
        cut = (slice(None),) * axis + (centre[axis],)
        panels = [(c, v[cut], v) for c, v in zip(CHANNELS, image, strict=True)]
        panels += [("t1ce before", before[2][cut], before[2]), ("label", label[cut], np.array([0, 4]))]
        for panel, (name, values, scale) in zip(line, panels, strict=True):
            panel.imshow(np.rot90(values), cmap="gray", vmin=0, vmax=np.percentile(scale, 99.7))
            panel.set_title(name, fontsize=9)
            panel.axis("off")
    figure.suptitle("  ".join(f"{r} {s:.2f}" for r, s in scores.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", dpi=70)
    plt.close(figure)


def load_module(path: Path):
    spec = importlib.util.spec_from_file_location("judge", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--generator", default="paste")
    parser.add_argument("--largest", type=int, default=10)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tissue-share", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
