"""Validation in trainers/segmentation.py: scores of whole volumes, and the best of them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from synthaug.evaluation import evaluate_case
from synthaug.evaluation.components import components
from synthaug.evaluation.registry import followed_metrics
from synthaug.segmentation.inference import predict_probabilities
from synthaug.segmentation.postprocessing import to_label
from synthaug.training.artefacts import keep_components, keep_validation
from synthaug.training.patches import CachedVolume
from synthaug.training.segmentation_config import SegmentationConfig


def validate(
    network: nn.Module, volumes: list[CachedVolume], config: SegmentationConfig, device: torch.device, out: Path
) -> list[dict]:
    """Score whole volumes by `evaluate_case`, and keep slices of them for the report in the run's folder `out`.

    It knows of no insertion: there is none to switch off.
    """
    model, rows = config.model_spec, []
    targets = model.targets
    for volume in volumes:
        image = torch.from_numpy(np.array(volume.image, np.float32)).to(device)
        probabilities = predict_probabilities(network, image, targets, model.patch_size, config.inference)
        found = to_label(probabilities, image, targets, model.regions, volume.spacing_mm, model.cleaning)
        keep_validation(out, volume.name, image, volume.label, found, volume.spacing_mm)
        if config.validation.components and np.isfinite(volume.frame).all():
            regions = components(found, np.asarray(volume.label), volume.frame, volume.spacing_mm)
            keep_components(out, volume.name, {"case": volume.name, "group": volume.group, **regions})
        rows += evaluate_case(
            *(found, np.asarray(volume.label), targets.classes, volume.spacing_mm),
            case=volume.name,
            group=volume.group,
            regions=model.regions or False,
            surface=config.validation.surface,
            lesionwise=config.validation.lesionwise,
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the metrics that a log follows, of each region and class, over the cases that have them.

    Args:
        rows: rows of `validate`.

    Returns:
        ``dice`` and ``lesion_recall``, each with region to mean; and ``cases``, case to region to Dice.
    """
    whole = [row for row in rows if row["size"] == "all"]
    names = dict.fromkeys(row["region"] for row in whole)
    result: dict[str, Any] = {}
    for metric in (followed.name for followed in followed_metrics()):
        values = {n: [r[metric] for r in whole if r["region"] == n and r.get(metric) is not None] for n in names}
        result[metric] = {name: float(np.mean(v)) for name, v in values.items() if v}
    cases = dict.fromkeys(row["case"] for row in whole)
    result["cases"] = {case: {r["region"]: r["dice"] for r in whole if r["case"] == case} for case in cases}
    return {name: value for name, value in result.items() if value}


def score_of(validation: dict[str, Any], config: SegmentationConfig) -> float:
    """Take the score that early stopping and the plateau schedule watch: Dice of one output, or mean of the regions.

    Raises:
        RuntimeError: no validation case has what is watched.
    """
    on = () if config.early_stopping is None else (config.early_stopping.watch,)
    names = on or tuple(config.data.all_regions) or config.data.vocabulary.names
    values = [validation["dice"][name] for name in names if name in validation["dice"]]
    if not values:
        raise RuntimeError(f"validation: no case has a Dice of {', '.join(names)}, which is watched")
    return float(np.mean(values))


@dataclass
class Best:
    """Score and step of the best validation so far."""

    score: float = -math.inf
    step: int = 0
    validations_since: int = 0
    stopped: bool = False

    def see(self, score: float, step: int, patience: int, min_delta: float) -> bool:
        """Take in a validation; returns whether it is the best one."""
        better = score > self.score + min_delta
        if better:
            self.score, self.step, self.validations_since = score, step, 0
        else:
            self.validations_since += 1
        self.stopped = self.validations_since >= patience
        return better
