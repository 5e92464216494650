"""The quality gate: compares an inserted lesion with the bank's, and asks whether a segmenter finds it.

Three measures, each in its own unit and each with a limit of its own:

- deviation: mean and spread of every class in every channel, as z-scores of host tissue, against the same numbers of
  the bank's lesions, in standard deviations between these.
- border jump: the mean difference of neighbours across the lesion's border, against the median of the bank's lesions.
- agreement: Dice of the lesion and what a segmenter marks around it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.cohort.config import GateConfig
from synthaug.cohort.hosts import Host
from synthaug.config import ConfigError
from synthaug.geometry import bounding_box, padded_to_multiple
from synthaug.host import to_model
from synthaug.host.units import within
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.base import LesionSource

MIN_VOXELS = 27
LEAST_SPREAD = {"mean": 0.25, "log_std": 0.25}
"""Floors of the bank's own spread, so that a bank of a few similar lesions does not refuse all others."""

WINDOW_MARGIN, WINDOW_STEP = 16, 32

Segmenter = Callable[[Tensor], Tensor]


class Gate:
    """Measures inserted lesions, and refuses those beyond a limit.

    Args:
        config: limits of the measures.
        lesions: source of the lesions; a bank, where deviation or border jump is looked at.
        classes: vocabulary of the labels.
        channels: canonical names of the images' channels.
        limits: lowest and highest model intensity of each channel, where units are fixed.
        segmenter: takes z-scores of host tissue, (1, C, X, Y, Z) float32 with 0 outside the tissue, and gives logits
            (1, 1 + K, X, Y, Z), background first; sides are multiples of 32.

    Raises:
        ConfigError: a limit without what it needs: a bank with these channels, or a segmenter.
    """

    def __init__(
        self,
        config: GateConfig,
        lesions: LesionSource,
        classes: Classes,
        channels: tuple[str, ...],
        segmenter: Segmenter | None = None,
        limits: Sequence[tuple[float, float]] | None = None,
    ):
        self.limits = limits
        self.config, self.classes, self.segmenter = config, classes, segmenter
        compares = config.deviation is not None or config.border_jump is not None
        bank = lesions if isinstance(lesions, LesionBank) else None
        if compares and bank is None:
            raise ConfigError(
                "gate: deviation and border_jump compare with a bank's lesions, expected lesions.bank; "
                "gate.deviation=null gate.border_jump=null leaves them out"
            )
        if (config.agreement is None) != (segmenter is None):
            raise ConfigError("gate: agreement and segmenter go together, expected both or none of them")
        if compares and bank is not None:
            self._learn(bank, channels)

    def _learn(self, bank: LesionBank, channels: tuple[str, ...]) -> None:
        if missing := [c for c in channels if c not in bank.channels]:
            raise ConfigError(f"gate: the bank has the channels {', '.join(bank.channels)}; lacks {', '.join(missing)}")
        columns = [bank.channels.index(c) for c in channels]
        names = [self.classes.canonical(n) for n in bank.classes]
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.classes.names}
        for lesion in bank:
            mean, std = (t.numpy() for t in bank.class_statistics(lesion.name, columns))
            for k, name in enumerate(names):
                if lesion.voxels[k] >= MIN_VOXELS:
                    found[name].append(np.concatenate([mean[k], np.log(np.maximum(std[k], 1e-3))]))
        floor = np.repeat([LEAST_SPREAD["mean"], LEAST_SPREAD["log_std"]], len(channels))
        self._bank = {
            name: (np.median(rows, 0), np.maximum(np.std(rows, 0), floor)) for name, rows in found.items() if rows
        }
        self._bank_jump = max(float(np.median(border_jumps(bank, channels))), 1e-3)

    def look(self, host: Host, image: Tensor, label: Tensor, lesion: Tensor) -> tuple[dict[str, Any], str | None]:
        """Measure a lesion.

        Args:
            host: the host it was put into.
            image: (C, x, y, z), the host's box with the lesion.
            label: (x, y, z), the box's label with the lesion.
            lesion: (x, y, z) bool, its voxels.

        Returns:
            The measures, and the reason for which it is refused, or None.
        """
        box = bounding_box(lesion.cpu().numpy(), (WINDOW_MARGIN,) * 3)
        mean, std = (torch.tensor(values, device=image.device) for values in (host.mean, host.std))
        z = within(to_model(image[(slice(None), *box)], mean, std), self.limits)
        mask, values = lesion[box], label[box]
        measured: dict[str, Any] = {}
        if self.config.deviation is not None:
            measured["deviation"] = self._deviation(z, torch.where(mask, values, 0))
        if self.config.border_jump is not None:
            measured["border_jump"] = round(border_jump(z, mask) / self._bank_jump, 3)
        if self.segmenter is not None:
            tissue = host.tissue[0].to(image.device)[box]
            measured["agreement"] = self._agreement(self.segmenter, z * tissue, mask)
        return measured, self._refusal(measured)

    def _refusal(self, measured: dict[str, Any]) -> str | None:
        config = self.config
        if measured.get("deviation", 0) > (config.deviation or np.inf):
            return "gate: intensities unlike the bank's"
        if measured.get("border_jump", 0) > (config.border_jump or np.inf):
            return "gate: border sharper than the bank's"
        if config.agreement is not None and measured["agreement"] < config.agreement:
            return "gate: the segmenter does not agree"
        return None

    def _deviation(self, z: Tensor, label: Tensor) -> float:
        worst = 0.0
        for name, (center, spread) in self._bank.items():
            values = z[:, label == self.classes.values[name]]
            if values.shape[1] >= MIN_VOXELS:
                own = torch.cat([values.mean(1), values.std(1).clamp(min=1e-3).log()]).cpu().numpy()
                worst = max(worst, float((np.abs(own - center) / spread).max()))
        return round(worst, 3)

    @torch.no_grad()
    def _agreement(self, segmenter: Segmenter, z: Tensor, lesion: Tensor) -> float:
        logits = segmenter(padded_to_multiple(z, WINDOW_STEP)[None].float())
        found = (logits.argmax(1)[0] > 0)[tuple(slice(n) for n in lesion.shape)]
        both, either = (found & lesion).sum(), found.sum() + lesion.sum()
        return round(float(2 * both / either.clamp(min=1)), 3)


def border_jumps(bank: LesionBank, channels: Sequence[str]) -> list[float]:
    """Measure `border_jump` of a bank's lesions in these channels."""
    columns, cpu = [bank.channels.index(c) for c in channels], torch.device("cpu")
    return [border_jump(bank.intensities(x.name, columns, cpu), bank.mask(x.name, cpu) > 0) for x in bank]


def border_jump(z: Tensor, lesion: Tensor) -> float:
    """Average the absolute difference of neighbours across the lesion's border, over directions and channels.

    Args:
        z: (C, X, Y, Z) float.
        lesion: (X, Y, Z) bool.
    """
    total, count = torch.zeros((), device=z.device), 0
    for axis in range(3):
        n = lesion.shape[axis] - 1
        across = lesion.narrow(axis, 0, n) ^ lesion.narrow(axis, 1, n)
        step = (z.narrow(axis + 1, 1, n) - z.narrow(axis + 1, 0, n)).abs()
        total = total + step[:, across].sum()
        count += int(across.sum()) * len(z)
    return float(total / max(count, 1))
