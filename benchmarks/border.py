"""What of the borders of inserted lesions differs from real ones: profiles across the outline, and a linear classifier.

    synthaug fidelity GENERATOR --cases DATA/brats --profile F --bank F/bank.safetensors --quick --out OUT ...
    python benchmarks/border.py OUT [OUT ...]

Of each folder of the fidelity kit: mean and spread of the intensities at each depth from 3 voxels outside the lesion to
3 inside, averages over 32 crops of 20^3 voxels of each lesion; and how well a linear classifier (ridge, four folds by
patient, three deals) tells inserted from real crops by these numbers: by all, by means or spreads alone, and by those
outside or inside alone. It needs seconds and has no eye for shapes: it finds intensities and strength of texture.
"""

import argparse
from pathlib import Path

import numpy as np

from synthaug.evaluation.fidelity import Specimen, roc_auc
from synthaug.evaluation.fidelity.store import Store
from synthaug.geometry import squared_distance

DEPTHS = (-3, -2, -1, 1, 2, 3)
CROPS, SIDE, LEAST_VOXELS = 32, 20, 10
FOLDS, DEALS, RIDGE = 4, 3, 0.1
Rows = list[tuple[str, np.ndarray]]
"""Patient and features (n, depths * 2 * C) of the crops of each lesion."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of synthaug fidelity")
    for folder in parser.parse_args().folders:
        sides = [rows_of(folder, kind) for kind in ("real", "made")]
        channels = sides[0][0][1].shape[1] // (2 * len(DEPTHS))
        index = np.arange(len(DEPTHS) * 2 * channels).reshape(len(DEPTHS), 2, channels)
        parts = {"all": index, "means": index[:, 0], "spreads": index[:, 1], "outside": index[:3], "inside": index[3:]}
        print(folder.name, "  ".join(f"{name} {told_apart(*sides, part.ravel()):.3f}" for name, part in parts.items()))
        for channel in range(channels):
            for what, name in enumerate(("mean", "spread")):
                profiles = [
                    np.nanmean([np.nanmean(x[:, index[:, what, channel]], 0) for _, x in side], 0) for side in sides
                ]
                print(f"  channel {channel} {name:6} real {profiles[0].round(2)} inserted {profiles[1].round(2)}")


def rows_of(folder: Path, kind: str) -> Rows:
    """Measure the crops of a folder's real or inserted (made) lesions."""
    samples = Store.reading(folder).samples(kind)
    return [(s.specimen.group, crops_of(s.specimen, np.random.default_rng(n))) for n, s in enumerate(samples)]


def crops_of(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """Measure mean and spread at each depth in crops around random voxels of the border; NaN where there are few."""
    image, lesion = specimen.image.numpy(), specimen.mask.sum(0) > 0
    inside, outside = (squared_distance(side, 3.0, (1.0, 1.0, 1.0)).sqrt().ceil().numpy() for side in (~lesion, lesion))
    depth = np.where(lesion.numpy(), inside, -outside)
    border = np.argwhere(np.abs(depth) <= 3)
    rows = []
    for middle in border[rng.integers(len(border), size=CROPS)]:
        box = tuple(slice(max(m - SIDE // 2, 0), m + SIDE // 2) for m in middle)
        found = [image[(slice(None), *box)][:, depth[box] == d] for d in DEPTHS]
        few = np.full(len(image), np.nan)
        rows.append([(v.mean(1), v.std(1)) if v.shape[1] >= LEAST_VOXELS else (few, few) for v in found])
    return np.array(rows).reshape(CROPS, -1)


def told_apart(real: Rows, made: Rows, part: np.ndarray) -> float:
    """Average the area under the curve of held-out patients over folds and deals of patients."""
    sides = [[(group, x[:, part]) for group, x in side] for side in (real, made)]
    middle = np.nanmedian(np.concatenate([x for side in sides for _, x in side]), 0)
    sides = [[(group, np.where(np.isnan(x), middle, x)) for group, x in side] for side in sides]
    groups, found = sorted({group for side in sides for group, _ in side}), []
    for deal in range(DEALS):
        fold_of = {groups[g]: n % FOLDS for n, g in enumerate(np.random.default_rng(deal).permutation(len(groups)))}
        for fold in range(FOLDS):
            known, asked = (
                [[x for group, x in side if (fold_of[group] == fold) == held] for side in sides]
                for held in (False, True)
            )
            if all(asked):
                score = linear(*(np.concatenate(side) for side in known))
                found.append(roc_auc(*(score(np.concatenate(side)) for side in asked)))
    return float(np.mean(found))


def linear(real: np.ndarray, made: np.ndarray):
    """Fit a ridge regression of the side, both sides counted alike; returns the score of features (n, F)."""
    x = np.concatenate((real, made))
    mean, std = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / std
    side = np.repeat([-1.0 / len(real), 1.0 / len(made)], [len(real), len(made)])
    weights = np.linalg.solve(z.T @ z / len(z) + RIDGE * np.eye(z.shape[1]), z.T @ side)
    return lambda features: ((features - mean) / std) @ weights


if __name__ == "__main__":
    main()
