"""Train a tumour segmentation network, with synthetic tumours inserted into its training batches.

    accelerate launch trainers/segmentation.py --config configs/segmentation_tiny.yaml [--out runs/x] [key=value ...]
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 trainers/segmentation.py ...  (several processes on CPUs)

Read from top to bottom: data and insertion, network, validation, the loop. The same command again continues a run
that was stopped, from its latest checkpoint. Patches and insertions are functions of (seed, step, rank) and of what
the checkpoint holds: on a CPU the weights become bit for bit those of a run that was never stopped. A run's folder
gets config.yaml, metrics.jsonl, tensorboard/, checkpoints/ and, at the end, weights.safetensors: the averaged weights,
which segmentation_network.load_network reads.
"""

import math
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from common import Window, command, open_cases, resume, start
from diffusers.training_utils import EMAModel
from monai.inferers import sliding_window_inference
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import DynUNet
from safetensors.torch import save_file
from segmentation_config import Config, DataConfig, OptimizerConfig
from segmentation_network import make_network, named_tensors
from torch.utils.data import DataLoader

from synthaug import LesionBank, LesionShapes, TumorInsertion, get_classes
from synthaug.config import ConfigError
from synthaug.data import Case
from synthaug.data.patches import CachedVolume, PatchSampler, cache_case
from synthaug.runs import MetricsLog, read_metrics, save_checkpoint

# ------------------------------------------------------------------------------------- data and insertion


def cached(cases: list[Case], config: DataConfig) -> list[CachedVolume]:
    return [cache_case(case, config.channels, get_classes(config.classes), config.dtype) for case in cases]


def batches(volumes: list[CachedVolume], first: int, rank: int, config: Config) -> DataLoader:
    """The batches of this process from step `first` on; item n of the sampler is the whole batch of step n."""
    data = config.data
    sampler = PatchSampler(volumes, data.patch_size, data.batch, data.lesion_share, seed=config.seed, rank=rank)
    return DataLoader(
        sampler,
        batch_size=None,
        sampler=range(first, config.optimizer.steps),
        num_workers=data.workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would take a number from the global one
    )


def make_insertion(config: Config, train: list[Case], validation: list[Case], rank: int) -> TumorInsertion | None:
    """The insertion of this process, or None where it is off. Donors are training cases and nobody else."""
    options = config.insertion
    if options is None:
        return None
    classes, channels = get_classes(config.data.classes), config.data.channels
    try:
        if options.lesions == "shapes":
            lesions = LesionShapes(classes=classes)
        elif options.bank is not None:
            lesions = LesionBank.load(options.bank)
            refuse_validation_donors(options.bank, lesions, validation)
        else:
            lesions = LesionBank.from_cases(train, classes, channels)
        arguments = options.model_dump(exclude={"lesions", "bank"}, exclude_none=True)
        return TumorInsertion(lesions, classes=classes, channels=channels, rank=rank, **arguments)
    except (ValueError, OSError) as error:
        raise ConfigError(f"insertion: {error}") from error


def refuse_validation_donors(path: Path, bank: LesionBank, validation: list[Case]) -> None:
    leaks = [case for case in validation if case.group in bank.groups]
    if leaks:
        raise ValueError(
            f"the bank {path} holds lesions of the patients {', '.join(sorted({c.group for c in leaks}))}, who are in "
            f"validation (cases {', '.join(c.name for c in leaks)}): donors must be training cases"
        )


def counts_of_all(insert: TumorInsertion | None) -> dict[str, Any]:
    """Insertion counts since the start, summed over the processes; nothing where insertion is off."""
    if insert is None:
        return {}
    reports = gather_object([insert.report().to_dict()])
    total = {key: sum(report[key] for report in reports) for key in ("samples", "asked", "done")}
    for key in ("refused", "voxels"):
        names = sorted({name for report in reports for name in report[key]})
        total[key] = {name: sum(report[key].get(name, 0) for report in reports) for name in names}
    return {"insertion": total}


def mean_of_all(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its loss averaged over the processes."""
    losses = gather_object([row["loss"]]) if "loss" in row else []
    return row | ({"loss": float(np.mean(losses))} if losses else {})


# ------------------------------------------------------------------------------- optimiser and learning rate


def make_optimizer(config: OptimizerConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    if config.name == "adamw":
        return torch.optim.AdamW(network.parameters(), config.lr, weight_decay=config.weight_decay)
    nesterov = config.momentum > 0
    return torch.optim.SGD(
        network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=nesterov
    )


def lr_factor(config: OptimizerConfig, step: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a half cosine or nnU-Net's (1 - t)^0.9."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    t = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return (1 - t) ** 0.9 if config.schedule == "poly" else 0.5 * (1 + math.cos(math.pi * t))


def class_index(config: Config, device: torch.device) -> torch.Tensor:
    """Table from label values to network outputs: background 0, then the classes in order."""
    values = get_classes(config.data.classes).values.values()
    table = torch.zeros(max(values) + 1, dtype=torch.int64)
    table[list(values)] = torch.arange(1, len(values) + 1)
    return table.to(device)


# ---------------------------------------------------------------------------------------------- validation


@torch.no_grad()
def validate(
    network: DynUNet, volumes: list[CachedVolume], config: Config, device: torch.device
) -> list[dict[str, Any]]:
    """Dice of each region in each whole volume, by sliding windows. It knows of no insertion: none to switch off."""
    classes, table = get_classes(config.data.classes), class_index(config, device)
    regions = {name: [1 + classes.index(c) for c in members] for name, members in config.validation.regions.items()}
    # as BraTS scores it: a region that is absent from the truth gives 1 where it is not predicted either, else 0
    dice = DiceMetric(reduction="none", ignore_empty=False)
    training, rows = network.training, []
    network.eval()
    for volume in volumes:
        image = torch.from_numpy(volume.image)[None].to(device, torch.float32)
        scores = sliding_window_inference(
            image,
            config.data.patch_size,
            config.validation.windows,
            lambda window: network(window.contiguous(memory_format=torch.channels_last_3d)),
            overlap=config.validation.overlap,
            mode="gaussian",
        )
        found, truth = scores.argmax(1), table[torch.from_numpy(volume.label).to(device, torch.int64)][None]
        masks = [
            torch.stack([torch.isin(x, torch.tensor(r, device=device)) for r in regions.values()], 1)
            for x in (found, truth)
        ]
        values = dice(y_pred=masks[0].float(), y=masks[1].float())[0].tolist()
        rows.append({"case": volume.name} | dict(zip(regions, values, strict=True)))
    network.train(training)
    return rows


def summary(rows: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """Mean over the cases, and each case."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in config.validation.regions}
    return {"dice": means, "cases": {row["case"]: {name: row[name] for name in means} for row in rows}}


@contextmanager
def averaged(network: DynUNet, ema: EMAModel):
    """Within it the network has its averaged weights."""
    ema.store(network.parameters())
    ema.copy_to(network.parameters())
    try:
        yield
    finally:
        ema.restore(network.parameters())


# ------------------------------------------------------------------------------------------------ the loop


def train(config: Config, out: Path) -> dict[str, Any]:
    """Train, or go on training, in the folder `out`; returns the last row of metrics.

    Raises:
        ConfigError: a configuration, bank or split that does not fit, or `out` holds a run of another configuration.
        CaseError: a case that cannot be read.
        RuntimeError: gradients that stay not finite.
    """
    accelerator = start(config, out, step_scheduler_with_optimizer=False)
    device, rank, steps = accelerator.device, accelerator.process_index, config.optimizer.steps
    train_cases, validation_cases = open_cases(config.data, out, accelerator)
    volumes = cached(train_cases, config.data)
    held_out = cached(validation_cases[rank :: accelerator.num_processes], config.data)
    insert = make_insertion(config, train_cases, validation_cases, rank)

    network, bare, optimizer, scheduler, ema = make_learner(config, accelerator)
    criterion = DeepSupervisionLoss(DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True))
    first, own = resume(out, accelerator)
    window = Window(**own["window"]) if own else Window()
    ema.to(device)
    if own and insert is not None:
        insert.load_state_dict(own["insertion"])
    metrics = MetricsLog(out, accelerator, first)
    if first == 0:
        metrics.write(first_row(config, insert, accelerator.num_processes, train_cases, validation_cases))

    table, clock, clocked = class_index(config, device), time.perf_counter(), first
    network.train()
    for step, batch in enumerate(batches(volumes, first, rank, config), start=first + 1):
        image, label = batch.image.to(device, non_blocking=True), batch.label.to(device, non_blocking=True)
        if insert is not None:
            stats = (batch.host_mean, batch.host_std)
            image, label = insert(image, label, batch.spacing_mm, groups=batch.groups, host_stats=stats)
        output = network(image.contiguous(memory_format=torch.channels_last_3d))
        heads = output.unbind(1) if config.network.deep_supervision else (output,)
        loss = criterion(heads, table[label.long()])
        optimizer.zero_grad()
        accelerator.backward(loss)
        norm = float(accelerator.clip_grad_norm_(network.parameters(), config.optimizer.clip))
        lr = scheduler.get_last_lr()[0]
        # bf16 overflows now and then; the gradient is that of all processes, so that all skip the same steps
        finite = math.isfinite(norm)
        if finite:
            optimizer.step()
            ema.step(bare.parameters())
        scheduler.step()
        window.add({"loss": loss, "grad_norm": norm}, finite)

        row: dict[str, Any] = {"step": step}
        if step % config.log_every == 0 or step == steps:
            row |= {"lr": lr, "seconds_per_step": (time.perf_counter() - clock) / (step - clocked)}
            row |= mean_of_all(window.close()) | counts_of_all(insert)
        if step % config.validation.every == 0 or step == steps:
            with averaged(bare, ema):
                row["validation"] = summary(gather_object(validate(bare, held_out, config, device)), config)
        if len(row) > 1:
            metrics.write(row)
            clock, clocked = time.perf_counter(), step
        if step % config.checkpoint_every == 0 or step == steps:
            own = {"window": window.state_dict(), "insertion": None if insert is None else insert.state_dict()}
            save_checkpoint(out, accelerator, step, config.keep_checkpoints, own)
    finish(out, accelerator, bare, ema)
    return read_metrics(out)[-1]


def make_learner(config: Config, accelerator: Accelerator):
    """The network as prepared and bare (without the wrapper for several processes), and what changes its weights."""
    set_seed(config.seed)  # the first weights
    network = make_network(config)
    optimizer = make_optimizer(config.optimizer, network)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(config.optimizer, step))
    network, optimizer, scheduler = accelerator.prepare(network, optimizer, scheduler)
    bare = accelerator.unwrap_model(network)
    ema = EMAModel(bare.parameters(), decay=config.optimizer.ema)
    accelerator.register_for_checkpointing(ema)
    return network, bare, optimizer, scheduler, ema


def first_row(
    config: Config, insert: TumorInsertion | None, processes: int, train_cases: list[Case], validation_cases: list[Case]
) -> dict[str, Any]:
    """What the run will do; its insertions are an expectation, for they are drawn sample by sample."""
    samples = config.optimizer.steps * config.data.batch * processes
    return {
        "step": 0,
        "samples": samples,
        "expected_insertions": 0.0 if insert is None else insert.expected(samples),
        "training_cases": len(train_cases),
        "validation_cases": len(validation_cases),
        "processes": processes,
    }


def finish(out: Path, accelerator: Accelerator, network: DynUNet, ema: EMAModel) -> None:
    """Write the averaged weights, beside their place and renamed."""
    if accelerator.is_main_process:
        beside = out / ".weights.safetensors.unfinished"
        ema.copy_to(network.parameters())
        save_file({name: t.detach().contiguous() for name, t in named_tensors(network).items()}, beside)
        beside.replace(out / "weights.safetensors")
    accelerator.end_training()


if __name__ == "__main__":
    typer.run(command(train, Config, "Train a tumour segmentation network"))
