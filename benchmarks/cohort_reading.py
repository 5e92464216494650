"""How fast a trainer gets its cases from files and from archives or OME-Zarr: seconds of reading, in turns.

    python benchmarks/cohort_reading.py FILES ARCHIVES [--rounds 5]

Both folders hold the same cases, in the layouts `nnunet` and `webdataset` or `zarr` for example. What is timed is what
the segmentation trainer does with a case before its first step, `cache_case`; its steps work on what is in memory then.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

from synthaug.data.dataset import find_dataset
from synthaug.training.patches import cache_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    data = [find_dataset(folder, channels=("flair", "t1", "t1ce", "t2")) for folder in args.folders]
    assert [case.name for case in data[0].cases] == [case.name for case in data[1].cases]
    spent: list[list[float]] = [[], []]
    for _ in range(args.rounds):
        for pair in zip(data[0].cases, data[1].cases, strict=True):
            for number, case in enumerate(pair):
                started = time.process_time()
                cache_case(case, data[number].channels, data[number].classes, "float16", None)
                spent[number].append(time.process_time() - started)
    ratio = median(b / a for a, b in zip(*spent, strict=True))
    means = {f.name: round(sum(s) / len(s), 3) for f, s in zip(args.folders, spent, strict=True)}
    print(json.dumps({"CPU s a case": means, "second / first, median of pairs": round(ratio, 3)}))


if __name__ == "__main__":
    main()
