"""MONAI's random transforms for loader workers, and a `prepare_batch` that inserts on the device (extra: ``monai``).

Give them to the training pipeline only: a transform cannot know that it stands in a validation pipeline.
"""

import json
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from types import FrameType
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.engines import Evaluator, PrepareBatch, Workflow, default_prepare_batch
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import MAX_SEED, convert_to_dst_type, convert_to_tensor
from monai.utils.enums import TransformBackends
from torch import Tensor
from torch.utils.data import get_worker_info

from synthaug.adapters.images import EngineBatch, check_label, chosen_insertion, chosen_spacing, host_map
from synthaug.adapters.workers import DRAWS, drawn, refuse_accelerator_in_worker
from synthaug.checks import checked_probability
from synthaug.insertion.batch import plain
from synthaug.insertion.insertion import TumorInsertion

__all__ = [
    "PrepareBatchInsertTumor",
    "RandInsertTumor",
    "RandInsertTumorD",
    "RandInsertTumorDict",
    "RandInsertTumord",
]


class _RandomInsertion(RandomizableTransform):
    """The common base of array and dictionary form: draws, and inserts into one sample."""

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI has a list there, too)
    _partial = False

    def __init__(self, insertion: TumorInsertion | None, prob: float | None, spacing_mm: Any, profile: Any):
        insertion = chosen_insertion(insertion, profile)
        RandomizableTransform.__init__(self, insertion.prob if prob is None else checked_probability("prob", prob))
        self.insertion, self.spacing_mm = insertion, spacing_mm
        self.rows: list[dict[str, Any]] = []
        self._number, self._seeded_in = 0, os.getpid()

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "_RandomInsertion":
        """Seed the draws; MONAI's loader calls it in each worker and epoch."""
        super().set_random_state(seed, state)
        self._seeded_in = os.getpid()
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw whether a sample gets lesions, and the number that everything about them follows from."""
        worker = get_worker_info()
        if worker is not None and self._seeded_in != os.getpid():
            # a loader other than MONAI's: without this, all workers would go on from one and the same state
            self.set_random_state(worker.seed % MAX_SEED)
        super().randomize(None)
        self._number = int(self.R.randint(DRAWS))

    def _insert(
        self,
        images: Mapping[Any, NdarrayOrTensor],
        label: NdarrayOrTensor,
        group: str | None,
        host: NdarrayOrTensor | None,
    ) -> tuple[dict[Any, NdarrayOrTensor], NdarrayOrTensor]:
        """Insert into one sample what `randomize` drew; `rows` tells what was done."""
        refuse_accelerator_in_worker(self.insertion.generator)
        samples = {key: _sample(key, value) for key, value in images.items()}
        batch = EngineBatch.of(samples, _sample("label", label), self.insertion.channels, self._partial)
        affine = next((x.affine for x in images.values() if isinstance(x, MetaTensor)), None)
        spacing = chosen_spacing(self.spacing_mm, affine, "plain tensors and arrays")
        with drawn(self.insertion, self._number, prob=float(self._do_transform)) as insertion:
            known = {"groups": [group], "host": host_map(host, batch.image)}
            image, classes, plan = insertion.recorded(batch.image, batch.classes, spacing, **known)
        self.rows = plan.to_rows()
        if not len(plan):
            return dict(images), label
        new, new_label = batch.back(image, classes)
        as_given: dict[Any, NdarrayOrTensor] = {k: convert_to_dst_type(x[0], images[k])[0] for k, x in new.items()}
        return as_given, convert_to_dst_type(new_label.reshape(label.shape), label)[0]


class RandInsertTumor(_RandomInsertion):
    """Inserts tumours into an image and its label, with probability `prob`.

    For loader workers, with ``"paste"`` or ``"procedural"``; generators on a GPU are refused there, see
    `PrepareBatchInsertTumor`. What all workers did is in ``insertion.report()``.

    Args:
        insertion: what to insert; its own random sequence is not used.
        prob: probability that a sample gets lesions; by default the insertion's.
        spacing_mm: voxel size (3,); by default that of the affine.
        profile: of the data set (`synthaug fit`), in place of an insertion.

    Attributes:
        rows: JSON-able rows of the last call's plan; empty where the sample was not chosen.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", second=0.0)
        >>> transform = RandInsertTumor(insertion, prob=1.0, spacing_mm=(1.0, 1.0, 1.0)).set_random_state(0)
        >>> image, label = transform(torch.rand(4, 40, 40, 40), torch.zeros(1, 40, 40, 40))
        >>> image.shape, label.unique().tolist(), [row["outcome"] for row in transform.rows]
        (torch.Size([4, 40, 40, 40]), [0.0, 1.0, 2.0, 4.0], ['done'])
    """

    def __init__(
        self,
        insertion: TumorInsertion | None = None,
        prob: float | None = None,
        spacing_mm: Any = None,
        profile: Any = None,
    ):
        super().__init__(insertion, prob, spacing_mm, profile)

    def __call__(  # type: ignore[override] # takes several arrays, as MONAI's own array transforms do
        self,
        img: NdarrayOrTensor,
        label: NdarrayOrTensor,
        group: str | None = None,
        randomize: bool = True,
        host: NdarrayOrTensor | None = None,
    ) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Insert tumours into one sample.

        Args:
            img: (C, X, Y, Z) float, the insertion's channels in its order.
            label: (1, X, Y, Z) class values, integers or whole floating numbers.
            group: the sample's patient group; its own lesions are not used.
            randomize: draw anew; False repeats the last draw.
            host: (1, X, Y, Z), non-zero where lesions may lie; found in the image where not given.

        Returns:
            image and label of the same types, dtypes and metadata.

        Raises:
            TypeError, ValueError: what was expected and what came: one-hot labels, a list of targets, another number of
                channels, voxels that are not finite, unknown label values, no voxel size.
            RuntimeError: a generator on a GPU, in a loader worker.
        """
        if randomize:
            self.randomize()
        images, label = self._insert({"image": img}, label, group, host)
        return images["image"], label


class RandInsertTumord(_RandomInsertion, MapTransform):
    """Dictionary form of `RandInsertTumor`; also as ``RandInsertTumorD`` and ``RandInsertTumorDict``.

    Args:
        keys: the image with all channels; or several images of one channel each, whose keys are the names of the
            insertion's channels (their order does not matter then).
        label_key: key of the label.
        insertion: what to insert; its own random sequence is not used.
        prob: probability that a sample gets lesions; by default the insertion's.
        spacing_mm: voxel size (3,); by default that of the affine.
        group_key: key of the sample's patient group, if it has one.
        record_key: where given, the rows of the plan are put there as JSON text, which loaders collate to a list.
        profile: of the data set (`synthaug fit`), in place of an insertion.
        host_key: of masks (1, X, Y, Z) of host tissue, if the samples have them: what a host rule finds in whole
            volumes, cropped and turned with the image.
        allow_missing_keys: leave samples without image or label alone; of several images, take an absent one as a
            missing sequence.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", second=0.0)
        >>> transform = RandInsertTumord("image", "label", insertion, prob=1.0, spacing_mm=(1.0, 1.0, 1.0))
        >>> sample = {"image": torch.rand(4, 40, 40, 40), "label": torch.zeros(1, 40, 40, 40)}
        >>> changed = transform.set_random_state(0)(sample)
        >>> changed["image"].shape, changed["label"].unique().tolist()
        (torch.Size([4, 40, 40, 40]), [0.0, 1.0, 2.0, 4.0])
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: Hashable,
        insertion: TumorInsertion | None = None,
        prob: float | None = None,
        spacing_mm: Any = None,
        group_key: Hashable | None = None,
        record_key: Hashable | None = None,
        allow_missing_keys: bool = False,
        profile: Any = None,
        host_key: Hashable | None = None,
    ):
        MapTransform.__init__(self, keys, allow_missing_keys)
        _RandomInsertion.__init__(self, insertion, prob, spacing_mm, profile)
        self.label_key, self.group_key, self.record_key = label_key, group_key, record_key
        self.host_key = host_key
        self._partial = allow_missing_keys and len(self.keys) > 1

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Insert tumours into one sample.

        Args:
            data: images (C, X, Y, Z), or (1, X, Y, Z) each where there are several, and label (1, X, Y, Z).

        Returns:
            A new dictionary; what was not changed is the input's.

        Raises:
            KeyError: a missing key, unless `allow_missing_keys`.
            TypeError, ValueError, RuntimeError: as `RandInsertTumor`.
        """
        data, self.rows = dict(data), []
        self.randomize()
        images = {key: data[key] for key in self.key_iterator(data)}
        if self.label_key not in data and not self.allow_missing_keys:
            raise KeyError(f"Key `{self.label_key}` of transform `{type(self).__name__}` was missing in the data.")
        if images and self.label_key in data:
            if self.group_key is not None and self.group_key not in data:
                raise KeyError(
                    f"Key `{self.group_key}` (group_key) of `{type(self).__name__}` was missing in the data."
                )
            group = None if self.group_key is None else data[self.group_key]
            host = None if self.host_key is None else data[self.host_key]
            images, data[self.label_key] = self._insert(images, data[self.label_key], group, host)
            data |= images
        if self.record_key is not None:
            data[self.record_key] = json.dumps(self.rows)
        return data


RandInsertTumorD = RandInsertTumorDict = RandInsertTumord


class PrepareBatchInsertTumor(PrepareBatch):
    """Moves a batch to the device and inserts tumours there: ``SupervisedTrainer(prepare_batch=...)``, or a plain loop.

    For every generator. In an `Evaluator` it moves the batch and nothing else, should it be given to one. Randomness is
    the insertion's own.

    Args:
        insertion: what to insert.
        spacing_mm: voxel size, (3,) or (B, 3); by default that of the image's affine.
        group_key: key of the samples' patient groups in a dictionary batch, if it has them.
        prepare_batch: takes image and label from a batch and moves them.
        profile: profile of the data set (`synthaug fit`), in place of an insertion.
        host_key: key of masks of host tissue in a dictionary batch, if it has them.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
        >>> prepare_batch = PrepareBatchInsertTumor(insertion, spacing_mm=(1.0, 1.0, 1.0))
        >>> batch = {"image": torch.rand(2, 4, 40, 40, 40), "label": torch.zeros(2, 1, 40, 40, 40)}
        >>> image, label = prepare_batch(batch, device="cpu")
        >>> image.shape, label.unique().tolist()
        (torch.Size([2, 4, 40, 40, 40]), [0.0, 1.0, 2.0, 4.0])
    """

    def __init__(
        self,
        insertion: TumorInsertion | None = None,
        spacing_mm: Any = None,
        group_key: Hashable | None = None,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        profile: Any = None,
        host_key: Hashable | None = None,
    ):
        self.insertion, self.spacing_mm = chosen_insertion(insertion, profile), spacing_mm
        self.group_key, self.host_key, self.prepare_batch = group_key, host_key, prepare_batch

    def __call__(
        self,
        batchdata: Any,
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Take image (B, C, X, Y, Z) and label (B, 1, X, Y, Z) from a batch, move them, insert.

        Returns:
            What `prepare_batch` returns: image, label, and whatever else it gives.

        Raises:
            TypeError, ValueError: a batch without label, and what `RandInsertTumor` raises.
        """
        if isinstance(batchdata, Mapping):
            check_label(batchdata.get("label"))
        image, label, *rest = self.prepare_batch(batchdata, device, non_blocking, **kwargs)
        if isinstance(_running_engine(), Evaluator):
            return image, label, *rest
        if label is None:
            raise ValueError("label: expected a batch with a label, got none")
        batch = EngineBatch.of({"image": image}, label, self.insertion.channels)
        affine = image.affine if isinstance(image, MetaTensor) else None
        spacing = chosen_spacing(self.spacing_mm, affine, "plain tensors")
        groups = None if self.group_key is None else batchdata[self.group_key]
        host = None if self.host_key is None else host_map(batchdata[self.host_key], batch.image)
        result = self.insertion(batch.image, batch.classes, spacing, groups=groups, host=host)
        images, label = batch.back(*result)
        return images["image"], label, *rest


def _running_engine() -> Workflow | None:
    """Find the MONAI engine that is calling, if any.

    Engines do not tell `prepare_batch` who they are, and an augmentation must never act in validation: so the innermost
    caller that holds one is looked up on the stack.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, Workflow):
                return value
        frame = frame.f_back
    return None


def _sample(name: Hashable, value: Any) -> Tensor:
    """Convert one (C, X, Y, Z) sample to a plain batch of one."""
    if isinstance(value, (list, tuple)):
        check_label(value)
    tensor = plain(convert_to_tensor(value))
    if tensor.ndim != 4:
        raise ValueError(f"{name}: expected 4 dimensions (C, X, Y, Z), got {tensor.ndim}: {tuple(tensor.shape)}")
    return tensor[None]
