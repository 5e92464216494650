"""Outputs that networks are trained on: classes that exclude each other (softmax), regions that overlap (sigmoid)."""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from synthaug.classes import Classes

BACKGROUND = "background"


class Targets:
    """Outputs of a network: encoded from label maps, decoded to label maps.

    Training on classes: outputs are the background and each class. Training on regions, as BraTS scores (WT, TC, ET):
    outputs are the regions, each by itself, largest first. Region r then stands, in the label map, for the one class
    that r has and no smaller region has.

    Args:
        classes: vocabulary of the label maps.
        regions: name to class names, to train on regions; None to train on classes.

    Raises:
        ValueError: an unknown class, regions that do not tell the classes apart, or a class that is in no region.

    Attributes:
        names: names of the outputs.
        exclusive: whether the outputs exclude each other.

    Example:
        >>> from synthaug import BRATS18
        >>> Targets(BRATS18, {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}).own
        ('ED', 'NCR', 'ET')
    """

    def __init__(self, classes: Classes, regions: Mapping[str, Sequence[str]] | None = None):
        self.classes, self.exclusive = classes, regions is None
        listed = {name: (name,) for name in classes.names} if regions is None else regions
        members = {name: tuple(classes.canonical(c) for c in names) for name, names in listed.items()}
        members = dict(sorted(members.items(), key=lambda item: -len(item[1]))) if regions is not None else members
        self.own = tuple(members) if self.exclusive else _own_classes(members, classes)
        self.names = (BACKGROUND, *members) if self.exclusive else tuple(members)
        self._table = torch.zeros(max(classes.values.values()) + 1, len(self.names))
        for k, name in enumerate(self.names):
            for member in members.get(name, ()):
                self._table[classes.values[member], k] = 1
        if self.exclusive:
            self._table[0, 0] = 1

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, label: Tensor) -> Tensor:
        """Encode a (B, 1, X, Y, Z) integer label map as (B, K, X, Y, Z) float, 1 where output k should be on."""
        return rearrange(self._table.to(label.device)[label.long()], "b 1 x y z k -> b k x y z")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn (B, K, X, Y, Z) logits into probabilities, in float32."""
        return logits.float().softmax(1) if self.exclusive else logits.float().sigmoid()

    def decode(self, probabilities: Tensor, thresholds: Mapping[str, float] | None = None) -> Tensor:
        """Decode (K, X, Y, Z) probabilities to an (X, Y, Z) int16 label map.

        Args:
            probabilities: probability of each output.
            thresholds: output name to probability. A class with a threshold is given wherever it reaches it (the
                likeliest of several) and nowhere else; the other voxels get the likeliest of the other outputs.
                A region is on from 0.5, or its threshold, and inner regions override outer ones.
        """
        thresholds = thresholds or {}
        values = torch.tensor([self.classes.values[name] for name in self.own], dtype=torch.int16)
        values = values.to(probabilities.device)
        label = torch.zeros(probabilities.shape[1:], dtype=torch.int16, device=probabilities.device)
        if not self.exclusive:
            for k, name in enumerate(self.names):
                label[probabilities[k] > thresholds.get(name, 0.5)] = values[k]
            return label
        values = torch.cat((values.new_zeros(1), values))
        ranked = torch.stack([p - 2 if n in thresholds else p for n, p in zip(self.names, probabilities, strict=True)])
        for k, name in enumerate(self.names):
            if name in thresholds:
                ranked[k] += 4 * (probabilities[k] >= thresholds[name])
        return values[ranked.argmax(0)]


def _own_classes(members: Mapping[str, tuple[str, ...]], classes: Classes) -> tuple[str, ...]:
    """Find for each region, largest first, the class that it has and no later one has."""
    names, own = tuple(members), []
    for k, name in enumerate(names):
        later = {c for other in names[k + 1 :] for c in members[other]}
        rest = [c for c in members[name] if c not in later]
        if len(rest) != 1:
            raise ValueError(
                f"region {name}: expected one class that no smaller region has, got {', '.join(rest) or 'none'}; "
                "regions must be nested and differ by one class, such as WT, TC, ET"
            )
        own += rest
    if missing := [name for name in classes.names if name not in own]:
        raise ValueError(f"regions: {', '.join(missing)} is in no region, so that it could not be learned")
    return tuple(own)
