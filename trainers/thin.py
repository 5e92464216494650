"""Make a trained generator thinner, so that it paints almost the same for less.

    synthaug train thin --config thin_tiny [--out runs/x] [key=value ...]
    accelerate launch --quiet trainers/thin.py --config configs/thin_tiny.yaml ...

Read from top to bottom: what is compared, the thinning, the loop. First the blocks are thinned by least squares
(`synthaug.generators.learned.thinning`); then they, and nothing else, learn for a while to answer what the teacher
answers to the same questions (distillation, Hinton et al. 2015, arXiv 1503.02531, with the output as the target): on
the same crop with the same noise and, for a diffusion generator, at each of the states that the teacher comes by as it
paints. Runs continue, and leave behind, what those of trainers/gan.py do.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import default_collate

from synthaug import get_classes
from synthaug.config import ConfigError
from synthaug.generators.learned.flow_painter import FlowPainter
from synthaug.generators.learned.hub import load_generator, stored_network, with_shape
from synthaug.generators.learned.style import style_maps
from synthaug.generators.learned.styled import StyledGenerator
from synthaug.generators.learned.thinning import Moments, blocks, near, thin, thinner_blocks
from synthaug.progress import numbered_steps
from synthaug.random import step_seed
from synthaug.training.cases import open_cases
from synthaug.training.command import command
from synthaug.training.generator_batches import batches, demo_batch, make_crops, noise_of, prepare
from synthaug.training.generator_run import GENERATOR_MAY_CHANGE, RunKeeper, announce, averaged, lr_factor
from synthaug.training.lesion_crops import LesionCrops
from synthaug.training.loop import MetricsWindow, log_start, resume, start, update
from synthaug.training.run import latest_checkpoint, read_metrics
from synthaug.training.thin_config import ThinningConfig

FITTED_FROM = 500_000
"""The first of the samples that the least squares are fitted to: none that is trained on."""

LEAST_STD = 0.05
"""Differences are counted in standard deviations of the class, but of no less than this (in model intensities)."""

# --------------------------------------------------------------------------------------- what is compared


class Watch:
    """Recorder of a module's arguments and answers within a `with`: every call, and of some blocks every answer.

    Args:
        network: the module.
        inside: blocks of it.
    """

    def __init__(self, network: nn.Module, inside: Mapping[str, nn.Module]):
        self.network, self.inside = network, inside
        self.calls: list[tuple[tuple[Any, ...], Any]] = []
        self.features: dict[str, list[Tensor]] = {}

    def __enter__(self) -> "Watch":
        self.calls, self.features = [], {name: [] for name in self.inside}
        self._hooks = [self.network.register_forward_hook(lambda _, given, answer: self.calls.append((given, answer)))]
        for name, block in self.inside.items():
            self._hooks.append(block.register_forward_hook(partial(self._keep, name)))
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str, _block: nn.Module, _given: Any, answer: Tensor) -> None:
        self.features[name].append(answer)


@torch.no_grad()
def paint(
    generator: StyledGenerator, batch: Mapping[str, Tensor], config: ThinningConfig, step: int, rank: int
) -> None:
    """Let a generator paint a batch; a diffusion generator in one of the configuration's numbers of steps."""
    painter = generator.painter
    if isinstance(painter, FlowPainter):
        steps = config.student.steps[step % len(config.student.steps)]
        painter = FlowPainter(painter.denoiser, steps, painter.scheduler, refined=painter.refined)
    noise = noise_of(painter, batch, step_seed(config.seed, step, rank))
    painter(batch["context"], batch["mask"], batch["style"], batch["available"], noise)


def in_units(answer: Tensor | tuple[Tensor, Tensor], std: Tensor) -> tuple[Tensor, Tensor]:
    """Bring an answer to a lesion in units of the class's spread and surroundings in model intensities."""
    if isinstance(answer, tuple):  # a denoiser's lesion is in these units
        return answer
    return answer / std.clamp(min=LEAST_STD), answer


def differences(
    ours: tuple[Any, Mapping[str, Tensor]], theirs: tuple[Any, Mapping[str, Tensor]], batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Measure the distance of one answer, with the features that led to it, from another.

    Returns:
        ``rms`` of the difference in the lesion, in standard deviations of the class; ``features``: the mean over
        blocks of the squared difference near the lesion, relative to the teacher's; ``halo``: L1 around the lesion.
    """
    std = style_maps(batch["style"], batch["mask"], batch["available"])[1]
    counted = batch["lesion"] * batch["available"][:, :, None, None, None]
    (lesion, around), (wanted, wanted_around) = (in_units(answer, std) for answer, _ in (ours, theirs))
    square = ((lesion - wanted).square() * counted).sum() / counted.sum().clamp(min=1)
    close, relative = near(batch["lesion"]), []
    for name, feature in ours[1].items():
        target = theirs[1][name].float()
        here = nn.functional.interpolate(close, size=target.shape[2:])
        relative.append(((feature.float() - target).square() * here).mean() / target.square().mean())
    return {
        "rms": (square + 1e-8).sqrt(),
        "features": torch.stack(relative).mean(),
        "halo": ((around - wanted_around).abs() * (1 - batch["lesion"]) * close).mean(),
    }


# --------------------------------------------------------------------------------------------- the thinning


def open_teacher(config: ThinningConfig, device: torch.device) -> StyledGenerator:
    """Load the generator that is made thinner.

    Raises:
        ConfigError: it is none, or made for other channels or classes.
    """
    try:
        teacher = load_generator(config.student.init, precision="fp32")
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"student.init: {error}") from error
    for what, ours in (("channels", config.data.channels), ("classes", get_classes(config.data.classes).names)):
        if (theirs := getattr(teacher, what)) != tuple(ours):
            raise ConfigError(f"data.{what}: expected those of {config.student.init}, {theirs}, got {tuple(ours)}")
    teacher.painter.to(device)
    teacher.prior.to(device)
    return teacher


def thinned(
    config: ThinningConfig, teacher: StyledGenerator, crops: LesionCrops, device: torch.device
) -> StyledGenerator:
    """Make the thinner generator, before it learns anything.

    Raises:
        ConfigError: a shape that cannot be had from the teacher's.
    """
    network = stored_network(teacher)
    try:
        moments = {name: Moments(block) for name, block in thinner_blocks(network, config.student.hidden).items()}
    except ValueError as error:
        raise ConfigError(f"student.{error}") from error
    for n in range(config.student.crops):
        batch = prepare(default_collate([crops[FITTED_FROM + n]]), device)
        for seen in moments.values():
            seen.where = near(batch["lesion"])
        paint(teacher, batch, config, FITTED_FROM + n, 0)
    for seen in moments.values():
        seen.close()
    student = with_shape(teacher, hidden=config.student.hidden)
    thin(stored_network(student), network, moments)
    return student


# ------------------------------------------------------------------------------------------------ the loop


def train(config: ThinningConfig, out: Path) -> dict[str, Any]:
    """Train, or go on training, in the folder `out`; returns the last row of metrics.

    Raises:
        ConfigError: a configuration that does not fit, or `out` holds a run of another configuration.
        CaseError: a case that cannot be read.
        RuntimeError: gradients that stay not finite.
    """
    accelerator, precision = start(config, out, config.optimizer.steps, GENERATOR_MAY_CHANGE)
    device, rank, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    cases, held_out = open_cases(config.data, out, accelerator)
    announce(config, accelerator, precision, cases, held_out)
    teacher = open_teacher(config, device)
    crops = make_crops(config, cases, processes, teacher.prior)
    demo = demo_batch(config, held_out or cases, crops.prior, device) if accelerator.is_main_process else None

    if latest_checkpoint(out) is None:
        student = thinned(config, teacher, crops, device)
    else:
        student = with_shape(teacher, hidden=config.student.hidden)  # its weights are in the checkpoint
    asked, network = stored_network(teacher), stored_network(student)
    names = thinner_blocks(asked, config.student.hidden)
    ours = {name: block for name, block in blocks(network).items() if name in names}
    learning = [p.requires_grad_(True) for block in ours.values() for p in block.parameters()]
    optimizer = torch.optim.Adam(learning, config.student.lr, betas=config.optimizer.betas)
    network, optimizer = accelerator.prepare(network.train(), optimizer)
    bare = accelerator.unwrap_model(network)
    ema = EMAModel(bare.parameters(), decay=config.optimizer.ema, use_ema_warmup=True, power=0.75)
    accelerator.register_for_checkpointing(ema)

    first, own = resume(out, accelerator)
    window = MetricsWindow(**own["window"]) if own else MetricsWindow()
    ema.to(device)
    keeper = RunKeeper(config, out, accelerator, window, demo, first)
    facts = {"training_cases": len(cases), "validation_cases": len(held_out), "processes": processes}
    log_start(keeper.metrics, first, precision, facts)
    left = batches(crops, config, first, rank, processes)
    for step, batch in numbered_steps(left, first, config.optimizer.steps, told=rank == 0):
        for group in optimizer.param_groups:
            group["lr"] = config.student.lr * lr_factor(config.optimizer, step)
        batch = prepare(batch, device)
        with accelerator.autocast(), Watch(asked, names) as taught:
            paint(teacher, batch, config, step, rank)
        calls = [compared(network, ours, taught, call, batch) for call in range(len(taught.calls))]
        parts = {name: torch.stack([call[name] for call in calls]).mean() for name in calls[0]}
        loss = parts["rms"] + config.loss.features * parts["features"] + config.loss.halo * parts["halo"]
        finite = update(accelerator, network, optimizer, loss, config.optimizer.clip)
        if finite:
            ema.step(bare.parameters())
        window.add({"loss": loss} | parts, finite)

        keeper.keep(step, partial(make_generator, teacher, bare, ema))
    accelerator.end_training()
    return read_metrics(out)[-1]


def compared(
    network: nn.Module, ours: Mapping[str, nn.Module], taught: Watch, call: int, batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Ask the student what the teacher was asked in one call, and measure the `differences` of their answers."""
    given, answer = taught.calls[call]
    with Watch(network, ours) as learned:
        found = network(*given)
    features, wanted = ({name: seen[i] for name, seen in w.features.items()} for w, i in ((learned, 0), (taught, call)))
    return differences((found, features), (answer, wanted), batch)


def make_generator(teacher: StyledGenerator, network: nn.Module, ema: EMAModel) -> StyledGenerator:
    """Make a generator like the teacher, with the student's averaged weights."""
    student = with_shape(teacher, hidden=network.hidden)
    stored_network(student).load_state_dict(averaged(network, ema).state_dict())
    return student


if __name__ == "__main__":
    typer.run(command(train, ThinningConfig, "Make a trained generator thinner"))
