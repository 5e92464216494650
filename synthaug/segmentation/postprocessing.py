"""Label maps from probabilities: thresholds, brain mask, small components."""

from typing import Annotated

import cc3d
import numpy as np
import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from synthaug.classes import Classes
from synthaug.config import Section
from synthaug.host import scored_tissue
from synthaug.segmentation.targets import Targets

Probability = Annotated[float, Field(gt=0, lt=1)]


class PostprocessingConfig(Section):
    """Steps from probabilities to a label map, in this order.

    Attributes:
        thresholds: per output, see `Targets.decode`.
        brain_mask: whether nothing is predicted where every channel is background.
        min_component_mm3: per class or region, the smallest component (26 neighbours) that stays.
        becomes: the class that a class's small components turn into; background where not given. BraTS entries turn
            small ET into NCR.
    """

    thresholds: dict[str, Probability] = Field(default_factory=dict)
    brain_mask: bool = False
    min_component_mm3: dict[str, PositiveFloat] = Field(default_factory=dict)
    becomes: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _becomes_of_small(self):
        if extra := sorted({*self.becomes} - {*self.min_component_mm3}):
            raise ValueError(f"becomes: {', '.join(extra)} has no min_component_mm3")
        return self

    def check(self, targets: Targets, regions: dict[str, tuple[str, ...]]) -> None:
        """Check the names of outputs, classes and regions.

        Raises:
            ValueError: a name that is neither output, class nor region, as it fits; the known ones are listed.
        """
        classes = targets.classes.names
        for key, known in {
            "thresholds": targets.names,
            "min_component_mm3": dict.fromkeys((*regions, *classes)),
            "becomes": classes,
        }.items():
            if unknown := sorted({*getattr(self, key)} - {*known}):
                raise ValueError(f"postprocessing.{key}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
        if unknown := sorted({*self.becomes.values()} - {*classes}):
            raise ValueError(f"postprocessing.becomes: unknown {', '.join(unknown)}; known are {', '.join(classes)}")


def to_label(
    probabilities: Tensor,
    image: Tensor,
    targets: Targets,
    regions: dict[str, tuple[str, ...]],
    spacing_mm: tuple[float, float, float],
    config: PostprocessingConfig,
) -> np.ndarray:
    """Turn probabilities into the label map of a case.

    Args:
        probabilities: (K, X, Y, Z).
        image: (C, X, Y, Z), background exactly 0.
        targets: outputs of the network.
        regions: name to class names, for `min_component_mm3`.
        spacing_mm: voxel size.
        config: steps and their numbers.

    Returns:
        (X, Y, Z) int16.
    """
    decoded = targets.decode(probabilities, config.thresholds)
    if config.brain_mask:
        decoded = torch.where(scored_tissue(image).any(0), decoded, 0)
    label = decoded.cpu().numpy().astype(np.int16)
    for name, volume_mm3 in config.min_component_mm3.items():
        members = regions.get(name, (name,))
        least = int(np.ceil(volume_mm3 / np.prod(spacing_mm)))
        remove_small(label, members, least, config.becomes.get(name), targets.classes)
    return label


def remove_small(
    label: np.ndarray, members: tuple[str, ...], min_voxels: int, becomes: str | None, classes: Classes
) -> None:
    """Turn components of a union of classes below `min_voxels` into background, or the class `becomes`, in place."""
    mask = np.isin(label, [classes.values[classes.canonical(name)] for name in members])
    kept = cc3d.dust(mask, threshold=min_voxels, connectivity=26).astype(bool)
    label[mask & ~kept] = 0 if becomes is None else classes.values[becomes]
