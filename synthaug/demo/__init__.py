"""The demo: phantom brains, a lesion bank, insertion in a training loop, and a report with pictures; needs no data."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from synthaug.demo.brains import demo_brains, nilearn_is_missing
from synthaug.demo.examples import make_examples
from synthaug.demo.loop import CHANNELS, make_insertion, train
from synthaug.demo.report import Facts, write_report
from synthaug.lesions.bank import LesionBank

FILES = ("bank.safetensors", "insertions.jsonl", "examples.jsonl", "report.html")


def run_demo(out: Path, seed: int = 0, simple: bool = False, steps: int = 20) -> Path:
    """Run the whole of synthaug once on phantoms and write a report.

    Writes ``bank.safetensors``, ``insertions.jsonl`` (of the training loop), ``examples.jsonl`` (of the pictures) and
    ``report.html``, a page that needs no other file. Other files in `out` are left alone; the four are written beside
    and moved in place at the end, so that a run that fails leaves what was there.

    Args:
        out: folder of the report, made if it is not there.
        seed: seed of everything random; at least 0. The global random states are left alone.
        simple: brains drawn by formulas, 96 voxels a side, in place of MNI152 anatomy at 1 mm. Also done, with a
            line that says so, where nilearn is not installed.
        steps: training steps; at least 1.

    Returns:
        Path of ``report.html``.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `steps` or `seed` too small, or `out` is a file.
        RuntimeError: no tumour was inserted, in the loop or into the whole brains.
    """
    out = Path(out)
    _check(out, seed, steps)
    began = time.perf_counter()

    def say(text: str) -> float:
        seconds = time.perf_counter() - began
        print(f"[{seconds:4.0f} s] {text}", flush=True)
        return seconds

    if not simple and nilearn_is_missing():
        say('nilearn is not installed, so the brains are formulas: pip install "synthaug[demo]" for MNI152 anatomy')
        simple = True
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=out) as beside, _one_thread():
        _fill(Path(beside), seed, simple, steps, say)
        for name in FILES:
            (Path(beside) / name).replace(out / name)
    return out / "report.html"


def _fill(folder: Path, seed: int, simple: bool, steps: int, say: Callable[[str], float]) -> None:
    """Make brains, bank, training and examples, and write the four files into `folder`."""
    say(f"making phantom brains ({'formulas, 96 voxels a side' if simple else 'MNI152 anatomy, 1 mm'})")
    donors, hosts = demo_brains(seed, simple)
    with_tumour = [brain.sample() for brain in (*donors, *hosts) if brain.has_tumour]
    bank = LesionBank.from_arrays(with_tumour, "BRATS18", CHANNELS)
    bank.save(folder / "bank.safetensors")
    say(f"lesion bank: {len(bank)} lesions of {len(bank.groups)} patients; training for {steps} steps")
    insert = make_insertion(folder / "bank.safetensors", folder / "insertions.jsonl", seed)
    training = train(hosts, insert, steps, seed)
    report = insert.report()
    if not report.done:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in report.refused.items()) or "none was asked for"
        raise RuntimeError(f"the demo inserted no tumour in {steps} training steps: {reasons}; more steps may help")
    say(f"loop: {report.asked} insertions asked, {report.done} done; now single tumours in whole brains")
    free = [host for host in hosts if not host.has_tumour]
    examples = make_examples(bank, free, folder / "examples.jsonl", seed)
    seconds = say(f"{len(examples)} examples; writing the report")
    facts = Facts(bank, report, training, examples, hosts, simple, seed, seconds)
    write_report(folder / "report.html", facts, folder / "insertions.jsonl")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: the network is too small for more, and times then say the same on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(out: Path, seed: int, steps: int) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('the demo draws with matplotlib: pip install "synthaug[demo]"') from error
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {out}")
