"""What insertion costs on a GPU, and whether it keeps its promises there. One command, no data, under ten minutes.

    python benchmarks/gpu.py [--out gpu.json]
    python benchmarks/gpu.py --device cpu --quick      # the same code with a tiny network, to try it without a GPU

First the tests marked `gpu` (`--no-tests` leaves them out). Then training steps of a DynUNet of nnU-Net's size (six
stages of 32 to 320 features, deep supervision, SGD) on phantoms of 2 x 4 x 128^3 in bf16, without insertion and with
one lesion in every sample: `paste`, `brats-gan`, `brats-diffusion` with one and four steps, and a bank that the latter
painted ahead. Of each insertion:

    step     milliseconds of a training step with it, median over rounds in which all take turns
    share    of that step, by which it is longer than one without insertion
    alone    milliseconds of plan and apply on an idle device, until the result is there
    launches kernels for one insertion (operations of PyTorch, where there is no GPU)
    copies   between host and device for one insertion
    waits    of the host for the device, as the profiler sees them in plan and apply; and what
             torch.cuda.set_sync_debug_mode("error") says of them
    peak     MiB that a step takes at its peak, and how much of that is more than without insertion

Where a CUDA device is asked for and there is none, it says so and exits with 2; with 1 where a device test fails or the
host waits.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from synthaug import BRATS23, LesionBank, TumorInsertion
from synthaug.data import phantom_case

ROOT = Path(__file__).parent.parent
CHANNELS = ("flair", "t1", "t1ce", "t2")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")
COPIES = ("cudaMemcpyAsync", "cudaMemcpy")
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
COLUMNS = {
    "step ms": "10.1f",
    "share": "10.1%",
    "alone ms": "10.1f",
    "launches": "10.0f",
    "copies": "10.0f",
    "waits": "10.0f",
    "peak MiB": "10.0f",
    "more MiB": "10.0f",
}
"""Of the table, with their formats; the figures are kept under the same names."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Size:
    """How much is measured: patches, lesions, network, and how often."""

    patch: int
    diameter_mm: tuple[float, float]
    filters: tuple[int, ...]
    heads: int
    steps: int
    rounds: int
    paintings: int


FULL = Size(128, (10, 40), (32, 64, 128, 256, 320, 320), heads=3, steps=10, rounds=5, paintings=64)
QUICK = Size(32, (6, 8), (4, 8, 8), heads=1, steps=1, rounds=1, paintings=2)


def main() -> None:
    args = arguments()
    device, size = torch.device(args.device), QUICK if args.quick else FULL
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py: no CUDA device here; --device cpu --quick runs the same code", file=sys.stderr)
        sys.exit(2)
    torch.backends.cudnn.benchmark = True  # as nnU-Net does
    result: dict[str, Any] = {"machine": machine(device)}
    print(json.dumps(result["machine"]))
    if device.type == "cuda" and not args.no_tests:
        result["tests"] = device_tests()
    bank, batch = phantom_bank(size), phantom_batch(size, device)
    painted = painted_bank(bank, size, device)
    rows = result["insertions"] = {}
    print(f"{'':25}" + "".join(f"{column:>10}" for column in COLUMNS), flush=True)
    for name, row in measured(insertions(bank, painted, size), Training(size, device), batch, size):
        rows[name] = row
        print(line(name, row), flush=True)  # each as it comes, should the time be up before the last
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    waits = [name for name, row in result["insertions"].items() if row.get("waits") or row.get("refused")]
    if waits:
        print(f"the host waits for the device: {', '.join(waits)}", file=sys.stderr)
    sys.exit(int(bool(waits) or not result.get("tests", {"passed": True})["passed"]))


def machine(device: torch.device) -> dict[str, str]:
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": named, "torch": torch.__version__, "cuda": str(torch.version.cuda)}


def device_tests() -> dict[str, Any]:
    """Run the tests that need a GPU; their output is shown."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"], cwd=ROOT, check=False)
    return {"passed": run.returncode == 0, "seconds": round(time.perf_counter() - start, 1)}


# ------------------------------------------------------------------------------------------------- what is trained


class Training:
    """A DynUNet and its step: loss at each resolution, halved from one to the next, as nnU-Net does."""

    def __init__(self, size: Size, device: torch.device):
        self.device = device
        levels = len(size.filters)
        self.network = DynUNet(
            3,
            len(CHANNELS),
            4,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=size.filters,
            deep_supervision=True,
            deep_supr_num=size.heads,
        ).to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.01, 0.99, weight_decay=3e-5, nesterov=True)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)

    def step(self, image: Tensor, label: Tensor) -> None:
        """One step on image (B, C, X, Y, Z) and label (B, 1, X, Y, Z)."""
        self.optimizer.zero_grad(set_to_none=True)
        # the CPUs on which this is tried emulate bf16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            full = self.network.output_block(self.network.skip_layers(image))
            heads = sorted([full, *self.network.heads], key=lambda head: -head.shape[-1])
        losses = [self.loss(h.float(), F.interpolate(label.float(), h.shape[2:])) / 2**n for n, h in enumerate(heads)]
        sum(losses).backward()
        self.optimizer.step()


def phantom_bank(size: Size) -> LesionBank:
    """Lesions of four phantoms, all smaller than the patches."""
    side = min(96, size.patch)
    cases = [(f"case-{i}", f"patient-{i}", phantom_case(i, (side,) * 3, BRATS23)) for i in range(4)]
    arrays = [(name, group, v.image, v.label, v.spacing_mm) for name, group, v in cases]
    return LesionBank.from_arrays(arrays, BRATS23, CHANNELS)


def phantom_batch(size: Size, device: torch.device, samples: int = 2) -> Batch:
    """Other phantoms, z-scores of the whole patch, on the device."""
    volumes = [phantom_case(10 + i, (size.patch,) * 3, BRATS23) for i in range(samples)]
    image = torch.stack([torch.from_numpy(v.image).float() for v in volumes])
    std, mean = torch.std_mean(image, (2, 3, 4), keepdim=True)
    label = torch.stack([torch.from_numpy(v.label)[None].long() for v in volumes])
    return ((image - mean) / std).to(device), label.to(device)


# ------------------------------------------------------------------------------------------------- what is inserted


def painted_bank(bank: LesionBank, size: Size, device: torch.device) -> LesionBank:
    """Lesions that brats-diffusion painted ahead, at their final sizes."""
    start = time.perf_counter()
    options = {"diameter_mm": size.diameter_mm, "device": device, "steps": 4}
    painted = bank.painted("brats-diffusion", size.paintings, **options)
    print(f"{size.paintings} lesions painted ahead in {time.perf_counter() - start:.1f} s")
    return painted


def insertions(bank: LesionBank, painted: LesionBank, size: Size) -> dict[str, TumorInsertion]:
    """One lesion in every sample, of the same sizes everywhere."""

    def insertion(lesions: LesionBank, generator: str, **options: Any) -> TumorInsertion:
        common = {"classes": BRATS23, "channels": CHANNELS, "prob": 1.0, "second": 0.0}
        return TumorInsertion(lesions, generator, **common, **options)

    sizes = {"diameter_mm": size.diameter_mm}
    return {
        "paste": insertion(bank, "paste", **sizes),
        "brats-gan": insertion(bank, "brats-gan", **sizes),
        "brats-diffusion, 1 step": insertion(bank, "brats-diffusion", steps=1, **sizes),
        "brats-diffusion, 4 steps": insertion(bank, "brats-diffusion", steps=4, **sizes),
        "painted ahead": insertion(painted, "paste"),
    }


# ------------------------------------------------------------------------------------------------- measurements


def measured(
    engines: Mapping[str, TumorInsertion], training: Training, batch: Batch, size: Size
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything about a step without insertion, ``none``, and then about every insertion, by its name."""
    device = training.device
    steps: dict[str, Callable[[], None]] = {"none": lambda: training.step(*batch)}
    for name, engine in engines.items():
        steps[name] = lambda engine=engine: training.step(*engine(*batch))
    times = step_times(steps, device, size)
    peaks = {name: peak_mib(step, device) for name, step in steps.items()}
    yield "none", {"step ms": times["none"], "peak MiB": peaks["none"]}
    for name, engine in engines.items():
        more = None if peaks[name] is None else peaks[name] - peaks["none"]
        row = {
            "step ms": times[name],
            "share": 1 - times["none"] / times[name],
            "alone ms": statistics.median(milliseconds(lambda e=engine: e(*batch), device) for _ in range(size.steps)),
            **profiled(engine, batch),
            "refused": refused(engine, batch),
            "peak MiB": peaks[name],
            "more MiB": more,
            "done": engine.report().done,
        }
        yield name, row


def step_times(steps: Mapping[str, Callable[[], None]], device: torch.device, size: Size) -> dict[str, float]:
    """Milliseconds of a step of each kind; the kinds take turns, so that a device that slows down does so for all."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for n, (name, step) in itertools.product(range(1 + size.rounds), steps.items()):
        taken = milliseconds(lambda step=step: [step() for _ in range(size.steps)], device) / size.steps
        if n:  # the first round is to get warm
            found[name].append(taken)
    return {name: statistics.median(values) for name, values in found.items()}


def milliseconds(call: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return 1000 * (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(step: Callable[[], None], device: torch.device) -> float | None:
    """Largest memory of PyTorch's allocator during a step; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    milliseconds(step, device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def profiled(engine: TumorInsertion, batch: Batch) -> dict[str, Any]:
    """Launches and copies per insertion, and how often the host waits, in one plan and apply that was done before."""
    cuda = batch[0].device.type == "cuda"
    engine.number = 0
    engine(*batch)
    synchronize(batch[0].device)
    engine.number = 0
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as seen:
        engine(*batch)
    counts = {event.key: event.count for event in seen.key_averages()}
    samples = len(batch[0])
    return {
        "launches": sum(n for name, n in counts.items() if name.startswith(LAUNCHES if cuda else "aten::")) / samples,
        "copies": sum(counts.get(name, 0) for name in COPIES) / samples,
        "waits": sum(counts.get(name, 0) for name in WAITS),
    }


def refused(engine: TumorInsertion, batch: Batch) -> str | None:
    """What PyTorch says where the host would wait in plan and apply; None where it does not."""
    image, label = batch
    engine.number = 0
    try:
        with no_waits(image.device):
            engine.apply(image, label, engine.plan(image, label))
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """PyTorch raises where the host would wait for a CUDA device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ------------------------------------------------------------------------------------------------- the report


def line(name: str, row: Mapping[str, Any]) -> str:
    """A line of the table, and what PyTorch said of waits."""
    known = {column: row.get(column) for column in COLUMNS}
    cells = (" " * 10 if v is None else f"{v:{COLUMNS[column]}}" for column, v in known.items())
    return f"{name:25}{''.join(cells)}".rstrip() + (f"\n{name}: {row['refused']}" if row.get("refused") else "")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ..., or cpu")
    parser.add_argument("--quick", action="store_true", help="a tiny network and patches of 32^3: to try the command")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests marked gpu")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
