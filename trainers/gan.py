"""Train the GAN generator: one network that paints all channels of a lesion.

    accelerate launch trainers/gan.py --config configs/gan_tiny.yaml [--out runs/x] [key=value ...]

Read from top to bottom: batches and noise, the two losses, the loop. The same command again continues a run that was
stopped, from its latest checkpoint. Crops and noise are functions of (seed, step, rank): on a CPU the weights become
bit for bit those of a run that was never stopped. A run's folder gets config.yaml, metrics.jsonl, tensorboard/,
checkpoints/, demos/ (pictures of fixed samples) and generator/ (averaged weights, for `synthaug.load_generator`).
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from common import MAY_CHANGE, Window, command, log_start, open_cases, resume, start, update
from diffusers.training_utils import EMAModel
from gan_config import Config, LossConfig, NetworkConfig, OptimizerConfig
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from synthaug import get_classes
from synthaug.data import Case
from synthaug.generators.learned.gan import CROP_SIZES, GANGenerator
from synthaug.generators.learned.hub import save_generator
from synthaug.generators.learned.painter import Painter, PatchCritic
from synthaug.generators.learned.style import StylePrior
from synthaug.generators.learned.styled import StyledGenerator
from synthaug.precision import Precision
from synthaug.training import painting_losses as losses
from synthaug.training.demo_pictures import demo_picture, save_picture
from synthaug.training.lesion_crops import LesionCrops, StepSampler
from synthaug.training.run import MetricsLog, read_metrics, save_checkpoint

GENERATOR_MAY_CHANGE = (*MAY_CHANGE, "data.cache", "demo", "optimizer.steps", "optimizer.decay_from")
"""Keys that a continued run may have otherwise; so a run can be made longer than it was meant to be at first."""

# ---------------------------------------------------------------------------------------- batches and noise


def make_crops(config: Config, cases: list[Case], processes: int, prior: StylePrior | None = None) -> LesionCrops:
    """Crops of the cases, with a style prior that is given or fitted to them."""
    data = config.data
    classes, group = get_classes(data.classes), data.batch * processes
    return LesionCrops(
        cases, data.channels, classes, config.crops.options(), config.seed, group, data.cache, data.prior_cases, prior
    )


def batches(crops: LesionCrops, config: Config, first: int, rank: int, processes: int) -> DataLoader:
    """The batches of this process from step `first` on."""
    sampler = StepSampler(first, config.optimizer.steps, config.data.batch, rank, processes)
    return DataLoader(
        crops,
        config.data.batch,
        sampler=sampler,
        num_workers=config.data.workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would take a number from the global one
    )


def prepare(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on its device, with what both losses need."""
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    batch["lesion"] = batch["mask"].sum(1, keepdim=True)
    batch["real_lesion"] = batch["real_mask"].sum(1, keepdim=True)
    batch["context"] = batch["host"] * (1 - batch["lesion"])
    moved = batch["transplant"][:, None, None, None, None]
    batch["own"] = 1 - moved
    # a lesion in a strange place has strange surroundings, which the painter cannot help: there, look inside only
    batch["view"] = 1 - moved * (1 - batch["lesion"])
    batch["real_view"] = batch["real"] * (1 - moved * (1 - batch["real_lesion"]))
    return batch


def noise_of(painter: Painter, batch: Mapping[str, Tensor], seed: int) -> list[Tensor]:
    """Noise images, drawn on the CPU so that they do not depend on the device."""
    count, _, *size = batch["host"].shape
    generator = torch.Generator().manual_seed(seed)
    shapes = painter.noise_shapes(size)
    return [torch.randn((count, *s), generator=generator).to(batch["host"].device) for s in shapes]


# --------------------------------------------------------------------------------------------------- losses


def critic_loss(critic: PatchCritic, batch: Mapping[str, Tensor], fake: Tensor) -> Tensor:
    """Hinge of the critic on real and painted crops, judged together."""
    images = torch.cat((batch["real_view"], fake.detach()))
    masks = torch.cat((batch["real_mask"], batch["mask"]))
    logits, _ = critic(images, masks, batch["available"].repeat(2, 1))
    real, painted = zip(*(verdict.chunk(2) for verdict in logits), strict=True)
    return losses.critic_hinge(real, painted, batch["real_lesion"], batch["lesion"])


def painter_parts(
    critic: PatchCritic | None, batch: Mapping[str, Tensor], painted: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """Parts of the painter's loss; a comparison with the real crop only where the lesion is in its own place."""
    mask, available, own = batch["mask"], batch["available"], batch["own"]
    whole = batch["context"] + painted * batch["lesion"]
    parts = {
        "style": losses.style_loss(whole, mask, batch["style"], available),
        "band": losses.band_loss(whole, batch["real"], mask * own, available),
        "lowpass": losses.lowpass_l1(whole, batch["real"], batch["lesion"] * own),
        "halo": losses.masked_l1(painted, batch["host"], losses.shell(batch["lesion"])),
    }
    if critic is not None:
        logits, features = critic(fake, mask, available)
        with torch.no_grad():
            _, wanted = critic(batch["real_view"], batch["real_mask"], available)
        parts["adversarial"] = losses.painter_hinge(logits, batch["lesion"])
        parts["features"] = losses.feature_loss(features, wanted, mask * own)
    return parts


def weighted(parts: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    return sum(getattr(weights, name) * value for name, value in parts.items())


# ------------------------------------------------------------------------------------------------ the loop


def lr_factor(config: OptimizerConfig, step: int) -> float:
    """Share of the learning rates at a step: 1, then a line to 0.05 from `decay_from` of the training on."""
    start = config.decay_from * config.steps
    return 1.0 if step < start else 1 - 0.95 * (step - start) / max(1.0, config.steps - start)


def set_rates(
    optimizers: Sequence[torch.optim.Optimizer], networks: Sequence[NetworkConfig], config: OptimizerConfig, step: int
) -> None:
    """The learning rates of a step, each network's own."""
    for optimizer, options in zip(optimizers, networks, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * lr_factor(config, step)


def make_networks(config: Config) -> tuple[Painter, PatchCritic]:
    """Both networks; their convolutions are slow on CPUs without channels last."""
    set_seed(config.seed)  # the first weights
    channels, classes = len(config.data.channels), len(get_classes(config.data.classes))
    painter = Painter(channels, classes, config.painter.widths, config.painter.head, config.painter.hidden)
    critic = PatchCritic(channels, classes, config.critic.widths)
    return tuple(network.to(memory_format=torch.channels_last_3d) for network in (painter, critic))


def train(config: Config, out: Path) -> dict[str, Any]:
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
    window = Window(**own["window"]) if own else Window()
    ema.to(device)
    keeper = Keeper(config, out, accelerator, window, demo, first)
    facts = {"training_cases": len(cases), "validation_cases": len(held_out), "processes": processes}
    log_start(keeper.metrics, first, precision, facts)
    for step, batch in enumerate(batches(crops, config, first, rank, processes), start=first + 1):
        set_rates(optimizers, (config.painter, config.critic), config.optimizer, step)
        batch = prepare(batch, device)
        noise = noise_of(bare_painter, batch, (config.seed * 1_000_003 + step) * 4096 + rank)
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

        keeper.keep(step, partial(make_generator, config, crops, bare_painter, ema))
    accelerator.end_training()
    return read_metrics(out)[-1]


def announce(
    config: Config, accelerator: Accelerator, precision: Precision, cases: list[Case], held_out: list[Case]
) -> None:
    """Say, before anything is read, what the run will do."""
    accelerator.print(
        f"{config.optimizer.steps} steps on crops of {len(cases)} training cases; {len(held_out)} cases are for "
        f"validation; computing in {precision}",
        flush=True,
    )


class Keeper:
    """Keeps what a run is to leave behind: metrics, pictures of fixed samples, checkpoints, the generator.

    Args:
        config: of the run.
        out: its folder.
        accelerator: of the run.
        window: what the loop adds up for the next row of metrics.
        demo: samples of the pictures; the main process alone needs them.
        first: steps that were done before.
    """

    def __init__(
        self,
        config: Config,
        out: Path,
        accelerator: Accelerator,
        window: Window,
        demo: Mapping[str, Tensor] | None,
        first: int,
    ):
        self.config, self.out, self.accelerator, self.window, self.demo = config, out, accelerator, window, demo
        self.metrics = MetricsLog(out, accelerator, first)
        self.clock, self.clocked = time.perf_counter(), first

    def keep(self, step: int, make: Callable[[], StyledGenerator]) -> None:
        """Keep what is due after this step; `make` is called where the generator is needed as it now is."""
        config, out, main = self.config, self.out, self.accelerator.is_main_process
        last = step == config.optimizer.steps
        if step % config.log_every == 0 or last:
            seconds = (time.perf_counter() - self.clock) / (step - self.clocked)
            self.metrics.write({"step": step, "seconds_per_step": seconds} | self.window.close())
            self.clock, self.clocked = time.perf_counter(), step
        if main and (step % config.demo.every == 0 or last):
            save_picture(demo_picture(make().painter, self.demo, config.seed), out / "demos" / f"step_{step:08d}.png")
        if step % config.checkpoint_every == 0 or last:
            own = {"window": self.window.state_dict()}
            save_checkpoint(out, self.accelerator, step, config.keep_checkpoints, own)
            if main:
                save_generator(make(), out / "generator")


def demo_batch(config: Config, cases: Sequence[Case], prior: StylePrior, device: torch.device) -> dict[str, Tensor]:
    """The fixed samples of the pictures, of cases that are not trained on where there are any."""
    classes, count = get_classes(config.data.classes), config.demo.count
    options = config.demo.options()
    crops = LesionCrops(cases, config.data.channels, classes, options, config.seed, count, prior=prior)
    return prepare(default_collate([crops[i] for i in range(count)]), device)


def averaged(painter: Painter, ema: EMAModel) -> Painter:
    """A copy of the painter with the averaged weights."""
    painter = copy.deepcopy(painter)
    ema.copy_to(painter.parameters())
    return painter


def make_generator(config: Config, crops: LesionCrops, painter: Painter, ema: EMAModel) -> GANGenerator:
    channels, classes = config.data.channels, get_classes(config.data.classes).names
    return GANGenerator(averaged(painter, ema), crops.prior, channels, classes, crop_sizes=CROP_SIZES)


if __name__ == "__main__":
    typer.run(command(train, Config, "Train the GAN generator"))
