"""What the trainers share: which cases, how a run starts, counts its steps, goes on, and is called.

A trainer's configuration is a `RunConfig` whose `data` is a `CasesConfig`, each with what the trainer adds.
"""

import math
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from accelerate import Accelerator
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from synthaug import get_classes
from synthaug.config import ConfigError, Section, read_config
from synthaug.data import Case, CaseError, find_cases, write_phantom_dataset
from synthaug.precision import Precision
from synthaug.training.run import MetricsLog, keep_config, latest_checkpoint, load_checkpoint, run_precision, steps_done

Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
Size = tuple[PositiveInt, PositiveInt, PositiveInt]

MAY_CHANGE = ("precision", "data.folder", "data.workers", "log_every", "checkpoint_every", "keep_checkpoints")
"""Keys that a continued run of any trainer may have otherwise than the run it continues; for precision see
`synthaug.training.run.run_precision`."""

MOST_SKIPPED = 50
"""Updates in a row whose gradients are not finite before the training gives up."""

# ------------------------------------------------------------------------------------------- configuration


class PhantomConfig(Section):
    """Phantoms that are written into the run's folder."""

    count: PositiveInt
    size: Size = (64, 64, 64)
    seed: Seed = 0


class CasesConfig(Section):
    """Which cases."""

    folder: Path | None = None
    phantom: PhantomConfig | None = None
    layout: Literal["auto", "brats", "nnunet", "msd", "bids"] = "auto"
    group_pattern: str | None = None
    channels: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
    classes: str | dict[str, int] = "BRATS18"
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] = ()
    batch: PositiveInt = 2
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_source(self):
        if (self.folder is None) == (self.phantom is None):
            raise ValueError("expected either folder (data.folder=/path/to/cases on the command line) or phantom")
        return self


class RunConfig(Section):
    """A whole configuration; trainers add their parts."""

    data: CasesConfig
    seed: Seed = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: PositiveInt | None = None
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 2


# --------------------------------------------------------------------------------------------------- cases


def open_cases(config: CasesConfig, out: Path, accelerator: Accelerator) -> tuple[list[Case], list[Case]]:
    """Training and validation cases; phantoms are written into the run's folder first.

    Raises:
        ConfigError: no cases, a split that does not fit them, or none left for training.
    """
    folder = cases_folder(config, out, accelerator)
    split = {"validation": config.validation} | ({"train": config.train} if config.train is not None else {})
    try:
        cases = find_cases(folder, config.layout, config.channels, config.group_pattern, split)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    train = [c for c in cases if c.split == "train" or (config.train is None and c.split is None and c.label)]
    if not train:
        raise ConfigError(f"data: no training case is left in {folder}: all {len(cases)} are for validation")
    return train, [case for case in cases if case.split == "validation"]


def cases_folder(config: CasesConfig, out: Path, accelerator: Accelerator) -> Path:
    """The folder of the cases; that of the phantoms is made by the main process."""
    if config.phantom is None:
        return config.folder
    recipe = config.phantom.model_dump_json() + repr(get_classes(config.classes))
    folder = out / f"phantoms_{zlib.crc32(recipe.encode()):08x}"  # other phantoms, other folder
    with accelerator.main_process_first():
        if not folder.exists():
            write_phantoms(config, folder)
    return folder


def write_phantoms(config: CasesConfig, folder: Path) -> None:
    """Written beside and renamed, so that a run that is killed here leaves no half a data set."""
    unfinished = folder.with_name(f"unfinished_{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    phantom = config.phantom
    write_phantom_dataset(unfinished, phantom.count, phantom.seed, phantom.size, classes=get_classes(config.classes))
    unfinished.rename(folder)


# ---------------------------------------------------------------------------------------------------- a run


def start(
    config: RunConfig, out: Path, steps: int, may_change: Sequence[str] = MAY_CHANGE, **options: Any
) -> tuple[Accelerator, Precision]:
    """The accelerator and what it computes in, with the run's folder made or found to be of this configuration.

    The precision is the configuration's; `accelerate launch --mixed_precision` has no say.

    Args:
        config: of this run.
        out: its folder.
        steps: that it is to have at its end.
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
    """Log the facts of a run that begins, and what it computes in; of one that goes on, the latter where it changed."""
    told = {"precision": asdict(precision)}
    if first == 0:
        log.write({"step": 0} | facts | told)
    elif told["precision"] != next((r["precision"] for r in reversed(log.rows()) if "precision" in r), None):
        log.write({"step": first} | told)


def resume(out: Path, accelerator: Accelerator) -> tuple[int, dict[str, Any] | None]:
    """Load the latest checkpoint where there is one: the steps that are done, and what this process kept of its own."""
    checkpoint = latest_checkpoint(out)
    if checkpoint is None:
        return 0, None
    step, own = load_checkpoint(checkpoint, accelerator)
    accelerator.print(f"going on after step {step}, from {checkpoint}")
    return step, own


def update(
    accelerator: Accelerator, network: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float
) -> bool:
    """One update; none, and False, where the gradient is not finite: bf16 overflows now and then."""
    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = float(accelerator.clip_grad_norm_(network.parameters(), clip))
    if math.isfinite(norm):
        optimizer.step()
    return math.isfinite(norm)


@dataclass
class Window:
    """What happened since the last row of metrics; `state_dict` goes into checkpoints."""

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
        """Means over the updates that were made, of this process; and begin anew."""
        row = {name: total / self.counts[name] for name, total in self.sums.items()} | {"skipped": self.skipped}
        self.sums, self.counts, self.skipped = {}, {}, 0
        return row

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; `Window(**state)` is this one again."""
        return asdict(self)


def command(train: Callable[[Any, Path], Any], model: type[RunConfig], summary: str) -> Callable[..., None]:
    """The command line of a trainer, for `typer.run`: --config FILE [--out FOLDER] [key=value ...].

    Args:
        train: called with the configuration and the run's folder.
        model: of the configuration.
        summary: first line of the help.
    """

    def main(
        config: Annotated[Path, typer.Option(help="YAML file, such as one of configs/")],
        out: Annotated[Path | None, typer.Option(help="folder of the run [default: runs/<name of the config>]")] = None,
        overrides: Annotated[
            list[str] | None, typer.Argument(help="changes of the config, such as optimizer.steps=50")
        ] = None,
    ) -> None:
        try:
            train(read_config(config, model, overrides or ()), out or Path("runs") / config.stem)
        except (ConfigError, CaseError) as error:
            raise SystemExit(f"error: {error}") from error

    main.__doc__ = f"{summary}; the same command again continues a run that was stopped."
    return main
