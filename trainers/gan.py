"""Train the GAN generator: one network that paints all channels of a lesion.

    synthaug train gan --config gan_tiny [--out runs/x] [key=value ...]
    accelerate launch --quiet trainers/gan.py --config configs/gan_tiny.yaml ...

Read from top to bottom: the networks, the loop, the generator that it leaves. The same command again continues a run
that was stopped, from its latest checkpoint. Crops and noise are functions of (seed, step, rank): on a CPU the weights
become bit for bit those of a run that was never stopped. A run's folder gets config.yaml, metrics.jsonl, tensorboard/,
checkpoints/, demos/ (pictures of fixed samples) and generator/ (averaged weights, for `synthaug.load_generator`).
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel

from synthaug import get_classes
from synthaug.generators.learned.gan import CROP_SIZES, GANGenerator
from synthaug.generators.learned.painter import Painter, PatchCritic
from synthaug.memory_format import channels_last
from synthaug.progress import numbered_steps
from synthaug.random import step_seed
from synthaug.training.cases import open_cases
from synthaug.training.command import command
from synthaug.training.gan_config import GANConfig
from synthaug.training.generator_batches import batches, demo_batch, make_crops, noise_of, prepare
from synthaug.training.generator_run import GENERATOR_MAY_CHANGE, RunKeeper, Stop, announce, averaged, set_rates
from synthaug.training.lesion_crops import LesionCrops
from synthaug.training.loop import MetricsWindow, log_start, resume, start, update
from synthaug.training.painting_losses import critic_loss, painter_parts, weighted
from synthaug.training.run import read_metrics


def make_networks(config: GANConfig) -> tuple[Painter, PatchCritic]:
    """Make both networks, weights with channels last."""
    set_seed(config.seed)  # the first weights
    channels, classes = len(config.data.channels), len(get_classes(config.data.classes))
    painter = Painter(channels, classes, config.painter.widths, config.painter.head, config.painter.hidden)
    critic = PatchCritic(channels, classes, config.critic.widths)
    return channels_last(painter), channels_last(critic)


def train(config: GANConfig, out: Path, stop: Stop | None = None) -> dict[str, Any]:
    """Train, or go on training, in the folder `out`; returns the last row of metrics.

    Args:
        config: configuration of the run.
        out: its folder.
        stop: asked after each step, with the step and a function that makes the generator as it now is, whether the
            training ends here.

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

    painter, critic = make_networks(config)
    optimizers = [
        torch.optim.Adam(network.parameters(), options.lr, betas=config.optimizer.betas)
        for network, options in ((painter, config.painter), (critic, config.critic))
    ]
    painter, critic, *optimizers = accelerator.prepare(painter, critic, *optimizers)
    bare_painter, bare_critic = accelerator.unwrap_model(painter), accelerator.unwrap_model(critic)
    ema = EMAModel(bare_painter.parameters(), decay=config.optimizer.ema, use_ema_warmup=True, power=0.75)
    accelerator.register_for_checkpointing(ema)

    first, own = resume(out, accelerator)
    window = MetricsWindow(**own["window"]) if own else MetricsWindow()
    ema.to(device)
    keeper = RunKeeper(config, out, accelerator, window, demo, first)
    facts = {"training_cases": len(cases), "validation_cases": len(held_out), "processes": processes}
    log_start(keeper.metrics, first, precision, facts)
    left = batches(crops, config, first, rank, processes)
    for step, batch in numbered_steps(left, first, config.optimizer.steps, told=rank == 0):
        set_rates(optimizers, (config.painter, config.critic), config.optimizer, step)
        batch = prepare(batch, device)
        noise = noise_of(bare_painter, batch, step_seed(config.seed, step, rank))
        painted = painter(batch["context"], batch["mask"], batch["style"], batch["available"], noise)
        fake = (batch["context"] + painted * batch["lesion"]) * batch["view"]

        adversarial = step > config.loss.adversarial_from
        if adversarial:
            critic.requires_grad_(True)
            loss = critic_loss(critic, batch, fake)
            window.add({"critic": loss}, update(accelerator, critic, optimizers[1], loss, config.optimizer.clip))
        critic.requires_grad_(False)
        with accelerator.autocast():
            parts = painter_parts(bare_critic if adversarial else None, batch, painted, fake)
        loss = weighted(parts, config.loss)
        finite = update(accelerator, painter, optimizers[0], loss, config.optimizer.clip)
        if finite:
            ema.step(bare_painter.parameters())
        window.add({"loss": loss} | parts, finite)

        make = partial(make_generator, config, crops, bare_painter, ema)
        ends = stop is not None and stop(step, make)
        keeper.keep(step, make, ends)
        if ends:
            break
    accelerator.end_training()
    return read_metrics(out)[-1]


def make_generator(config: GANConfig, crops: LesionCrops, painter: Painter, ema: EMAModel) -> GANGenerator:
    channels, classes = config.data.channels, get_classes(config.data.classes).names
    made = GANGenerator(averaged(painter, ema), crops.prior, channels, classes, crop_sizes=CROP_SIZES)
    made.space = config.data.space
    return made


if __name__ == "__main__":
    typer.run(command(train, GANConfig, "Train the GAN generator"))
