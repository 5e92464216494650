"""Optimisers and learning rate schedules by name."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from synthaug.config import Section


class OptimizerConfig(Section):
    """Steps, learning rate and its schedule, decay, clipping and averaging.

    Attributes:
        steps: updates of the weights.
        accumulate: batches whose gradients make one update.
        name: adam, adamw, or sgd with Nesterov momentum.
        lr: learning rate at its height.
        schedule: poly, (1 - t)^0.9 as nnU-Net's; cosine; constant; or plateau, which multiplies by `factor` after more
            than `patience` validations without a rise of the score that early stopping watches (else the mean Dice).
        warmup_steps: linear, for all but plateau.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are validated and saved; 0 takes the weights as they are.
        momentum: of sgd.
        weight_decay: of the weights, decoupled in adamw.
        factor: by which the plateau schedule multiplies.
        patience: of the plateau schedule, in validations.
    """

    steps: PositiveInt
    accumulate: PositiveInt = 1
    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["poly", "cosine", "constant", "plateau"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 3
    clip: PositiveFloat = 12.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99

    @model_validator(mode="after")
    def _plateau(self):
        if self.schedule == "plateau" and self.warmup_steps:
            raise ValueError("warmup_steps: the plateau schedule has none, expected 0")
        return self


def make_optimizer(config: OptimizerConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Make the optimiser of a network's parameters."""
    parameters = network.parameters()
    if config.name == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(
            parameters, config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=nesterov
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(parameters, config.lr, weight_decay=config.weight_decay)


def make_scheduler(config: OptimizerConfig, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Make the schedule, to be stepped after every update; plateau with each validation score instead."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=config.factor, patience=config.patience)
    return LambdaLR(optimizer, lambda step: lr_factor(config, step))


def lr_factor(config: OptimizerConfig, step: int) -> float:
    """Compute the share of the learning rate after `step` updates, all schedules but plateau."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    t = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return {"poly": (1 - t) ** 0.9, "cosine": 0.5 * (1 + math.cos(math.pi * t)), "constant": 1.0}[config.schedule]
