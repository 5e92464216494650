"""A transform of batchgeneratorsv2, with which nnU-Net augments; inserts tumours in loader workers, by sample."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor

from synthaug.adapters.frames import needed_frames
from synthaug.adapters.images import chosen_insertion, host_map
from synthaug.adapters.tracking import check_followed, tracked
from synthaug.adapters.workers import DRAWS, drawn, refuse_accelerator_in_worker
from synthaug.frames import changed
from synthaug.insertion.insertion import TumorInsertion
from synthaug.insertion.plan import InsertionPlan

OUTSIDE = -1
"""nnU-Net's label of voxels outside the non-zero region, and of what its augmentation padded."""


ADVICE = (
    "give samples a frame, the (3, 4) map of their voxel indices to host coordinates (synthaug.frames), and put "
    "spatial transforms into FollowedTransforms"
)


class FollowedTransforms(ComposeTransforms):
    """Applies transforms as `ComposeTransforms` does, and keeps the sample's ``"frame"`` in step with its voxels.

    A frame (3, 4) leads from voxel indices to host coordinates: `synthaug.frames.host_frame` finds that of a whole
    volume, and `synthaug.frames.cropped` moves it to a crop. Samples without one are changed and nothing else.

    Args:
        transforms: applied in order.

    Raises:
        ValueError: one of them moves voxels in a way that cannot be followed.

    Example:
        >>> from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
        >>> transforms = FollowedTransforms([MirrorTransform((0, 1, 2))])
        >>> transforms(image=torch.rand(1, 8, 8, 8), frame=np.eye(3, 4))["frame"].shape
        (3, 4)
    """

    def __init__(self, transforms: Sequence[BasicTransform]):
        super().__init__(list(transforms))
        check_followed(self)

    def apply(self, data_dict: dict, **params: Any) -> dict:
        """Apply the transforms to a sample."""
        frame = data_dict.get("frame")
        data_dict, matrix = tracked(ComposeTransforms(self.transforms), data_dict)
        return data_dict if frame is None else data_dict | {"frame": changed(np.asarray(frame, np.float64), matrix)}


class InsertTumorTransform(BasicTransform):
    """Inserts tumours into samples ``{"image": (C, X, Y, Z) float, "segmentation": (1, X, Y, Z) integer}``.

    For training transforms only, before those that make targets of the segmentation (`ConvertSegmentationToRegions-
    Transform`, `DownsampleSegForDSTransform`). Each sample's insertion follows from numpy's and torch's global random
    states, as the library's own transforms do: it is reproducible where the loader seeds its workers, and differs
    between workers even where it does not. A sample may bring ``"group"``, its patient, whose lesions are then not
    inserted into it, ``"spacing_mm"``, and ``"frame"``, where in its host it lies, which `FollowedTransforms` keeps in
    step and ``place="like-data"`` and ``"home"`` need.

    Args:
        insertion: what is inserted; its `prob` is that of a sample. ``"paste"`` and ``"procedural"`` suit workers;
            generators on an accelerator are refused there.
        spacing_mm: voxel size of all samples that bring none; 1 mm where not given.
        outside_label: a label value that marks no host tissue and stays as it is, or None.
        profile: of the data set (`synthaug fit`), in place of an insertion.
        host_key: of masks (1, X, Y, Z) of host tissue, if the samples have them.

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

    def __init__(
        self,
        insertion: TumorInsertion | None = None,
        spacing_mm: Any = None,
        outside_label: int | None = OUTSIDE,
        profile: Any = None,
        host_key: str | None = None,
    ):
        super().__init__()
        self.insertion, self.spacing_mm = chosen_insertion(insertion, profile), spacing_mm
        self.outside_label, self.host_key = outside_label, host_key

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
        return {
            "spacing_mm": data_dict.get("spacing_mm", self.spacing_mm),
            "groups": [data_dict.get("group")],
            "frames": needed_frames(self.insertion, data_dict.get("frame"), ADVICE),
        }

    def _batch(self, data_dict: dict) -> tuple[Tensor, Tensor, Tensor | Callable[[int], Tensor] | None]:
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
        given = None if self.host_key is None else host_map(data_dict[self.host_key], image[None])
        if self.outside_label is None:
            return image[None], label[None], given
        outside = label == self.outside_label
        inside = torch.where(outside, 0, label)[None]
        if given is not None:
            return image[None], inside, given & ~outside
        return image[None], inside, lambda _: self._tissue(image, inside[0, 0]) & ~outside[0]

    def _tissue(self, image: Tensor, label: Tensor) -> Tensor:
        insertion = self.insertion
        lesions = tuple(insertion.classes.values.values())
        return insertion.space.rule.of_patch(image, label, insertion.channels, lesions)


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
