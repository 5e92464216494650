"""How far lesions that generators paint anew, where real ones lie, are from these, for the ablations of trainings.

    python benchmarks/repaint.py --data DATA --profile F --groups A,B,... GENERATOR [GENERATOR ...]

Prints the mean distance of intensity and texture over classes and channels (`synthaug.profile.specimens.distance`) of
two seeds, its parts, and the diversity between them as a share of what two patients differ by.
"""

import argparse
from pathlib import Path

import numpy as np

from synthaug.cli.fidelity import profiled_cases
from synthaug.evaluation.fidelity import STATISTICS, compare_statistics, diversity
from synthaug.generators.registry import resolve_generator
from synthaug.profile.specimens import distance, real_specimens, repainted

SEEDS = (0, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="+", help="names or folders")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--groups", help="patients, separated by commas; all by default")
    args = parser.parse_args()
    profile, cases = profiled_cases(args.profile, args.data, args.groups)
    real, classes, channels = real_specimens(cases, profile), profile.classes.names, tuple(profile.names)
    for name in args.generators:
        generator = resolve_generator(name).bind(channels, classes)
        made = [repainted(real, generator, seed) for seed in SEEDS]
        rows = [row for each in made for row in compare_statistics(real, each, classes, channels)]
        parts = {s: np.nanmean([abs(r[s] if s == "mean" else np.log(r[s])) for r in rows]) for s in STATISTICS}
        between = float(diversity(list(zip(*made, strict=True)), real).mean())
        print(
            name,
            "distance",
            *(f"{distance(real, each):.3f}" for each in made),
            *(f"{part} {value:.2f}" for part, value in parts.items()),
            f"diversity {between:.2f}",
        )


if __name__ == "__main__":
    main()
