"""The folder of a training run: its configuration, metrics and checkpoints, such that a killed run can go on.

    config.yaml        what the run was last started with
    metrics.jsonl      one JSON object per logged step
    tensorboard/       the same numbers
    checkpoints/       step_00000100, ...: whatever has this name is whole

Used by trainers that are launched with accelerate; every function is called by all processes.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from pydantic import BaseModel
from tqdm import tqdm

from synthaug.config import ConfigError
from synthaug.files import replace_file
from synthaug.precision import Precision, resolve_precision


def keep_config(out: Path, config: BaseModel, accelerator: Accelerator, free: Sequence[str] = ()) -> None:
    """Write the configuration of a run; of one that goes on from a checkpoint, compare it with the former first.

    Args:
        out: the run's folder, made if it is not there.
        config: configuration of the run.
        accelerator: accelerator of this process.
        free: dotted keys that may differ between a run and its continuation.

    Raises:
        ConfigError: the folder holds a run that other values would change; all of them are named.
    """
    file = out / "config.yaml"
    new = config.model_dump(mode="json")
    with accelerator.main_process_first():
        if file.exists() and latest_checkpoint(out) is not None:
            old, now = (dict(leaves(tree)) for tree in (yaml.safe_load(file.read_text(encoding="utf-8")), new))
            changed = [k for k in sorted({*old, *now}) if old.get(k) != now.get(k)]
            wrong = [f"{k} was {old.get(k)} and is {now.get(k)}" for k in changed if not _is_free(k, free)]
            if wrong:
                raise ConfigError(
                    f"{out} holds a run of another configuration ({'; '.join(wrong)}): give another --out"
                )
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            replace_file(file, yaml.safe_dump(new, sort_keys=False))


def _is_free(key: str, free: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in free)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested dictionaries to values with dotted keys."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


class ChangedPrecisionWarning(UserWarning):
    """A run goes on in another precision than the one it was trained in so far."""


def run_precision(out: Path, asked: str) -> Precision:
    """Choose the precision of a run, the same in all its processes.

    A run that begins and is asked for ``"auto"`` takes bf16 where all its processes can. One that goes on stays with
    what its checkpoint was trained in, whatever this machine would choose: numbers do not change because a scheduler
    picked another node of a mixed cluster. Where that is bf16 and this machine emulates it, a warning says what it
    costs. ``"fp32"`` or ``"bf16"`` change a run from its checkpoint on, with a warning; for a cluster that mixes
    machines fp32 from the start is safest.

    Args:
        out: folder of the run.
        asked: one of `synthaug.precision.PRECISIONS`.

    Raises:
        ConfigError: the checkpoint is of a former version and does not say what it was trained in.
    """
    device = PartialState(parse_flag_from_env("ACCELERATE_USE_CPU")).device  # as `Accelerator` will make it
    here = min(gather_object([resolve_precision(asked, device)]), key=lambda precision: precision.bf16)
    checkpoint = latest_checkpoint(out)
    before = None if checkpoint is None else trained_in(checkpoint)
    if before == "auto" == asked:
        raise ConfigError(f"{checkpoint} does not say what it was trained in: give precision=bf16 or precision=fp32")
    if before in (None, "auto", here.name):
        return here
    if asked == "auto":
        reason = f"as the run was until step {steps_done(out)}; begun here it would be {here.name}, for {here.reason}"
        return replace(resolve_precision(before, device), asked=asked, reason=reason)
    reason = f"as asked; the run was in {before} until step {steps_done(out)}"
    warnings.warn(f"precision={asked}: {reason}", ChangedPrecisionWarning, stacklevel=2)
    return replace(here, reason=reason)


def trained_in(checkpoint: Path) -> str:
    """Read the precision of a run's checkpoint, ``"fp32"`` or ``"bf16"``; ``"auto"`` where it is not known."""
    state = json.loads((checkpoint / "rank_0.json").read_text(encoding="utf-8"))
    # checkpoints of former versions do not say it, but their runs' config.yaml does
    file = checkpoint.parent.parent / "config.yaml"
    return state.get("precision") or yaml.safe_load(file.read_text(encoding="utf-8")).get("precision", "auto")


class MetricsLog:
    """One JSON object per step in ``metrics.jsonl``, the same numbers in tensorboard, and a line on the screen.

    Args:
        out: folder of the run.
        accelerator: made with ``log_with="tensorboard"`` and ``project_dir=out``.
        step: that the run goes on from. Rows after it are dropped, for these steps are done again; 0 drops all.
    """

    def __init__(self, out: Path, accelerator: Accelerator, step: int):
        self.file, self.accelerator = out / "metrics.jsonl", accelerator
        if accelerator.is_main_process:
            rows = read_metrics(out) if step > 0 else []
            replace_file(self.file, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": step + 1 if step else 0}})

    def write(self, row: Mapping[str, Any]) -> None:
        """Log a row: nested names and numbers, with the key ``step``.

        Raises:
            ValueError: a number that is not finite, which JSON cannot hold.
        """
        line = json.dumps(row, allow_nan=False)
        if self.accelerator.is_main_process:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        numbers = {k.replace(".", "/"): v for k, v in leaves(row) if isinstance(v, int | float) and k != "step"}
        self.accelerator.log(numbers, step=row["step"])
        with tqdm.external_write_mode():
            self.accelerator.print(line, flush=True)

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows logged so far."""
        return read_metrics(self.file.parent)


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's ``metrics.jsonl``; a last line that a kill left unfinished is not one."""
    file = out / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def latest_checkpoint(out: Path) -> Path | None:
    """Find the checkpoint of the highest step, or None."""
    return max((out / "checkpoints").glob("step_*"), default=None)


def steps_done(out: Path) -> int:
    """Read the step of the latest checkpoint, 0 without one."""
    checkpoint = latest_checkpoint(out)
    return int(checkpoint.name.removeprefix("step_")) if checkpoint else 0


def save_checkpoint(out: Path, accelerator: Accelerator, step: int, keep: int, own: Mapping[str, Any]) -> None:
    """Save the state of the accelerator and `own`; written beside and renamed, so that a kill leaves no half of it.

    Args:
        out: folder of the run.
        accelerator: `Accelerator.save_state` is called.
        step: steps that are done.
        keep: number of checkpoints that stay, the latest ones.
        own: JSON-able values that each process has for itself.
    """
    unfinished, done = (out / "checkpoints" / f"{prefix}_{step:08d}" for prefix in ("unfinished", "step"))
    if accelerator.is_main_process:
        for left in done.parent.glob("unfinished_*"):
            shutil.rmtree(left)
    accelerator.wait_for_everyone()
    # safetensors loads no network that has modules under two names (MONAI's DynUNet) in channels-last layout
    accelerator.save_state(str(unfinished), safe_serialization=False)
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    state = {"step": step, "processes": accelerator.num_processes, "precision": precision, "own": own}
    (unfinished / f"rank_{accelerator.process_index}.json").write_text(json.dumps(state), encoding="utf-8")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        unfinished.rename(done)
        for old in sorted(done.parent.glob("step_*"))[:-keep]:
            shutil.rmtree(old.rename(unfinished))
    accelerator.wait_for_everyone()


def load_checkpoint(checkpoint: Path, accelerator: Accelerator) -> tuple[int, dict[str, Any]]:
    """Load what `save_checkpoint` saved; returns the step and this process's `own`.

    Raises:
        ConfigError: it was saved by another number of processes.
    """
    saved = len(list(checkpoint.glob("rank_*.json")))
    if saved != accelerator.num_processes:
        raise ConfigError(
            f"{checkpoint} is of {saved} processes, this run has {accelerator.num_processes}: use {saved}"
        )
    accelerator.load_state(str(checkpoint))
    state = json.loads((checkpoint / f"rank_{accelerator.process_index}.json").read_text(encoding="utf-8"))
    return state["step"], state["own"]
