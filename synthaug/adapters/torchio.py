"""TorchIO 1.x transforms: a random one whose history repeats bit for bit, and one for batches (extra: ``torchio``).

Give them to the training subjects only: a transform cannot know that it stands in a validation pipeline.

What depends on TorchIO 1's way of sampling, applying and remembering is `RandomTumor`, `InsertTumor` and the import of
their base classes; the rest of this file would serve another version as well.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import torch
import torchio
from torch import Tensor
from torchio.transforms.augmentation import RandomTransform
from torchio.transforms.transform import Transform

from synthaug.adapters.frames import coordinates, fitted_frame, goes_by_place, needed_frames
from synthaug.adapters.images import EngineBatch, affine_spacing, chosen_insertion, host_map
from synthaug.adapters.workers import drawn, refuse_accelerator_in_worker
from synthaug.checks import checked_probability
from synthaug.frames import host_frame
from synthaug.geometry import triple
from synthaug.host import host_tissue
from synthaug.insertion.insertion import TumorInsertion
from synthaug.insertion.plan import InsertionPlan

__all__ = ["AddHostCoordinates", "InsertTumor", "InsertTumorsInBatch", "RandomTumor"]

if not torchio.__version__.startswith("1."):
    raise ImportError(f"synthaug.adapters.torchio is for TorchIO 1.x, got {torchio.__version__}")


HOST_COORDINATES = "host_coordinates"
"""TorchIO type of the images that `AddHostCoordinates` adds."""

ADVICE = "add AddHostCoordinates() from synthaug.adapters.torchio to the subjects' transforms, before any spatial one"


class AddHostCoordinates(Transform):
    """Adds an image of host coordinates to a subject, so that patches of it know where in their host they lie.

    It goes before all spatial transforms. These change the image with the others (TorchIO's flips and affine changes
    leave the affine as it is, so that it does not tell), transforms of intensity and of labels leave it alone, and the
    insertion reads off it what ``place="like-data"`` and ``"home"`` need. It takes three floats per voxel.

    Args:
        image_name: of the image that is added.
        host_name: of a `LabelMap` of host tissue, for data that are not skull-stripped.
        **kwargs: of `torchio.Transform`, such as `include`; the first image of intensities tells where the host is.

    Raises:
        ValueError: when called: no host tissue.

    Example:
        >>> subject = torchio.Subject(mri=torchio.ScalarImage(tensor=torch.rand(4, 20, 20, 20)))
        >>> AddHostCoordinates()(subject)["host_coordinates"].shape
        (3, 20, 20, 20)
    """

    def __init__(self, image_name: str = HOST_COORDINATES, host_name: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.image_name, self.host_name = image_name, host_name
        self.args_names = ["image_name", "host_name"]

    def apply_transform(self, subject: torchio.Subject) -> torchio.Subject:
        """Add the image to a subject."""
        image = subject.get_images(intensity_only=True, include=self.include, exclude=self.exclude)[0]
        if self.host_name is None:
            tissue = host_tissue(image.data)
        else:
            tissue = subject.get_images_dict(intensity_only=False)[self.host_name].data[0] != 0
        if not tissue.any():
            raise ValueError("host coordinates: expected an image with host tissue, got one without")
        values = coordinates(host_frame(tissue.numpy(), image.affine), tissue.shape)
        added = torchio.Image(tensor=values, affine=image.affine, type=HOST_COORDINATES)
        subject.add_image(added, self.image_name)
        return subject


class RandomTumor(RandomTransform):
    """Inserts tumours into a subject, with probability `p`.

    For loader workers, with ``"paste"`` or ``"procedural"``; generators on a GPU are refused there, see
    `InsertTumorsInBatch`. What all workers did is in ``insertion.report()``. Draws come from torch's random state, as
    those of every TorchIO transform.

    The subject's images are one `ScalarImage` with all of the insertion's channels in its order, or one of one channel
    each, named after the channels; `include` and `exclude` choose among others. Images of 8 or 16 bit integers become
    float32 where lesions are asked for. The voxel size is the affine's, 1 mm where TorchIO was given none.

    Args:
        insertion: what to insert; its own random sequence is not used.
        p: probability that a subject gets lesions; by default the insertion's.
        label_name: the `LabelMap` of class values; needed where there are several.
        group_key: entry of the subject with its patient group; its own lesions are not used.
        record_key: where given, the rows of the plan are put there as JSON text: loaders drop the history.
        profile: of the data set (`synthaug fit`), in place of an insertion.
        host_name: of a `LabelMap` of host tissue, if the subjects have one.
        **kwargs: of `torchio.Transform`, such as `include`.

    Raises:
        TypeError, ValueError: when called: what was expected and what came: no or several label maps, one-hot labels,
            images that are not the insertion's channels, images of longer integers, values not finite or no classes.
        RuntimeError: when called in a loader worker with a generator on a GPU.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", second=0.0)
        >>> image = torchio.ScalarImage(tensor=torch.rand(4, 40, 40, 40))
        >>> label = torchio.LabelMap(tensor=torch.zeros(1, 40, 40, 40, dtype=torch.int16))
        >>> subject = torchio.Subject(mri=image, tumour=label)
        >>> changed = RandomTumor(insertion, p=1.0)(subject)
        >>> changed["mri"].shape, changed["tumour"].data.unique().tolist()
        ((4, 40, 40, 40), [0, 1, 2, 4])
        >>> again = changed.get_composed_history()(subject)
        >>> torch.equal(again["mri"].data, changed["mri"].data)
        True
    """

    def __init__(
        self,
        insertion: TumorInsertion | None = None,
        p: float | None = None,
        label_name: str | None = None,
        group_key: str | None = None,
        record_key: str | None = None,
        profile: Any = None,
        host_name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        insertion = chosen_insertion(insertion, profile)
        self.insertion, self.label_name, self.host_name = insertion, label_name, host_name
        self.p = insertion.prob if p is None else checked_probability("p", p)
        self.group_key, self.record_key = group_key, record_key
        self._name = uuid.uuid4().hex
        InsertionReference.known[self._name] = insertion

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        InsertionReference.known[self._name] = self.insertion

    def apply_transform(self, subject: torchio.Subject) -> torchio.Subject:
        """Draw a plan and apply it by `InsertTumor`."""
        refuse_accelerator_in_worker(self.insertion.generator)
        images, label = _find(subject, self.include, self.exclude, self.label_name, self.host_name)
        batch = _engine_batch(subject, images, label, self.insertion)
        host = _host(subject, self.host_name, batch)
        groups: list[Any] | None = None if self.group_key is None else [subject[self.group_key]]
        with drawn(self.insertion, self._get_random_seed(), self.p) as insertion:
            known: dict[str, Any] = {"groups": groups, "host": host, "frames": _frames(subject, insertion)}
            plan = insertion.plan(batch.image, batch.classes, _spacing(subject, images), **known)
            if len(plan):
                arguments: dict[str, Any] = {"insertion": InsertionReference(self._name, insertion), "rows": plan}
                arguments |= {"label_name": label, "host_name": self.host_name}
                subject = InsertTumor(**self._add_base_args(arguments))(subject)
            else:
                insertion.apply(batch.image, batch.classes, plan, host=host)  # the sample was seen
        if self.record_key is not None:
            subject[self.record_key] = json.dumps(plan.to_rows())
        return subject


class InsertTumor(Transform):
    """Inserts the tumours of a plan; `RandomTumor` leaves this transform in a subject's history.

    ``subject.get_composed_history()`` repeats it bit for bit on the untouched subject. Histories that were saved and
    loaded in another process know the plan and not the lesions: give both to this class. Repetitions are not counted in
    the insertion's report.

    Args:
        insertion: the `TumorInsertion` that made the plan.
        rows: rows of `InsertionPlan.to_rows`, or the plan itself, of one sample.
        label_name: the `LabelMap` of class values; needed where there are several.
        host_name: of a `LabelMap` of host tissue, where the plan was made with one.
        **kwargs: of `torchio.Transform`, such as `include`.

    Raises:
        ValueError: when called: a plan for other sizes, tissue or lesions, and what `RandomTumor` raises.
        LookupError: when called: a history of another process.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
        >>> tensor, classes = torch.rand(4, 40, 40, 40), torch.zeros(1, 40, 40, 40, dtype=torch.int16)
        >>> subject = torchio.Subject(mri=torchio.ScalarImage(tensor=tensor), tumour=torchio.LabelMap(tensor=classes))
        >>> rows = insertion.plan(tensor[None], classes[None]).to_rows()
        >>> InsertTumor(insertion, rows)(subject)["tumour"].data.unique().tolist()
        [0, 1, 2, 4]
    """

    def __init__(
        self,
        insertion: "TumorInsertion | InsertionReference",
        rows: InsertionPlan | Sequence[Mapping[str, Any]],
        label_name: str | None = None,
        host_name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.host_name = host_name
        if isinstance(insertion, TumorInsertion):
            insertion = InsertionReference(uuid.uuid4().hex, insertion)
        self._plan = rows if isinstance(rows, InsertionPlan) else InsertionPlan.from_rows(rows)
        self.insertion, self.rows, self.label_name = insertion, self._plan.to_rows(), label_name
        self.args_names = ["insertion", "rows", "label_name", "host_name"]

    def apply_transform(self, subject: torchio.Subject) -> torchio.Subject:
        """Apply the plan to a subject."""
        insertion = self.insertion.resolve()
        images, label = _find(subject, self.include, self.exclude, self.label_name, self.host_name)
        batch = _engine_batch(subject, images, label, insertion)
        host = _host(subject, self.host_name, batch)
        new, new_label = batch.back(*insertion.apply(batch.image, batch.classes, self._plan, host=host))
        for name, tensor in (new | {label: new_label}).items():
            subject.get_image(name).set_data(tensor[0])
        return subject


class InsertionReference:
    """An insertion in a subject's history: copies and pickles of the subject carry its name instead of all its lesions.

    Args:
        name: unique; the process that made a `RandomTumor` finds its insertion by it.
        insertion: looked up where not given.
    """

    known: ClassVar[WeakValueDictionary[str, TumorInsertion]] = WeakValueDictionary()

    def __init__(self, name: str, insertion: TumorInsertion | None = None):
        self.name, self._insertion = name, self.known.get(name) if insertion is None else insertion

    def __reduce__(self):
        return InsertionReference, (self.name,)

    def __deepcopy__(self, memo: dict) -> "InsertionReference":
        return self

    def __repr__(self) -> str:
        return f"<insertion {self.name[:8]}>"

    def resolve(self) -> TumorInsertion:
        """Return the insertion.

        Raises:
            LookupError: it was made in another process, or is gone.
        """
        if self._insertion is None:
            raise LookupError(
                f"insertion {self.name[:8]} is not of this process: to repeat a saved history, give "
                "InsertTumor(insertion, rows) the insertion that made it and the rows of the history"
            )
        return self._insertion


class InsertTumorsInBatch:
    """Inserts tumours into the batches of a `SubjectsLoader`, on their device; for every generator.

    Call it in the training loop alone, after the batch was moved. Randomness is the insertion's own.

    Args:
        insertion: what to insert.
        label_name: the `LabelMap` of class values; needed where there are several.
        include: names of the images, where there are others.
        group_key: entry of the batch with the patient groups.
        profile: profile of the data set (`synthaug fit`), in place of an insertion.
        host_name: name of a `LabelMap` of host tissue, if the batches have one.

    Example:
        >>> from synthaug import LesionShapes
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
        >>> image = torchio.ScalarImage(tensor=torch.rand(4, 40, 40, 40))
        >>> label = torchio.LabelMap(tensor=torch.zeros(1, 40, 40, 40, dtype=torch.int16))
        >>> loader = torchio.SubjectsLoader([torchio.Subject(mri=image, tumour=label)] * 2, batch_size=2)
        >>> batch = InsertTumorsInBatch(insertion)(next(iter(loader)))
        >>> batch["mri"]["data"].shape, batch["tumour"]["data"].unique().tolist()
        (torch.Size([2, 4, 40, 40, 40]), [0, 1, 2, 4])
    """

    def __init__(
        self,
        insertion: TumorInsertion | None = None,
        label_name: str | None = None,
        include: Sequence[str] | None = None,
        group_key: str | None = None,
        profile: Any = None,
        host_name: str | None = None,
    ):
        self.insertion, self.label_name = chosen_insertion(insertion, profile), label_name
        self.include, self.group_key, self.host_name = include, group_key, host_name

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Insert tumours into a batch.

        Args:
            batch: the loader's collated batch: images with ``data`` (B, C, X, Y, Z) and ``affine`` (B, 4, 4).

        Returns:
            A new batch; what was not changed is the input's.

        Raises:
            TypeError, ValueError: as `RandomTumor`.
        """
        collated = {name: image for name, image in batch.items() if isinstance(image, Mapping) and "data" in image}
        types = {name: image["type"][0] for name, image in collated.items()}
        images, label = _roles(types, self.include, None, self.label_name, self.host_name)
        tensors = {name: _floating(collated[name]["data"]) for name in images}
        engine = EngineBatch.of(tensors, collated[label]["data"], self.insertion.channels)
        spacing = affine_spacing(collated[images[0]]["affine"])
        groups = None if self.group_key is None else batch[self.group_key]
        host = None if self.host_name is None else host_map(batch[self.host_name]["data"], engine.image)
        known = {"groups": groups, "host": host, "frames": self._frames(collated)}
        new, new_label = engine.back(*self.insertion(engine.image, engine.classes, spacing, **known))
        return {**batch, **{name: {**batch[name], "data": x} for name, x in (new | {label: new_label}).items()}}

    def _frames(self, collated: Mapping[str, Mapping[str, Any]]) -> list[np.ndarray] | None:
        """Read the frames off a batch's host coordinates, None where it has none or none are of use."""
        found = [image["data"] for image in collated.values() if image["type"][0] == HOST_COORDINATES]
        known = found and goes_by_place(self.insertion)
        return needed_frames(self.insertion, [fitted_frame(one) for one in found[0]] if known else None, ADVICE)


def _frames(subject: torchio.Subject, insertion: TumorInsertion) -> np.ndarray | None:
    """Read the frame (3, 4) off a subject's host coordinates, None where it has none or none is of use."""
    found = [image.data for image in subject.get_images(intensity_only=False) if image.type == HOST_COORDINATES]
    known = found and goes_by_place(insertion)
    return needed_frames(insertion, fitted_frame(found[0]) if known else None, ADVICE)


def _find(
    subject: torchio.Subject,
    include: Iterable[str] | None,
    exclude: Iterable[str] | None,
    label_name: str | None,
    host_name: str | None,
) -> tuple[list[str], str]:
    types = {name: image.type for name, image in subject.get_images_dict(intensity_only=False).items()}
    return _roles(types, include, exclude, label_name, host_name)


def _host(subject: torchio.Subject, name: str | None, batch: EngineBatch) -> Tensor | None:
    return None if name is None else host_map(subject.get_images_dict(intensity_only=False)[name].data, batch.image)


def _roles(
    types: Mapping[str, str],
    include: Iterable[str] | None,
    exclude: Iterable[str] | None,
    label_name: str | None,
    host_name: str | None,
) -> tuple[list[str], str]:
    """Tell the intensity images and the label map apart by the images' TorchIO types."""
    maps = [name for name, kind in types.items() if kind == torchio.LABEL and name != host_name]
    labels = [name for name in maps if label_name in (None, name)]
    if len(labels) != 1:
        wanted = "one LabelMap, or its name as label_name" if label_name is None else f"a LabelMap {label_name!r}"
        raise ValueError(f"expected {wanted}; got {', '.join(f'{n} ({k})' for n, k in types.items())}")
    images = [name for name, kind in types.items() if kind == torchio.INTENSITY]
    images = [n for n in images if (include is None or n in include) and (exclude is None or n not in exclude)]
    return images, labels[0]


def _engine_batch(
    subject: torchio.Subject, images: Sequence[str], label: str, insertion: TumorInsertion
) -> EngineBatch:
    tensors = {name: _floating(subject.get_image(name).data)[None] for name in images}
    return EngineBatch.of(tensors, subject.get_image(label).data[None], insertion.channels)


def _floating(image: Tensor) -> Tensor:
    """Convert images of up to 16 bits, as TorchIO reads them from files, to float32, which holds them exactly."""
    return image.float() if image.dtype in (torch.int16, torch.uint8, torch.int8) else image


def _spacing(subject: torchio.Subject, images: Sequence[str]) -> tuple[float, float, float]:
    return triple(float(mm) for mm in subject.get_image(images[0]).spacing)
