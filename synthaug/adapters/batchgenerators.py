"""A transform of batchgeneratorsv2, with which nnU-Net augments; inserts tumours in loader workers, by sample."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor

from synthaug.adapters.workers import DRAWS, drawn, refuse_accelerator_in_worker
from synthaug.host import host_tissue
from synthaug.insertion.insertion import TumorInsertion
from synthaug.insertion.plan import InsertionPlan

OUTSIDE = -1
"""nnU-Net's label of voxels outside the non-zero region, and of what its augmentation padded."""


class InsertTumorTransform(BasicTransform):
    """Inserts tumours into samples ``{"image": (C, X, Y, Z) float, "segmentation": (1, X, Y, Z) integer}``.

    For training transforms only, before those that make targets of the segmentation (`ConvertSegmentationToRegions-
    Transform`, `DownsampleSegForDSTransform`). Each sample's insertion follows from numpy's and torch's global random
    states, as the library's own transforms do: it is reproducible where the loader seeds its workers, and differs
    between workers even where it does not. A sample may bring ``"group"``, its patient, whose lesions are then not
    inserted into it, and ``"spacing_mm"``.

    Args:
        insertion: what is inserted; its `prob` is that of a sample. ``"paste"`` and ``"procedural"`` suit workers;
            generators on an accelerator are refused there.
        spacing_mm: voxel size of all samples that bring none; 1 mm where not given.
        outside_label: a label value that marks no host tissue and stays as it is, or None.

    Raises:
        TypeError: `insertion` is no `TumorInsertion`; when called, what `TumorInsertion.plan` raises, and a
            segmentation that was made into targets.
        ValueError: what `TumorInsertion.plan` raises.
        RuntimeError: when called, a generator on an accelerator in a worker.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
        >>> transform = InsertTumorTransform(insertion, spacing_mm=(1.0, 1.0, 1.0))
        >>> segmentation = torch.zeros(1, 40, 40, 40, dtype=torch.int16)
        >>> sample = transform(image=torch.rand(4, 40, 40, 40), segmentation=segmentation)
        >>> sample["image"].shape, sample["segmentation"].unique().tolist()
        (torch.Size([4, 40, 40, 40]), [0, 1, 2, 4])
    """

    def __init__(self, insertion: TumorInsertion, spacing_mm: Any = None, outside_label: int | None = OUTSIDE):
        super().__init__()
        if not isinstance(insertion, TumorInsertion):
            raise TypeError(f"insertion: expected a TumorInsertion, got {type(insertion).__name__}")
        self.insertion, self.spacing_mm, self.outside_label = insertion, spacing_mm, outside_label

    def __call__(self, **data_dict: Any) -> dict:
        """Insert tumours into a sample: `get_parameters` and `apply` in one, which looks at its tissue once."""
        image, label, host = self._batch(data_dict)
        with self._drawn() as insertion:
            *changed, _ = insertion.recorded(image, label, host=host, **self._known(data_dict))
        return _written(data_dict, image, label, *changed)

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Draw a plan for a sample.

        Returns:
            ``{"plan": InsertionPlan}``; `apply` with the same plan repeats the insertion bit for bit.
        """
        image, label, host = self._batch(data_dict)
        with self._drawn() as insertion:
            return {"plan": insertion.plan(image, label, host=host, **self._known(data_dict))}

    def apply(self, data_dict: dict, plan: InsertionPlan, **params: Any) -> dict:
        """Write the tumours of a plan into a sample, and count them unless the plan is from rows.

        The sample's tensors are replaced where a tumour goes in, never modified.
        """
        image, label, host = self._batch(data_dict)
        number = self.insertion.number if plan.number is None else plan.number
        with drawn(self.insertion, number) as insertion:
            changed = insertion.apply(image, label, plan, host=host)
        return _written(data_dict, image, label, *changed)

    def _drawn(self) -> AbstractContextManager[TumorInsertion]:
        """Set the insertion to a number that is drawn from the library's random states."""
        refuse_accelerator_in_worker(self.insertion.generator)
        # both states, for batchgenerators seeds numpy's in every worker and torch's only where it was given seeds
        return drawn(self.insertion, int(np.random.randint(DRAWS)) * DRAWS + int(torch.randint(DRAWS, ())))

    def _known(self, data_dict: dict) -> dict[str, Any]:
        return {"spacing_mm": data_dict.get("spacing_mm", self.spacing_mm), "groups": [data_dict.get("group")]}

    def _batch(self, data_dict: dict) -> tuple[Tensor, Tensor, Callable[[int], Tensor] | None]:
        """Make a batch of one of a sample: image, label without the outside, host (None where there is no outside).

        The host is a function: most samples get no lesion, and tissue is dear.
        """
        image, label = data_dict.get("image"), data_dict.get("segmentation")
        if not isinstance(image, Tensor) or image.ndim != 4:
            raise TypeError(f"image: expected a tensor (C, X, Y, Z), got {_described(image)}; insertion is 3-D only")
        if not isinstance(label, Tensor) or label.ndim != 4 or label.shape[0] != 1 or label.dtype == torch.bool:
            raise TypeError(
                f"segmentation: expected an integer tensor (1, X, Y, Z), got {_described(label)}; insert before "
                "ConvertSegmentationToRegionsTransform and DownsampleSegForDSTransform"
            )
        if self.outside_label is None:
            return image[None], label[None], None
        outside = label == self.outside_label
        return image[None], torch.where(outside, 0, label)[None], lambda _: host_tissue(image) & ~outside[0]


def _written(data_dict: dict, image: Tensor, label: Tensor, new_image: Tensor, new_label: Tensor) -> dict:
    """Put the changed image and label into the sample; its outside keeps its label."""
    if new_image is image:
        return data_dict
    segmentation = data_dict["segmentation"]
    data_dict["image"] = new_image[0]
    data_dict["segmentation"] = torch.where(new_label[0] == label[0], segmentation, new_label[0])
    return data_dict


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
