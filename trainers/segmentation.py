"""Train a tumour segmentation network, with synthetic tumours inserted into its training batches.

    synthaug train segmentation --config segmentation_tiny [--out runs/x] [key=value ...]
    accelerate launch --quiet trainers/segmentation.py --config configs/segmentation_tiny.yaml ...
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 trainers/segmentation.py ...  (several processes on CPUs)

Read from top to bottom: data, insertion, validation, the loop. The same command again continues a run that was
stopped, from its latest checkpoint. Patches and insertions are functions of seeds and of what the checkpoint holds: on
a CPU the weights become bit for bit those of a run that was never stopped. A run's folder gets config.yaml,
metrics.jsonl, validation.jsonl, tensorboard/, checkpoints/, report.html and model/: the averaged weights, those of the
best validation where early stopping watches, for ``synthaug predict RUN FOLDER --out OUT``.
"""

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object, set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from synthaug.data import Case
from synthaug.host.space import Space
from synthaug.precision import Precision
from synthaug.progress import numbered_steps
from synthaug.segmentation.augmentation import IntensityAugmentation, SpatialAugmentation, mixup
from synthaug.segmentation.losses import make_loss, output_weights
from synthaug.segmentation.model import save_model
from synthaug.segmentation.networks import named_tensors
from synthaug.segmentation.optim import make_optimizer, make_scheduler
from synthaug.segmentation.targets import Targets
from synthaug.training.artefacts import ROWS, record_rows
from synthaug.training.cache import cached_on_disk
from synthaug.training.carvemix import CarvedLesions
from synthaug.training.command import command
from synthaug.training.loop import MetricsWindow, log_start, resume, start
from synthaug.training.patches import CachedVolume, PatchBatch, PatchSampler, cache_case
from synthaug.training.report import write_run_report
from synthaug.training.run import MetricsLog, read_metrics, save_checkpoint
from synthaug.training.run_config import MAY_CHANGE
from synthaug.training.seen import seen_patients
from synthaug.training.segmentation_config import PatchDataConfig, SegmentationConfig, open_split, open_tumour_free
from synthaug.training.segmentation_insertion import Inserter, make_insertion
from synthaug.training.segmentation_validation import Best, score_of, summary, validate

# ---------------------------------------------------------------------------------------------------- data


def cached(cases: list[Case], config: PatchDataConfig, tumour_free: bool = False) -> list[CachedVolume]:
    options = (config.channels, config.vocabulary, config.dtype, config.spacing_mm)
    if config.cache is None:
        return [cache_case(case, *options, tumour_free, config.space) for case in cases]
    return [cached_on_disk(case, *options, config.cache, tumour_free, config.space) for case in cases]


def batches(
    volumes: list[CachedVolume],
    free: list[CachedVolume],
    config: SegmentationConfig,
    first: int,
    rank: int,
    processes: int,
) -> Iterable[PatchBatch]:
    """Load the batches of this process from step `first` on; item n of the sampler is a whole batch."""
    data, times = config.data, config.optimizer.accumulate
    augment, carved = None, None
    if config.augmentation is not None:
        augment = SpatialAugmentation(config.augmentation, data.patch_size)
        carved = CarvedLesions(volumes, config.augmentation.carvemix) if config.augmentation.carvemix else None
    sampler = PatchSampler(
        *(volumes, data.patch_size, data.batch, data.lesion_share),
        seed=config.seed,
        rank=rank,
        processes=processes,
        augment=augment,
        carved=carved,
        free=free,
        free_share=0.0 if data.tumour_free is None else data.tumour_free.share,
        class_balanced=data.class_balanced,
    )
    return DataLoader(
        sampler,
        batch_size=None,
        sampler=range(first * times, config.optimizer.steps * times),
        num_workers=data.workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would take a number from the global one
    )


def grouped(items: Iterable, size: int) -> Iterator[list]:
    """Group items into lists of `size`."""
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group


def voxels_of(targets: Targets, volumes: list[CachedVolume]) -> Tensor:
    """Count the voxels of each output in the volumes, (K,)."""
    counts = [targets.encode(torch.from_numpy(np.array(v.label[None, None]))).sum((0, 2, 3, 4)) for v in volumes]
    return sum(counts[1:], counts[0])


# ------------------------------------------------------------------------------------------------ the loop


@dataclass
class Learner:
    """The network, prepared and bare (without the wrapper for several processes), its loss, optimiser and average."""

    config: SegmentationConfig
    accelerator: Accelerator
    targets: Targets
    network: nn.Module
    bare: nn.Module
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    ema: EMAModel
    intensities: IntensityAugmentation | None

    @classmethod
    def of(cls, config: SegmentationConfig, accelerator: Accelerator, volumes: list[CachedVolume]) -> "Learner":
        """Make the learner before its first step; `volumes` tell how frequent the classes are."""
        set_seed(config.seed)  # the first weights
        targets = config.model_spec.targets
        network = config.model_spec.make_network()
        optimizer = make_optimizer(config.optimizer, network)
        scheduler = make_scheduler(config.optimizer, optimizer)
        network, optimizer, scheduler = accelerator.prepare(network, optimizer, scheduler)
        bare = accelerator.unwrap_model(network)
        ema = EMAModel(bare.parameters(), decay=config.optimizer.ema)
        accelerator.register_for_checkpointing(ema)
        voxels = voxels_of(targets, volumes) if config.loss.class_weights == "balanced" else None
        weights = output_weights(config.loss.class_weights, targets, voxels)
        criterion = make_loss(config.loss, targets, weights).to(accelerator.device)
        intensities = None
        if config.augmentation is not None:
            intensities = IntensityAugmentation(config.augmentation, config.data.space == Space())
        return cls(config, accelerator, targets, network, bare, criterion, optimizer, scheduler, ema, intensities)

    def update(self, step: int, parts: list[PatchBatch], inserter: Inserter) -> tuple[float, float]:
        """Update from the gradients of several batches; returns loss and gradient norm, not finite if skipped."""
        self.optimizer.zero_grad()
        total = 0.0
        for number, batch in enumerate(parts):
            image, label = inserter(step, batch)
            target = self.targets.encode(label)
            if self.intensities is not None:
                image = self.intensities(image, batch.seeds)
            if self.config.augmentation is not None and self.config.augmentation.mixup is not None:
                seed = (self.config.seed, step, number, self.accelerator.process_index)
                image, target = mixup(image, target, self.config.augmentation.mixup, seed)
            alone = number < len(parts) - 1  # gradients meet those of other processes after the last batch
            with self.accelerator.no_sync(self.network) if alone else nullcontext():
                loss = self.criterion(self.network(image), target) / len(parts)
                self.accelerator.backward(loss)
            total += loss.item()
        norm = float(self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip))
        # bf16 overflows now and then; the gradient is that of all processes, so that all skip the same steps
        if math.isfinite(norm):
            self.optimizer.step()
            self.ema.step(self.bare.parameters())
        if self.config.optimizer.schedule != "plateau":
            self.scheduler.step()
        return total, norm

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the bare network its averaged weights within the block."""
        self.ema.store(self.bare.parameters())
        self.ema.copy_to(self.bare.parameters())
        try:
            yield self.bare
        finally:
            self.ema.restore(self.bare.parameters())

    def save(self, out: Path) -> None:
        """Save the averaged weights as a model folder."""
        if self.accelerator.is_main_process:
            with self.averaged() as network:
                save_model(out / "model", self.config.model_spec, named_tensors(network))


FREE = (*MAY_CHANGE, "data.cache", "examples", "report", "validation.components")
"""Keys that a continued run may have otherwise than the run it continues."""


def train(config: SegmentationConfig, out: Path) -> dict[str, Any]:
    """Train, or go on training, in the folder `out`; returns the last row of metrics.

    Raises:
        ConfigError: a configuration, bank or split that does not fit, or `out` holds a run of another configuration.
        CaseError: a case that cannot be read.
        RuntimeError: gradients that stay not finite.
    """
    ddp = DistributedDataParallelKwargs(find_unused_parameters=config.network.has_unused_parameters)
    steps = config.optimizer.steps
    accelerator, precision = start(config, out, steps, FREE, step_scheduler_with_optimizer=False, kwargs_handlers=[ddp])
    rank, processes = accelerator.process_index, accelerator.num_processes
    train_cases, validation_cases = open_split(config.data, out, accelerator)
    free_cases = open_tumour_free(config.data, validation_cases)
    inserter = Inserter(
        config, make_insertion(config, train_cases, validation_cases, rank, accelerator.device), accelerator, out
    )
    announce(config, inserter, accelerator, precision, train_cases, validation_cases)
    volumes, free = cached(train_cases, config.data), cached(free_cases, config.data, tumour_free=True)
    held_out = cached(validation_cases[rank::processes], config.data)
    learner = Learner.of(config, accelerator, volumes)

    first, own = resume(out, accelerator)
    learner.ema.to(accelerator.device)
    window, best = (MetricsWindow(**own["window"]), Best(**own["best"])) if own else (MetricsWindow(), Best())
    if own:
        inserter.load_state_dict(own["insertion"])
    inserter.begin()
    log = MetricsLog(out, accelerator, first)
    if first == 0:
        (out / ROWS).unlink(missing_ok=True)
    log_start(log, first, precision, facts_of(config, inserter, processes, train_cases, validation_cases))

    left = grouped(batches(volumes, free, config, first, rank, processes), config.optimizer.accumulate)
    clock, clocked = time.perf_counter(), first
    learner.network.train()
    for step, parts in numbered_steps(() if best.stopped else left, first, steps, told=rank == 0):
        lr = learner.scheduler.get_last_lr()[0]
        loss, norm = learner.update(step, parts, inserter)
        window.add({"loss": loss, "grad_norm": norm}, math.isfinite(norm))

        row: dict[str, Any] = {"step": step}
        seconds = (time.perf_counter() - clock) / (step - clocked)
        if step % config.validation.every == 0 or step == steps:
            row |= validated(learner, held_out, inserter, best, step, out)
        last = step == steps or best.stopped
        if step % config.log_every == 0 or last:
            row |= {"lr": lr, "seconds_per_step": seconds} | mean_of_all(window.close()) | inserter.counts(seconds)
        if len(row) > 1:
            log.write(row)
            clock, clocked = time.perf_counter(), step
        if step % config.checkpoint_every == 0 or last:
            own = {"window": window.state_dict(), "best": asdict(best), "insertion": inserter.state_dict()}
            save_checkpoint(out, accelerator, step, config.keep_checkpoints, own)
        if last:
            break
    finish(learner, out)
    return read_metrics(out)[-1]


def validated(
    learner: Learner, held_out: list[CachedVolume], inserter: Inserter, best: Best, step: int, out: Path
) -> dict[str, Any]:
    """Validate, and act on the scores: adaptive insertion, the plateau schedule, the best model."""
    config = learner.config
    with learner.averaged() as network:
        rows = gather_object(validate(network, held_out, config, learner.accelerator.device, out))
    if learner.accelerator.is_main_process:
        record_rows(out, step, rows)
    row = {"validation": summary(rows)} | inserter.follow(rows)
    if config.optimizer.schedule == "plateau":
        learner.scheduler.step(score_of(row["validation"], config))
    if (stopping := config.early_stopping) is not None:
        if best.see(score_of(row["validation"], config), step, stopping.patience, stopping.min_delta):
            learner.save(out)
        row["best"] = asdict(best)
    return row


def mean_of_all(row: dict[str, Any]) -> dict[str, Any]:
    """Average the loss of a row over the processes."""
    losses = gather_object([row["loss"]]) if "loss" in row else []
    return row | ({"loss": float(np.mean(losses))} if losses else {})


def samples_of(config: SegmentationConfig, processes: int) -> int:
    """Count the patches that a run trains on."""
    return config.optimizer.steps * config.optimizer.accumulate * config.data.batch * processes


def announce(
    config: SegmentationConfig,
    inserter: Inserter,
    accelerator: Accelerator,
    precision: Precision,
    train_cases: list[Case],
    validation_cases: list[Case],
) -> None:
    """Print, before anything is read, steps, cases, insertions and precision of the run."""
    samples = samples_of(config, accelerator.num_processes)
    accelerator.print(
        f"{samples} patches of {len(train_cases)} training cases; {len(validation_cases)} cases are for validation, "
        f"where nothing is ever inserted; {inserter.announcement(samples)}; computing in {precision}",
        flush=True,
    )
    if inserter.insert is None or inserter.options is None or not accelerator.is_main_process:
        return
    if seen := seen_patients(inserter.options.generator, inserter.insert.lesions, validation_cases):
        print(
            f"warning: what is inserted was learned from {', '.join(seen)} too, who are in validation: their scores "
            "flatter the insertion",
            flush=True,
        )


def facts_of(
    config: SegmentationConfig,
    inserter: Inserter,
    processes: int,
    train_cases: list[Case],
    validation_cases: list[Case],
) -> dict[str, Any]:
    """Collect the facts of a run for its log; insertions are an expectation, for they are drawn sample by sample."""
    samples = samples_of(config, processes)
    return {
        "samples": samples,
        "expected_insertions": inserter.expected(samples),
        "training_cases": len(train_cases),
        "validation_cases": len(validation_cases),
        "processes": processes,
    }


def finish(learner: Learner, out: Path) -> None:
    """Save the model, where early stopping kept no better one, and write the report where it is wanted."""
    if learner.config.early_stopping is None:
        learner.save(out)
    if learner.accelerator.is_main_process and learner.config.report:
        write_run_report(out)
    learner.accelerator.end_training()


if __name__ == "__main__":
    typer.run(command(train, SegmentationConfig, "Train a tumour segmentation network"))
