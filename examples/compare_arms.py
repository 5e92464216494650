"""Does insertion help? The same training with and without it, several seeds, and a table of paired differences.

    python examples/compare_arms.py                                    phantoms, small, a minute
    python examples/compare_arms.py --data path/to/brats --out runs/arms --gan FOLDER --diffusion FOLDER

Each arm is a run of trainers/segmentation.py with the same steps, patches and seeds; they differ in insertion alone.
The same command continues where it was stopped. At the end it prints, and writes beside the runs, Dice of each class
and region, lesion-wise recall by lesion size, each arm's difference from training without insertion on the same cases
and seeds (mean and 95 % bootstrap interval over patients), and the share of the step time that insertion takes. The
final validation is scored: with few patients and seeds, intervals are wide, and what is chosen by looking at this
table has to be tested on other patients.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from accelerate.state import AcceleratorState, GradientState

from synthaug.config import read_config
from synthaug.evaluation import format_table, paired_differences, summarise, write_table
from synthaug.generators.learned.hub import shipped_generators
from synthaug.shipped import find_config
from synthaug.training.artefacts import read_rows
from synthaug.training.launch import load_trainer
from synthaug.training.run import read_metrics
from synthaug.training.segmentation_config import SegmentationConfig

BASELINE = "none"
SWAPS = "insertion.swaps=[[ED, ET, 0.7], [ET, NCR, 0.7]]"
PHANTOMS = (
    *("data.phantom={count: 4, size: [40, 40, 40]}", "data.validation=[Phantom_002_1, Phantom_003_1]"),
    *("data.patch_size=[24, 24, 24]", "network.filters=[4, 8, 8]", "network.strides=[1, 2, 2]", "augmentation=null"),
    *("insertion.scale=[0.3, 0.6]", "insertion.clearance_mm=1.0", "optimizer.warmup_steps=0", "report=false"),
)
METRICS = ("dice", "lesion_recall")


def arms(gan: str | None, diffusion: str | None) -> dict[str, list[str]]:
    """Name to changes of the configuration; trained generators where there are weights, said where there are none."""
    painted = {name: [f"insertion.generator={name}", "insertion.swaps=[]"] for name in ("paste", "procedural")}
    for name, given in (("gan", gan), ("diffusion", diffusion)):
        shipped = f"brats-{name}" if f"brats-{name}" in shipped_generators() else None
        if given or shipped:
            painted[name] = [f"insertion.generator={given or shipped}", "insertion.swaps=[]"]
        else:
            print(f"left out: {name}, for there are no weights; give --{name} FOLDER")
    return {BASELINE: ["insertion=null"]} | painted | {"paste+swaps": ["insertion.generator=paste", SWAPS]}


def steps_of(config: Path, data: Path) -> int:
    """Of the configuration."""
    return read_config(config, SegmentationConfig, [f"data.folder={data}"]).optimizer.steps


def run_arm(config: Path, out: Path, overrides: Sequence[str]) -> None:
    """Train, or go on training, one arm with one seed; nothing where it is done."""
    settings = read_config(config, SegmentationConfig, overrides)
    done = read_metrics(out)
    if done and done[-1]["step"] == settings.optimizer.steps and (out / "model" / "config.json").exists():
        return
    AcceleratorState._reset_state(reset_partial_state=True)  # one process trains one run after the other
    GradientState._reset_state()
    load_trainer("segmentation").train(settings, out)


def rows_of(out: Path, arm: str, seed: int) -> list[dict]:
    """The rows of a run's last validation."""
    rows = read_rows(out)
    last = max(row["step"] for row in rows)
    return [row | {"arm": arm, "seed": seed} for row in rows if row["step"] == last]


def cost_of(out: Path) -> str:
    """What a run inserted, and what that took."""
    logged = [row for row in read_metrics(out) if "insertion" in row]
    if not logged:
        return "no insertions"
    share = sum(r["insertion_seconds_per_step"] for r in logged) / sum(r["seconds_per_step"] for r in logged)
    counts = logged[-1]["insertion"]
    return f"{counts['asked']} insertions asked, {counts['done']} done, {share:.1%} of the step time"


def report(rows: dict[str, list[dict]], out: Path) -> None:
    """Print and write the tables."""
    everything = [row for arm in rows.values() for row in arm]
    table = summarise(everything, by=("arm", "region"))
    write_table(table, out / "arms.csv")
    print("\nmean (median) [95 % interval] over cases and seeds\n" + format_table(table, METRICS))
    print("\nby lesion size\n" + by_size(table))
    for arm, of_arm in rows.items():
        if arm == BASELINE:
            continue
        difference = paired_differences(
            of_arm, rows[BASELINE], by=("arm", "region"), match=("case", "region", "size", "seed")
        )
        write_table(difference, out / f"{arm}-minus-{BASELINE}.csv")
        print(f"\n{arm} minus {BASELINE}\n{format_table(difference, METRICS)}\n\n{by_size(difference)}")


def by_size(table: list[dict]) -> str:
    """Lesion-wise recall in each size class."""
    sizes = [row for row in table if row["size"] != "all"]
    return format_table(sizes, ("lesion_recall",), size=None)


def main() -> None:
    """Run what is asked for, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of BraTS cases; phantoms where not given")
    parser.add_argument("--config", help="in place of segmentation_brats_cpu or segmentation_tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/arms"))
    parser.add_argument("--steps", type=int, help="of each run [default: the configuration's; 60 with phantoms]")
    parser.add_argument("--seeds", type=int, help="how many [default: 3; 1 with phantoms]")
    parser.add_argument("--arms", help="some of them, separated by commas; none is always one")
    parser.add_argument("--gan", help="folder, name or hub id of a trained GAN generator")
    parser.add_argument("--diffusion", help="likewise of a diffusion generator")
    parser.add_argument("overrides", nargs="*", help="changes of the configuration for all arms, such as threads=1")
    args = parser.parse_args()

    known = arms(args.gan, args.diffusion)
    chosen = [BASELINE, *(n for n in (args.arms.split(",") if args.arms else known) if n != BASELINE)]
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"error: unknown arms {', '.join(unknown)}; there are {', '.join(known)}")
    name = "segmentation_tiny" if args.data is None else "segmentation_brats_cpu"
    config = find_config(args.config or name)
    steps = args.steps or (60 if args.data is None else steps_of(config, args.data))
    data = PHANTOMS if args.data is None else (f"data.folder={args.data}", f"data.cache={args.out / 'cache'}")
    common = [*data, f"optimizer.steps={steps}", f"validation.every={steps}", "threads=null", *args.overrides]

    rows: dict[str, list[dict]] = {name: [] for name in chosen}
    for seed in range(args.seeds or (1 if args.data is None else 3)):
        for arm in chosen:  # arms within seeds, so that a stopped comparison has whole seeds
            out = args.out / arm / f"seed{seed}"
            changes = known[arm] if arm == BASELINE else [*known[arm], f"insertion.seed={seed}"]
            kept = [c for c in common if arm != BASELINE or not c.startswith("insertion.")]
            run_arm(config, out, [*kept, f"seed={seed}", *changes])
            rows[arm] += rows_of(out, arm, seed)
            print(f"{arm}, seed {seed}: {cost_of(out)}", flush=True)
    report(rows, args.out)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
