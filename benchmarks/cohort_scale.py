"""What a cohort of very many cases costs beside the cases themselves: memory and time a case, and a resume.

    python benchmarks/cohort_scale.py --out FOLDER --cases 20000            # end to end: null generator, hosts of 8^3
    python benchmarks/cohort_scale.py --out FOLDER --records 200000         # what is kept of cases, without making them

Prints a row of JSON for every `--every` cases: ms a case and resident MiB. The second way writes what the first one
writes for each case, a record of the usual size and two files, and joins, describes and looks through all of it by the
same code; only reading, insertion and encoding are left out. Memory is that of the process after what it had at the
first row.
"""

import argparse
import gc
import hashlib
import json
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from synthaug.cohort import CohortConfig, generate
from synthaug.cohort.description import description
from synthaug.cohort.layouts import Layout, make_layout
from synthaug.cohort.records import Records
from synthaug.cohort.store import open_store
from synthaug.generators.base import TumorGenerator

HOSTS, SIDE = 40, 8


class Null(TumorGenerator):
    """Paints nothing new, and tells how time and memory go."""

    def __init__(self, rows: "Rows"):
        self.rows = rows

    def generate(self, context, mask, seeds, donor=None, support=None):
        """Return the context, a little brighter, so that there is a lesion."""
        self.rows.count()
        return context + 1


class Rows:
    """Prints a row for every so many cases."""

    def __init__(self, every: int):
        self.every, self.cases, self.last, self.first_mib = every, 0, time.perf_counter(), None

    def count(self) -> None:
        """Count a case."""
        self.cases += 1
        if self.cases % self.every == 0:
            now, mib = time.perf_counter(), resident_mib()
            self.first_mib = self.first_mib or mib
            more = {"MiB": round(mib), "MiB more than at the first row": round(mib - self.first_mib, 1)}
            print(
                json.dumps({"cases": self.cases, "ms a case": round(1000 * (now - self.last) / self.every, 2), **more})
            )
            self.last = time.perf_counter()


def main() -> None:
    args = arguments()
    shutil.rmtree(args.out, ignore_errors=True)
    hosts = write_hosts(args.out / "hosts")
    if args.cases:
        end_to_end(hosts, args)
    if args.records:
        kept(hosts, args)


def end_to_end(hosts: Path, args: argparse.Namespace) -> None:
    config = config_of(hosts, args.cases)
    started = time.perf_counter()
    summary = generate(config, args.out / "cohort", generator=Null(Rows(args.every)))
    print(json.dumps({"made": summary.made, "written": summary.written, "s": round(time.perf_counter() - started, 1)}))
    started = time.perf_counter()
    again = generate(config, args.out / "cohort", generator=Null(Rows(args.every)))
    print(json.dumps({"made again": again.made, "resume s": round(time.perf_counter() - started, 1)}))


def kept(hosts: Path, args: argparse.Namespace) -> None:
    """Write, join, describe and look through records like one that a real case of these hosts has."""
    one = args.out / "one"
    generate(config_of(hosts, 1), one, generator=Null(Rows(args.every)))
    (record,) = Records(open_store(one), 1)
    config = config_of(hosts, args.records, classes="BRATS18", channels=("t1",))
    store, layout, rows = open_store(args.out / "kept"), make_layout(config), Rows(args.every)
    records, content = Records(store, args.records), b"x" * 400
    about = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    for index in range(args.records):
        name = layout.synthetic_name(index)
        files = dict.fromkeys((*layout.image_paths(name), layout.label_path(name)), content)
        lesions = [{**row, "case": name, "index": index} for row in record["lesions"]]
        own = {**record, "index": index, "case": name, "lesions": lesions, "files": dict.fromkeys(files, about)}
        records.write(own, files)
        if (index + 1) % records.part_cases == 0:
            records.join()
        rows.count()
    for what, work in {
        "sum up": records.tally,
        "describe": lambda: store.write("d", described(config, layout, records)),
        "look for missing cases": lambda: sum(1 for _ in records.missing()),
    }.items():
        gc.collect()
        started = time.perf_counter()
        work()
        print(json.dumps({"of all": what, "s": round(time.perf_counter() - started, 1), "MiB": round(resident_mib())}))


def described(config: CohortConfig, layout: Layout, records: Records) -> dict:
    words = {"generator": {"name": "Null", "sha256": None}, "versions": {"synthaug": "0"}, "config_sha256": "0"}
    return description(config, layout, words, records, records.tally(), None)


def config_of(hosts: Path, count: int, **more) -> CohortConfig:
    shapes = {"diameter_mm": (2.5, 3.0), "irregularity": 0.0}
    lesions = {"shapes": shapes, "min_voxels": 1, "clearance_mm": 0, "retries": 200}
    known = {"classes": "BRATS18", "channels": ("t1",), **more}
    return CohortConfig(cases=hosts, layout="nnunet", count=count, lesions=lesions, **known)


def write_hosts(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(HOSTS):
        name = f"Host{number:03d}_1"
        (folder / name).mkdir(parents=True)
        voxels = generator.integers(200, 400, (SIDE,) * 3).astype(np.int16)
        for kind, values in {"t1": voxels, "seg": np.zeros_like(voxels)}.items():
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / name / f"{name}_{kind}.nii.gz")
    return folder


def resident_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder, emptied")
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--records", type=int, default=0)
    parser.add_argument("--every", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
