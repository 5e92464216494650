"""Segmentation losses by name: sums of a few terms, MONAI's where it has them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import torch
from monai.losses import (
    BoundaryLoss,
    DeepSupervisionLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    LogHausdorffDTLoss,
    TverskyLoss,
)
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from synthaug.config import Section
from synthaug.segmentation.targets import Targets

Weight = Annotated[float, Field(ge=0)]
LossName = Literal[
    "dice",
    "generalised_dice",
    "ce",
    "dice_ce",
    "dice_focal",
    "tversky",
    "focal_tversky",
    "hausdorff",
    "boundary",
]

TERMS: dict[LossName, tuple[str, ...]] = {
    "dice": ("dice",),
    "generalised_dice": ("generalised_dice",),
    "ce": ("ce",),
    "dice_ce": ("dice", "ce"),
    "dice_focal": ("dice", "focal"),
    "tversky": ("tversky",),
    "focal_tversky": ("focal_tversky",),
    "hausdorff": ("dice", "hausdorff"),
    "boundary": ("dice", "boundary"),
}
"""Terms of each loss."""


class LossConfig(Section):
    """Name, targets and weights of the loss; distance losses work on the CPU in every step and are slow.

    Attributes:
        name: one of `TERMS`; ``ce`` with `class_weights` is the weighted cross-entropy.
        targets: classes (softmax) or regions (sigmoid).
        weights: weight of each term, 1 where not given.
        class_weights: weights of the outputs in cross-entropy, by name, 1 where not named; or ``"balanced"``: median
            voxel frequency over frequency in the training volumes (Eigen & Fergus 2015).
        batch_dice: Dice over the whole batch of a process rather than per sample. Two processes then differ from one
            with the doubled batch.
        alpha: weight of false positives in Tversky.
        beta: weight of false negatives there.
        gamma: focal exponent; 2 for focal, 4/3 for focal Tversky where not given.
    """

    name: LossName = "dice_ce"
    targets: Literal["classes", "regions"] = "classes"
    weights: tuple[Weight, ...] | None = None
    class_weights: dict[str, Weight] | Literal["balanced"] | None = None
    batch_dice: bool = True
    alpha: Weight = 0.3
    beta: Weight = 0.7
    gamma: PositiveFloat | None = None

    @model_validator(mode="after")
    def _fits(self):
        terms = TERMS[self.name]
        if self.weights is not None and len(self.weights) != len(terms):
            raise ValueError(f"weights: expected one for each of {', '.join(terms)}, got {list(self.weights)}")
        if self.class_weights is not None and "ce" not in terms:
            raise ValueError(f"class_weights: {self.name} has no cross-entropy; use ce or dice_ce")
        return self


class FocalTverskyLoss(nn.Module):
    """Focal Tversky loss, (1 - TI)^(1 / gamma) per sample and class, TI the index (Abraham & Khan 2018, eq. 4)."""

    def __init__(self, gamma: float, **options: Any):
        super().__init__()
        self.gamma, self.tversky = gamma, TverskyLoss(reduction="none", **options)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss, a scalar; MONAI's Tversky loss is 1 - TI."""
        return self.tversky(logits, target).clamp_min(1e-6).pow(1 / self.gamma).mean()


class SumLoss(nn.Module):
    """Weighted sum of losses of logits and one-hot (or soft) targets, both (B, K, X, Y, Z)."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]):
        super().__init__()
        self.losses, self.weights = nn.ModuleList(losses), tuple(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the sum, a scalar."""
        return sum(w * loss(logits, target) for w, loss in zip(self.weights, self.losses, strict=True))


def make_loss(config: LossConfig, targets: Targets, class_weights: Tensor | None = None) -> DeepSupervisionLoss:
    """Make the loss of a list of heads, halved from head to head, against the encoded targets.

    Args:
        config: name and options of the loss.
        targets: outputs of the network.
        class_weights: (K,) for cross-entropy, of `output_weights`.
    """
    made = [_term(name, config, targets, class_weights) for name in TERMS[config.name]]
    whole = SumLoss(made, config.weights or [1.0] * len(made))
    return DeepSupervisionLoss(whole)  # type: ignore[arg-type]  # MONAI asks for torch's private _Loss, and calls it


class _Activation(TypedDict):
    """Arguments of MONAI's losses: which function gives probabilities, and whether background counts."""

    softmax: bool
    sigmoid: bool
    include_background: bool


def _term(name: str, config: LossConfig, targets: Targets, class_weights: Tensor | None) -> nn.Module:
    softmax, batch = targets.exclusive, config.batch_dice
    act: _Activation = {"softmax": softmax, "sigmoid": not softmax, "include_background": not softmax}
    match name:  # soft labels: for mixup; the same for hard labels
        case "dice":
            return DiceLoss(batch=batch, soft_label=True, **act)
        case "generalised_dice":
            return GeneralizedDiceLoss(batch=batch, soft_label=True, **act)
        case "focal":
            return FocalLoss(include_background=True, gamma=config.gamma or 2.0, use_softmax=softmax)
        case "tversky":
            return TverskyLoss(alpha=config.alpha, beta=config.beta, batch=batch, **act)
        case "focal_tversky":
            return FocalTverskyLoss(config.gamma or 4 / 3, alpha=config.alpha, beta=config.beta, batch=batch, **act)
        case "hausdorff":
            return LogHausdorffDTLoss(**act)
        case "boundary":
            return BoundaryLoss(**act)
    if softmax:
        return nn.CrossEntropyLoss(class_weights)
    weight = None if class_weights is None else class_weights[:, None, None, None]
    return nn.BCEWithLogitsLoss(pos_weight=weight)


def output_weights(
    chosen: Mapping[str, float] | Literal["balanced"] | None, targets: Targets, voxels: Tensor | None = None
) -> Tensor | None:
    """Work out the (K,) cross-entropy weights of the outputs; for regions, of their inside.

    Args:
        chosen: name to weight, ``"balanced"``, or None.
        targets: outputs of the network.
        voxels: (K,) training voxels of each output, for ``"balanced"``.

    Raises:
        ValueError: a name that is no output; ``"balanced"`` without `voxels`.
    """
    if chosen is None:
        return None
    if not isinstance(chosen, Mapping):
        if voxels is None:
            raise ValueError("class_weights: balanced is worked out from the voxels of each output, got none")
        share = voxels.double() / voxels.sum()
        present = share[share > 0]
        return torch.where(share > 0, present.median() / share.clamp_min(1e-12), 1.0).float()
    if unknown := sorted({*chosen} - {*targets.names}):
        raise ValueError(f"class_weights: {', '.join(unknown)} is no output; they are {', '.join(targets.names)}")
    return torch.tensor([float(chosen.get(name, 1.0)) for name in targets.names])
