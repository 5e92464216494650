"""Runs of the generators' trainers: keys that may change, learning rates, and files that a run writes."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor

from synthaug.data import Case
from synthaug.generators.learned.hub import save_generator
from synthaug.generators.learned.styled import StyledGenerator
from synthaug.memory_format import Network
from synthaug.precision import Precision
from synthaug.training.demo_pictures import demo_picture, save_picture
from synthaug.training.generator_config import AdamConfig, GeneratorConfig, GeneratorNetworkConfig
from synthaug.training.loop import MetricsWindow
from synthaug.training.run import MetricsLog, save_checkpoint
from synthaug.training.run_config import MAY_CHANGE

Stop = Callable[[int, Callable[[], StyledGenerator]], bool]
"""Whether a training ends after a step; it may make the generator as it then is."""

GENERATOR_MAY_CHANGE = (*MAY_CHANGE, "data.cache", "demo", "optimizer.steps", "optimizer.decay_from")
"""Keys that a continued run may have otherwise; so a run can be made longer than it was meant to be at first."""


def announce(
    config: GeneratorConfig, accelerator: Accelerator, precision: Precision, cases: list[Case], held_out: list[Case]
) -> None:
    """Print, before anything is read, steps, cases and precision of the run."""
    accelerator.print(
        f"{config.optimizer.steps} steps on crops of {len(cases)} training cases; {len(held_out)} cases are for "
        f"validation; computing in {precision}",
        flush=True,
    )


def lr_factor(config: AdamConfig, step: int) -> float:
    """Scale the learning rates at a step by this: 1, then a line to 0.05 from `decay_from` of the training on."""
    start = config.decay_from * config.steps
    return 1.0 if step < start else 1 - 0.95 * (step - start) / max(1.0, config.steps - start)


def set_rates(
    optimizers: Sequence[torch.optim.Optimizer],
    networks: Sequence[GeneratorNetworkConfig],
    config: AdamConfig,
    step: int,
) -> None:
    """Set the learning rates of a step, each network's own."""
    for optimizer, options in zip(optimizers, networks, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * lr_factor(config, step)


class RunKeeper:
    """Writes the files of a run: metrics, pictures of fixed samples, checkpoints, the generator.

    Args:
        config: configuration of the run.
        out: folder of the run.
        accelerator: accelerator of this process.
        window: sums that the loop adds up for the next row of metrics.
        demo: samples of the pictures; None in all but the main process.
        first: steps that were done before.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        out: Path,
        accelerator: Accelerator,
        window: MetricsWindow,
        demo: Mapping[str, Tensor] | None,
        first: int,
    ):
        self.config, self.out, self.accelerator, self.window, self.demo = config, out, accelerator, window, demo
        self.metrics = MetricsLog(out, accelerator, first)
        self.clock, self.clocked = time.perf_counter(), first

    def keep(self, step: int, make: Callable[[], StyledGenerator], last: bool = False) -> None:
        """Write the files that are due after this step, all of them after the `last` one.

        `make` is called where the generator is needed as it now is.
        """
        config, out, main = self.config, self.out, self.accelerator.is_main_process
        last = last or step == config.optimizer.steps
        if step % config.log_every == 0 or last:
            seconds = (time.perf_counter() - self.clock) / (step - self.clocked)
            self.metrics.write({"step": step, "seconds_per_step": seconds} | self.window.close())
            self.clock, self.clocked = time.perf_counter(), step
        if self.demo is not None and (step % config.demo.every == 0 or last):
            save_picture(demo_picture(make().painter, self.demo, config.seed), out / "demos" / f"step_{step:08d}.png")
        if step % config.checkpoint_every == 0 or last:
            own = {"window": self.window.state_dict()}
            save_checkpoint(out, self.accelerator, step, config.keep_checkpoints, own)
            if main:
                save_generator(make(), out / "generator")


def averaged(network: Network, ema: EMAModel) -> Network:
    """Copy a network and give the copy the averaged weights."""
    network = copy.deepcopy(network)
    ema.copy_to(network.parameters())
    return network
