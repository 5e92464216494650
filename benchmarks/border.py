"""What of the borders of inserted lesions differs from real ones: profiles across the outline, and a linear classifier.

    synthaug fidelity GENERATOR --cases DATA/brats --profile F --bank F/bank.safetensors --quick --out OUT ...
    python benchmarks/border.py OUT [OUT ...]

Of each folder of the fidelity kit: mean and spread of the intensities at each depth from 3 voxels outside the lesion to
3 inside; and how well the kit's linear classifier (`synthaug.evaluation.fidelity.border`, four folds by patient, three
deals) tells inserted from real lesions by these numbers: by all, by means or spreads alone, and by those outside or
inside alone.
"""

import argparse
from pathlib import Path

import numpy as np

from synthaug.evaluation.fidelity.border import border_profiles, linear_scores
from synthaug.evaluation.fidelity.store import Store

FOLDS, DEALS = 4, 3
PARTS = {
    "all": lambda x: x,
    "means": lambda x: x[:, :, 0],
    "spreads": lambda x: x[:, :, 1],
    "outside": lambda x: x[:, :3],
    "inside": lambda x: x[:, 3:],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of synthaug fidelity")
    for folder in parser.parse_args().folders:
        store = Store.reading(folder)
        sides = [border_profiles([s.specimen for s in store.samples(kind)]) for kind in ("real", "made")]
        found = {
            name: np.mean([f.auc for deal in range(DEALS) for f in linear_scores(*sides, FOLDS, deal, part)])
            for name, part in PARTS.items()
        }
        print(folder.name, "  ".join(f"{name} {value:.3f}" for name, value in found.items()))
        for channel in range(sides[0][0][1].shape[-1]):
            for what, name in enumerate(("mean", "spread")):
                real, made = (np.nanmean([np.nanmean(x[:, :, what, channel], 0) for _, x in side], 0) for side in sides)
                print(f"  channel {channel} {name:6} real {real.round(2)} inserted {made.round(2)}")


if __name__ == "__main__":
    main()
