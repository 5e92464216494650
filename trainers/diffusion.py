"""Train the diffusion generator: a flow from informed noise to lesions, then its refinement for few steps.

    synthaug train diffusion --config diffusion_tiny [--out runs/x] [key=value ...]
    accelerate launch --quiet trainers/diffusion.py --config configs/diffusion_tiny.yaml ...

Read from top to bottom: the flow, the refinement, the loop. The flow learns from one point of each lesion's path a
step; with `flow.reflow` the path does not end in the real lesion but where the flow of `denoiser.init` leads from the
same noise, which makes paths straighter (the reflow procedure, Liu et al. 2023, arXiv 2209.03003, section 2.2). From
step `refine.start` on the network also learns to jump: it follows the path from noise as a sampler of 1, 2, 4 or 8
steps does, and the last step is judged as the GAN's paintings are, by a patch critic and by the style asked for
(adversarial diffusion distillation, Sauer et al. 2023, arXiv 2311.17042, but from the student's own states, and with
no teacher: the network is told which of the two is wanted, so the flow stays what it was). Runs continue, and leave
behind, what those of trainers/gan.py do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor

from synthaug import get_classes
from synthaug.config import ConfigError
from synthaug.generators.learned.denoiser import Denoiser
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.flow import Point, Scene, loss_weight, noise_shapes, on_path
from synthaug.generators.learned.flow_painter import FlowPainter
from synthaug.generators.learned.hub import load_generator
from synthaug.generators.learned.painter import PatchCritic
from synthaug.generators.learned.samplers import sample
from synthaug.generators.learned.style import class_moments, lesion_style, present_classes
from synthaug.memory_format import channels_last
from synthaug.progress import numbered_steps
from synthaug.random import device_stream, step_seed
from synthaug.training.cases import open_cases
from synthaug.training.command import command
from synthaug.training.diffusion_config import DiffusionConfig, RefineConfig
from synthaug.training.generator_batches import batches, demo_batch, make_crops, prepare
from synthaug.training.generator_run import GENERATOR_MAY_CHANGE, RunKeeper, announce, averaged, set_rates
from synthaug.training.lesion_crops import LesionCrops, fit_channel_mixing
from synthaug.training.loop import MetricsWindow, log_start, resume, start, update
from synthaug.training.painting_losses import critic_loss, masked_l1, painter_parts, shell, weighted
from synthaug.training.run import read_metrics

# ------------------------------------------------------------------------------------------------- the flow


def drawn_noise(scene: Scene, mixing: Tensor, rng: torch.Generator) -> Tensor:
    """Draw the noise of a scene, on the CPU so that it does not depend on the device."""
    count, channels, *size = scene.context.shape
    images = [torch.randn((count, *s), generator=rng) for s in noise_shapes(channels, size)]
    return scene.noise([image.to(scene.context.device) for image in images], mixing)


def expectation(denoiser: Denoiser, scene: Scene) -> Callable[[Tensor, float], Tensor]:
    """Make the function that a solver calls: the network's mean of all lesions behind a state."""

    def denoise(state: Tensor, time: float) -> Tensor:
        times = state.new_full((len(state),), time)
        return denoiser(scene, state, times, torch.zeros_like(times))[0]

    return denoise


def flow_point(
    batch: Mapping[str, Tensor],
    mixing: Tensor,
    config: DiffusionConfig,
    rng: torch.Generator,
    end: Callable[[Scene, Tensor], Tensor] | None = None,
) -> tuple[Point, Tensor]:
    """Draw a point of each path, to the real lesion or to the `end` of a scene and its noise; and give that lesion."""
    real, mask = batch["real"], batch["real_mask"]
    scene = Scene.of(real, mask, lesion_style(real, mask), batch["available"])
    noise = drawn_noise(scene, mixing, rng)
    lesion = scene.whitened(real) if end is None else end(scene, noise)
    # one time in each part of the path, so that every batch sees all of it
    times = (torch.rand(len(real), generator=rng) + torch.randperm(len(real), generator=rng)) / len(real)
    times = times.clamp(min=0.01).to(real.device)
    blind = torch.rand(len(real), generator=rng) < config.flow.class_dropout
    seen = scene.without_classes(blind.to(real.device))
    return Point(seen, on_path(lesion, noise, times), times, torch.zeros_like(times)), lesion


def flow_parts(
    found: Tensor, around: Tensor, lesion: Tensor, point: Point, batch: Mapping[str, Tensor], config: DiffusionConfig
) -> dict[str, Tensor]:
    """Average the squared error of the lesion found over each class's voxels, then over classes, channels and samples.

    So a class of few voxels weighs as much as one of many, and what surrounds the lesion nothing.
    """
    error, _ = class_moments((found - lesion).square(), batch["real_mask"])
    weight = present_classes(batch["real_mask"])[:, :, None] * batch["available"][:, None, :]
    at = loss_weight(point.time, config.flow.weighting, config.flow.gamma)[:, None, None]
    return {
        "flow": (error * weight * at).sum() / weight.sum().clamp(min=1),
        "halo": masked_l1(around, batch["real"], shell(batch["real_lesion"])),
    }


# ------------------------------------------------------------------------------------------- the refinement


@torch.no_grad()
def last_point(denoiser: Denoiser, batch: Mapping[str, Tensor], config: RefineConfig, rng: torch.Generator) -> Point:
    """Follow a sampler of few steps to its last one, with lesions in their own and in other places."""
    scene = Scene.of(batch["host"], batch["mask"], batch["style"], batch["available"])
    steps = config.steps[int(torch.randint(len(config.steps), (), generator=rng))]
    reached: list[Point] = []

    def stop(state: Tensor, time: float) -> Tensor:
        times = state.new_full((len(state),), time)
        reached.append(Point(scene, state, times, times))
        return state

    sample(expectation(denoiser, scene), drawn_noise(scene, denoiser.mixing, rng), steps=steps, finish=stop)
    return reached[0]


@dataclass
class DenoisingStep:
    """One training step of the denoiser, before its update.

    Attributes:
        batch: crops, of `synthaug.training.generator_batches.prepare`.
        config: configuration of the run.
        rng: random stream of the step's noise and times.
        accelerator: accelerator of this process.
        mixing: (2, K, C, C) mixing of the noise's channels.
        student: the network that follows the path to its last step; None where nothing is refined yet.
        teacher: the network whose lesions the paths lead to; None where they lead to the real ones.
    """

    batch: Mapping[str, Tensor]
    config: DiffusionConfig
    rng: torch.Generator
    accelerator: Accelerator
    mixing: Tensor
    student: Denoiser | None
    teacher: Denoiser | None

    @torch.no_grad()
    def taught(self, teacher: Denoiser, scene: Scene, noise: Tensor) -> Tensor:
        """Follow the teacher's flow from noise to its end, whitened."""
        with self.accelerator.autocast():
            return sample(expectation(teacher, scene), noise, steps=self.config.flow.reflow) * scene.lesion

    def denoised(self, denoiser: torch.nn.Module) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """Learn the flow and the jump in one forward pass.

        Returns:
            The flow's losses; and, where a student refines, what the jump painted and what the critic sees of it.
        """
        end = None if self.teacher is None else partial(self.taught, self.teacher)
        point, lesion = flow_point(self.batch, self.mixing, self.config, self.rng, end)
        count, last = len(point.time), None
        if self.student is not None and self.config.refine is not None:
            with self.accelerator.autocast():
                last = last_point(self.student, self.batch, self.config.refine, self.rng)
        both = point if last is None else Point.joined(point, last)
        found, around = denoiser(both.scene, both.state, both.time, both.stride)
        parts = flow_parts(found[:count], around[:count], lesion, point, self.batch, self.config)
        if last is None:
            return parts, None
        painted = last.scene.painted(found[count:], around[count:])
        return parts, (painted, (self.batch["context"] + painted * self.batch["lesion"]) * self.batch["view"])


# ------------------------------------------------------------------------------------------------- the loop


CRITIC_BETAS = (0.5, 0.99)
"""Of Adam, as the GAN's: a critic whose opponent moves wants a short memory."""


def make_networks(config: DiffusionConfig, mixing: Tensor) -> tuple[Denoiser, PatchCritic]:
    """Make both networks; the denoiser may start from a trained painter or denoiser.

    Raises:
        ConfigError: `denoiser.init` is of another shape, or no generator.
    """
    set_seed(config.seed)  # the first weights
    part, names = config.denoiser, get_classes(config.data.classes).names
    denoiser = Denoiser(len(config.data.channels), len(names), part.widths, part.head, part.embedding, part.hidden)
    critic = PatchCritic(len(config.data.channels), len(names), config.critic.widths)
    if part.init is not None:
        try:
            painter = load_generator(part.init, config.data.channels, names).painter
            denoiser.start_from(painter.denoiser if isinstance(painter, FlowPainter) else painter)
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"denoiser.init: {error}") from error
    denoiser.mixing.copy_(mixing)
    return channels_last(denoiser), channels_last(critic)


def make_teacher(config: DiffusionConfig, device: torch.device) -> Denoiser | None:
    """Load the network of `denoiser.init` as it was, where reflow asks for it.

    Raises:
        ConfigError: it is no diffusion generator.
    """
    if not config.flow.reflow or config.denoiser.init is None:  # a configuration with reflow has one
        return None
    painter = load_generator(config.denoiser.init).painter
    if not isinstance(painter, FlowPainter):
        raise ConfigError(f"flow.reflow: expected a diffusion generator as denoiser.init, got {type(painter).__name__}")
    return channels_last(painter.denoiser.to(device))


def make_optimizers(config: DiffusionConfig, denoiser: Denoiser, critic: PatchCritic) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Adam(denoiser.parameters(), config.denoiser.lr, betas=config.optimizer.betas),
        torch.optim.Adam(critic.parameters(), config.critic.lr, betas=CRITIC_BETAS),
    ]


def train(config: DiffusionConfig, out: Path) -> dict[str, Any]:
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
    crops = make_crops(config, cases, processes)
    demo = demo_batch(config, held_out or cases, crops.prior, device) if accelerator.is_main_process else None

    mixing = fit_channel_mixing(crops.fitted_volumes(), len(crops.classes))
    denoiser, critic = make_networks(config, mixing)
    teacher = make_teacher(config, device)
    denoiser, critic, *optimizers = accelerator.prepare(denoiser, critic, *make_optimizers(config, denoiser, critic))
    bare, bare_critic = accelerator.unwrap_model(denoiser), accelerator.unwrap_model(critic)
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
        set_rates(optimizers, (config.denoiser, config.critic), config.optimizer, step)
        rng = device_stream(step_seed(config.seed, step, rank))
        refining = config.refine is not None and step > config.refine.start
        student = bare if refining else None
        asked = DenoisingStep(prepare(batch, device), config, rng, accelerator, bare.mixing, student, teacher)
        parts, jump = asked.denoised(denoiser)
        if jump is not None:
            painted, fake = jump
            critic.requires_grad_(True)
            loss = critic_loss(critic, asked.batch, fake)
            window.add({"critic": loss}, update(accelerator, critic, optimizers[1], loss, config.optimizer.clip))
            critic.requires_grad_(False)
            with accelerator.autocast():
                parts |= painter_parts(bare_critic, asked.batch, painted, fake)
        loss = weighted(parts, config.loss)
        finite = update(accelerator, denoiser, optimizers[0], loss, config.optimizer.clip)
        if finite:
            ema.step(bare.parameters())
        window.add({"loss": loss} | parts, finite)

        keeper.keep(step, partial(make_generator, config, crops, bare, ema, refining))
    accelerator.end_training()
    return read_metrics(out)[-1]


def make_generator(
    config: DiffusionConfig, crops: LesionCrops, denoiser: Denoiser, ema: EMAModel, refined: bool
) -> DiffusionGenerator:
    channels, classes = config.data.channels, get_classes(config.data.classes).names
    made = DiffusionGenerator(averaged(denoiser, ema), crops.prior, channels, classes, refined=refined)
    made.space = config.data.space
    return made


if __name__ == "__main__":
    typer.run(command(train, DiffusionConfig, "Train the diffusion generator"))
