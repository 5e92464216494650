"""How an outside segmenter sees inserted tumours: Dice of its segmentation and the label, per region.

    python benchmarks/judge.py --data DATA --judge JUDGE.py --generator paste --largest 10 [--pictures DIR]
    python benchmarks/judge.py --data DATA --judge JUDGE.py --scale 0.8 --beside profile --fitted FITTED

DATA holds `brats/` (labelled cases) and `tumour_free/openms_07/` (the host); JUDGE.py is a module with a class `Judge`
whose `segment(flair, t1, t1ce, t2)` gives a label map, `dice` and `REGIONS`. The largest donors of the bank are
inserted one by one at `--scale`, not turned, at a place of the engine's own choice. Two references in the same run:
`plain`, the simplest copy-paste at the same place (z-scores of the donor's whole brain to the host's, edge blurred by
one voxel; at scale 1 only), and `real`, the judge on the donor's own case; and one with `--fitted`, the folder of
`synthaug fit DATA/brats`: `profile`, the same donor inserted by the profile, at a place where its lesions lie.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import cc3d
import numpy as np
import torch
import torch.nn.functional as F

from synthaug import BRATS18, LesionBank, TumorInsertion
from synthaug.data import find_cases, load_case
from synthaug.frames import host_frame
from synthaug.host import host_tissue

CHANNELS = ("flair", "t1", "t1ce", "t2")


def main() -> None:
    args = arguments()
    module = load_module(args.judge)
    judge = module.Judge()
    bank = LesionBank.from_folder(args.data / "brats", BRATS18, CHANNELS)
    donors = sorted(bank, key=lambda lesion: -sum(lesion.voxels))[: args.largest]
    host = load_case(find_cases(args.data / "tumour_free")[0], CHANNELS, require_label=False)
    cases = {case.name: case for case in find_cases(args.data / "brats")}
    rows: dict[str, list[dict]] = {}
    for donor in donors:
        image, label, row = insert(bank.subset([donor.name]), host, args)
        if row["outcome"] != "done":
            print(f"{donor.name:24s} refused: {row['reason']}", flush=True)
            continue
        own = load_case(cases[donor.name.rsplit("/", 1)[0]], CHANNELS)
        short = Path(args.generator).name
        subjects = {short: (image, label)}
        if "plain" in args.beside and args.scale == 1:
            subjects["plain"] = (plain_paste(own, host, label, bank.mask(donor.name, "cpu").shape, donor, row), label)
        if "real" in args.beside:
            subjects["real"] = (own.image, own.label)
        if "profile" in args.beside:
            by_profile = insert(bank.subset([donor.name]), host, args, args.fitted)
            if by_profile[2]["outcome"] == "done":
                subjects["profile"] = by_profile[:2]
            else:
                print(f"{donor.name:24s} refused by the profile: {by_profile[2]['reason']}", flush=True)
        for name, (volume, truth) in subjects.items():
            found = judge.segment(**dict(zip(CHANNELS, volume, strict=True)))
            scores = {r: module.dice(np.isin(found, v), np.isin(truth, v)) for r, v in module.REGIONS.items()}
            rows.setdefault(name, []).append(scores)
            text = "  ".join(f"{r} {s:.3f}" for r, s in scores.items())
            print(f"{donor.name:24s} {name:12s} {text}  {np.count_nonzero(truth) / 1000:.1f} ml", flush=True)
            if args.pictures and name == short:
                path = args.pictures / f"{name}-{donor.name.replace('/', '-')}.png"
                draw(path, image, host.image, label, scores)
    for name, scores in rows.items():
        mean = {r: round(float(np.mean([row[r] for row in scores])), 3) for r in module.REGIONS}
        print(json.dumps({"volume": name, "lesions": len(scores), "mean dice": mean}))


def plain_paste(own, host, label: np.ndarray, box: tuple, donor, row: dict) -> np.ndarray:
    """The donor's voxels where the engine put its label: whole-brain z-scores, edge blurred by one voxel."""
    lesion = label != 0
    tight = [np.flatnonzero(component_of(own.label, donor).any(tuple({0, 1, 2} - {a}))) for a in range(3)]
    start = [int(t[0]) - 3 for t in tight]
    shift = [c - n // 2 - s for c, n, s in zip(row["center_vox"], box, start, strict=True)]
    index = np.stack(np.nonzero(lesion))
    source = tuple(np.clip(i - d, 0, n - 1) for i, d, n in zip(index, shift, own.label.shape, strict=True))
    weight = F.avg_pool3d(torch.from_numpy(lesion)[None].float(), 3, 1, 1)[0].numpy()[tuple(index)]
    out = host.image.copy()
    for c in range(len(CHANNELS)):
        donor_brain, host_brain = own.image[c][own.image[c] > 0], host.image[c][host.image[c] > 0]
        z = (own.image[c][source] - donor_brain.mean()) / donor_brain.std()
        new = z * host_brain.std() + host_brain.mean()
        old = host.image[c][tuple(index)]
        out[c][tuple(index)] = np.maximum(old + weight * (new - old), 1)
    return out


def component_of(label: np.ndarray, donor) -> np.ndarray:
    """The connected lesion of a label map that the bank cut out as `donor`."""
    components = cc3d.connected_components(label > 0, connectivity=26)
    sizes = np.bincount(components.ravel())
    return components == 1 + int(np.argmin(np.abs(sizes[1:].astype(np.int64) - sum(donor.voxels))))


def insert(bank: LesionBank, host, args, fitted: Path | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    """One lesion in the host, by a profile where one is given; image (C, X, Y, Z), label (X, Y, Z), the plan's row."""
    image = torch.from_numpy(host.image)[None]
    label = torch.zeros((1, 1, *image.shape[2:]), dtype=torch.int16)
    options = {"prob": 1, "second": 0, "scale": args.scale, "flip": 0, "rotate90": False, "seed": args.seed}
    if fitted is None:
        engine = TumorInsertion(bank, args.generator, tissue_share=args.tissue_share, **options)
        image, label, plan = engine.recorded(image, label, host.spacing_mm)
    else:
        engine = TumorInsertion.from_profile(fitted, bank, args.generator, swaps=(), **options)
        tissue = host_tissue(image[0])
        known = {"host": tissue[None], "frames": host_frame(tissue.numpy(), host.affine)}
        image, label, plan = engine.recorded(image, label, host.spacing_mm, **known)
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
    parser.add_argument("--beside", nargs="*", default=["plain", "real"], choices=["plain", "real", "profile"])
    parser.add_argument("--fitted", type=Path)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    if ("profile" in args.beside) != (args.fitted is not None):
        parser.error("expected --fitted with --beside profile, and only then")
    return args


if __name__ == "__main__":
    main()
