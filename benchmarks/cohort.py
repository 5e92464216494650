"""How fast cohorts are made: cases a minute for each generator, where the time goes, and what a second process adds.

    python benchmarks/cohort.py --cases CASES --bank BANK --out FOLDER [--generator paste procedural DIR ...]

Every generator makes a cohort of its own below FOLDER (which is emptied), in a process of its own as a user would start
it; with `--ranks 1 2` again with torchrun. Wall seconds say how long one waits on this machine as busy as it is;
CPU seconds say what it costs and change little when other work runs beside. `making` is the time of the cases alone,
without the start of Python and the report.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from synthaug.channels import BRATS_CHANNELS
from synthaug.cohort import CohortConfig
from synthaug.cohort.case_insertion import CaseInserter, open_bank, open_generator, open_shapes
from synthaug.cohort.hosts import find_hosts, host_number, read_host
from synthaug.cohort.layouts import make_layout


def main() -> None:
    args = arguments()
    for generator in args.generator:
        config = CohortConfig(
            cases=args.cases,
            count=args.count,
            layout=args.layout,
            generator=generator,
            classes="BRATS18",
            channels=BRATS_CHANNELS,
            lesions={"bank": args.bank, "scale": (0.3, 0.8)},
        )
        print(json.dumps({"generator": generator, "CPU s a case": parts(config, args.parts)}), flush=True)
        for ranks in args.ranks:
            print(json.dumps({"generator": generator, **whole(config, ranks, args.out)}), flush=True)


def parts(config: CohortConfig, cases: int) -> dict[str, float]:
    """CPU seconds a case of each step, one after the other in one thread."""
    hosts, layout = find_hosts(config), make_layout(config)
    inserter = CaseInserter(config, open_bank(config) or open_shapes(config), open_generator(config, None), None, "cpu")
    inserter.insert(read_host(hosts[host_number(0, 0, len(hosts))], config), 0)
    spent: dict[str, float] = defaultdict(float)
    for index in range(cases):
        start = time.process_time()
        host = read_host(hosts[host_number(0, index, len(hosts))], config)
        middle = time.process_time()
        made = inserter.insert(host, index)
        end = time.process_time()
        layout.case_files("x", host, made.image, made.label)
        for name, seconds in (("read", middle - start), ("insert", end - middle), ("write", time.process_time() - end)):
            spent[name] += seconds / cases
    return {name: round(seconds, 2) for name, seconds in spent.items()}


def whole(config: CohortConfig, ranks: int, out: Path) -> dict[str, float]:
    """A cohort made by the command, in so many processes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "cohort.yaml").write_text(config.model_dump_json(), encoding="utf-8")
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", f"--nproc_per_node={ranks}", "--standalone", "-m"]
    words = [*start, "synthaug.cohort", "--config", str(out / "cohort.yaml"), "--out", str(out / "cohort")]
    began = time.perf_counter()
    with subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)  # with the processes that it started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    wall, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
    stamps = sorted(p.stat().st_mtime for p in (out / "cohort" / ".synthaug" / "records").glob("*.json"))
    # from one case to the last: the first waits for nothing but its own making
    making = (stamps[-1] - stamps[0]) / max(len(stamps) - ranks, 1)
    return {
        "ranks": ranks,
        "cases": len(stamps),
        "cases a minute": round(60 / making, 1),
        "wall s": round(wall, 1),
        "CPU s": round(cpu, 1),
        "peak MiB of a process": used.ru_maxrss // 1024,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--generator", nargs="+", default=["paste", "procedural"])
    parser.add_argument("--layout", default="nnunet")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--parts", type=int, default=6)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    main()
