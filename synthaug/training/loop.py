"""Steps that the training loops share: start a run or go on with it, update a network, add up metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from synthaug.config import ConfigError
from synthaug.precision import Precision
from synthaug.training.run import MetricsLog, keep_config, latest_checkpoint, load_checkpoint, run_precision, steps_done
from synthaug.training.run_config import MAY_CHANGE, RunConfig

MOST_SKIPPED = 50
"""Updates in a row whose gradients are not finite before the training gives up."""


def start(
    config: RunConfig, out: Path, steps: int, may_change: Sequence[str] = MAY_CHANGE, **options: Any
) -> tuple[Accelerator, Precision]:
    """Make the accelerator and choose its precision; make the run's folder, or check that it has this configuration.

    The precision is the configuration's; `accelerate launch --mixed_precision` has no say.

    Args:
        config: configuration of the run.
        out: folder of the run.
        steps: steps that the run is to have at its end.
        may_change: dotted keys that a continued run may have otherwise.
        **options: further arguments of `Accelerator`.

    Raises:
        ConfigError: `out` holds a run of another configuration, or of more steps, or of unknown precision.
    """
    if (done := steps_done(out)) > steps:
        raise ConfigError(f"optimizer.steps: expected {done} or more, for {out} has done so many, got {steps}")
    torch.set_flush_denormal(True)  # denormals stall 3-D convolutions on CPUs
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    precision = run_precision(out, config.precision)
    mixed = "bf16" if precision.bf16 else "no"
    accelerator = Accelerator(mixed_precision=mixed, log_with="tensorboard", project_dir=out, **options)
    keep_config(out, config, accelerator, may_change)
    return accelerator, precision


def log_start(log: MetricsLog, first: int, precision: Precision, facts: Mapping[str, Any]) -> None:
    """Log facts and precision of a run that begins; of one that goes on, the precision where it changed."""
    told = {"precision": asdict(precision)}
    if first == 0:
        log.write({"step": 0, **facts, **told})
    elif told["precision"] != next((r["precision"] for r in reversed(log.rows()) if "precision" in r), None):
        log.write({"step": first} | told)


def resume(out: Path, accelerator: Accelerator) -> tuple[int, dict[str, Any] | None]:
    """Load the latest checkpoint, if any; returns its step and this process's own state, 0 and None without one."""
    checkpoint = latest_checkpoint(out)
    if checkpoint is None:
        return 0, None
    step, own = load_checkpoint(checkpoint, accelerator)
    accelerator.print(f"going on after step {step}, from {checkpoint}")
    return step, own


def update(
    accelerator: Accelerator, network: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float
) -> bool:
    """Update a network; skip it, and return False, where the gradient is not finite: bf16 overflows now and then."""
    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = float(accelerator.clip_grad_norm_(network.parameters(), clip))
    if math.isfinite(norm):
        optimizer.step()
    return math.isfinite(norm)


@dataclass
class MetricsWindow:
    """Sums of metrics since the last row; `state_dict` goes into checkpoints."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    skipped_in_a_row: int = 0

    def add(self, values: Mapping[str, Tensor | float], finite: bool) -> None:
        """Count a step, or an update that was skipped where the gradient was not finite.

        Raises:
            RuntimeError: `MOST_SKIPPED` updates in a row were skipped.
        """
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row == MOST_SKIPPED:
            raise RuntimeError(f"the gradients of {MOST_SKIPPED} updates in a row were not finite: lower the lr")
        for name, value in values.items() if finite else ():
            number = value.item() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + number
            self.counts[name] = self.counts.get(name, 0) + 1

    def close(self) -> dict[str, Any]:
        """Average over the updates that this process made, and begin anew."""
        row = {name: total / self.counts[name] for name, total in self.sums.items()} | {"skipped": self.skipped}
        self.sums, self.counts, self.skipped = {}, {}, 0
        return row

    def state_dict(self) -> dict[str, Any]:
        """Give the sums, JSON-able; `MetricsWindow(**state)` is this one again."""
        return asdict(self)
