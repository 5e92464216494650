"""A mixin by which Lightning modules insert tumours into their training batches (extra: ``lightning``)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synthaug.adapters.frames import frames_of_tensors, needed_frames
from synthaug.adapters.images import EngineBatch, check_label, chosen_insertion, chosen_spacing, host_map
from synthaug.generators.base import TumorGenerator
from synthaug.insertion.insertion import TumorInsertion
from synthaug.lesions.base import LesionSource

__all__ = ["TumorInsertionMixin"]

CHECKPOINT_KEY = "synthaug"

ADVICE = (
    "give batches an entry of (B, 3, 4) frames (synthaug.frames) and its key as insert_tumors(frames=...), or with "
    "MONAI add StoreHostFramed(keys) to the transforms, before any crop"
)

if TYPE_CHECKING:
    from lightning import LightningModule as _Mixed  # what follows the mixin, and has the hooks that it extends
else:
    _Mixed = object


class TumorInsertionMixin(_Mixed):
    """Makes a `LightningModule` insert tumours into its training batches, on their device.

    Put it before `LightningModule` and call `insert_tumors` in ``__init__``. Batches of validation, testing and
    prediction, and those of the sanity check, are left alone. The insertion and its generator are no part of the
    module: not of its parameters, its ``state_dict`` or the checkpoint, which keeps no more than where the random
    sequence and the counters stand (rank 0's). Counts since the start, of all ranks together, are logged after each
    training epoch as ``synthaug/samples``, ``asked`` and ``done``. A module that overrides one of the hooks below calls
    ``super()``'s.

    Example:
        >>> import torch
        >>> from lightning import LightningModule, Trainer
        >>> from synthaug import LesionShapes
        >>> class Segmenter(TumorInsertionMixin, LightningModule):
        ...     def __init__(self, insertion):
        ...         super().__init__()
        ...         self.insert_tumors(insertion, spacing_mm=(1.0, 1.0, 1.0))
        ...         self.network = torch.nn.Conv3d(4, 5, 1)
        ...
        ...     def training_step(self, batch):
        ...         logits = self.network(batch["image"])
        ...         return torch.nn.functional.cross_entropy(logits, batch["label"][:, 0])
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.Adam(self.parameters())
        >>> insertion = TumorInsertion(LesionShapes(diameter_mm=(10, 14)), "procedural", prob=1.0, second=0.0)
        >>> case = {"image": torch.rand(4, 40, 40, 40), "label": torch.zeros(1, 40, 40, 40, dtype=torch.int64)}
        >>> loader = torch.utils.data.DataLoader([case, case], batch_size=2)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> Trainer(accelerator="cpu", fast_dev_run=True, **quiet).fit(Segmenter(insertion), loader)
        >>> insertion.report().done
        2
    """

    tumor_insertion: TumorInsertion | None = None
    _reached = False
    _frames_entry: Any = None
    _frames: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        owner = next(base for base in cls.__mro__ if "on_after_batch_transfer" in vars(base))
        if not issubclass(owner, TumorInsertionMixin):
            raise TypeError(f"{cls.__name__}: put TumorInsertionMixin before LightningModule, or its hooks never run")

    def insert_tumors(
        self,
        insertion: TumorInsertion | None = None,
        image: Any = "image",
        label: Any = "label",
        spacing_mm: Any = None,
        groups: Any = None,
        profile: Any = None,
        host: Any = None,
        frames: Any = None,
    ) -> None:
        """Set the insertion, and the entries of a batch that it reads and changes.

        Args:
            insertion: draws and writes the tumours.
            image: key of the image (B, C, X, Y, Z) in a batch that is a dictionary; its position in a sequence. A tuple
                of keys for images of one channel each, (B, 1, X, Y, Z), which are named after the channels.
            label: key or position of the label (B, 1, X, Y, Z), integers or whole floating numbers.
            spacing_mm: voxel size, (3,) or (B, 3), or the key of a (B, 3) entry; by default that of the image's
                ``affine``, as MONAI's tensors have it.
            groups: key or position of the samples' patient groups, if there are any.
            profile: of the data set (`synthaug fit`), in place of an insertion.
            host: key or position of masks (B, 1, X, Y, Z) of host tissue, if there are any.
            frames: key or position of (B, 3, 4) maps of voxel indices to host coordinates (`synthaug.frames`), which
                ``place="like-data"`` and ``"home"`` need; by default those of MONAI's tensors, where `StoreHostFramed`
                stood in their transforms.

        Raises:
            TypeError: not a `TumorInsertion`.
        """
        self.tumor_insertion = chosen_insertion(insertion, profile)
        entries = {"image": image, "label": label, "spacing_mm": spacing_mm, "groups": groups}
        self._insertion_entries, self._frames_entry = entries | {"host": host}, frames

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take the frames of a training batch while they are on the host, so that the device is not waited for."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        wanted = self.trainer.training and self._frames_entry is not None
        self._frames = batch[self._frames_entry] if wanted else None
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Insert tumours into a training batch.

        Returns:
            A new batch of the same kind; what was not changed is the input's.

        Raises:
            TypeError, ValueError: what was expected and what came: a list of targets, one-hot labels, other channels,
                values that are not finite or no classes, no voxel size.
            RuntimeError: `insert_tumors` was not called.
        """
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not self.trainer.training:
            return batch
        if self.tumor_insertion is None:
            raise RuntimeError("TumorInsertionMixin: call self.insert_tumors(insertion, ...) in __init__")
        self._reached = True
        return inserted(self.tumor_insertion, batch, **self._insertion_entries, frames=self._frames)

    def on_fit_start(self) -> None:
        """Check that the hyperparameters, which go into every checkpoint, hold no insertion.

        Raises:
            ValueError: they do.
        """
        super().on_fit_start()
        heavy = [k for k, v in self.hparams.items() if isinstance(v, (TumorInsertion, TumorGenerator, LesionSource))]
        if heavy:
            raise ValueError(
                f"hyperparameters: {', '.join(heavy)} would be written into every checkpoint, weights and lesions "
                f"included; call save_hyperparameters(ignore={heavy})"
            )

    def on_train_epoch_end(self) -> None:
        """Log the counts; the device is waited for once an epoch. Warns where no batch came by."""
        super().on_train_epoch_end()
        if not self._reached:
            warnings.warn(
                "TumorInsertionMixin: no training batch came by in this epoch; a data module or a subclass that "
                "overrides on_after_batch_transfer must call this module's",
                RuntimeWarning,
                stacklevel=2,
            )
        if self.tumor_insertion is not None:
            report = self.tumor_insertion.report()
            counts = {f"synthaug/{name}": float(getattr(report, name)) for name in ("samples", "asked", "done")}
            self.log_dict(counts, sync_dist=True, reduce_fx="sum")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the insertion's state in the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        if self.tumor_insertion is not None:
            checkpoint[CHECKPOINT_KEY] = self.tumor_insertion.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the insertion's state; checkpoints of runs without insertion are taken as they are."""
        super().on_load_checkpoint(checkpoint)
        if self.tumor_insertion is not None and CHECKPOINT_KEY in checkpoint:
            self.tumor_insertion.load_state_dict(checkpoint[CHECKPOINT_KEY])


def inserted(
    insertion: TumorInsertion,
    batch: Any,
    image: Any,
    label: Any,
    spacing_mm: Any,
    groups: Any,
    host: Any = None,
    frames: Any = None,
) -> Any:
    """Insert tumours into a batch, dictionary or sequence; see `TumorInsertionMixin.insert_tumors`.

    `frames` are the batch's own, (B, 3, 4) on the host, not their key.
    """
    keys = image if isinstance(image, tuple) else (image,)
    if isinstance(batch, Sequence):
        keys, label = tuple(_position(key) for key in keys), _position(label)
    check_label(batch[label])
    engine = EngineBatch.of({key: batch[key] for key in keys}, batch[label], insertion.channels)
    given = batch[spacing_mm] if isinstance(spacing_mm, str) else spacing_mm
    spacing = chosen_spacing(given, getattr(batch[keys[0]], "affine", None), "the batch's tensors")
    names = None if groups is None else batch[groups]
    mask = None if host is None else host_map(batch[host], engine.image)
    tensors = [batch[key] for key in (*keys, label)]
    places = frames_of_tensors(tensors) if frames is None else frames
    known = {"groups": names, "host": mask, "frames": needed_frames(insertion, places, ADVICE)}
    images, new_label = engine.back(*insertion(engine.image, engine.classes, spacing, **known))
    changed = images | {label: new_label}
    if isinstance(batch, Mapping):
        return {**batch, **changed}
    values = [changed.get(i, value) for i, value in enumerate(batch)]
    return batch._make(values) if hasattr(batch, "_make") else type(batch)(values)


def _position(key: Any) -> Any:
    """Convert a key to a position in a sequence: image first and label second, unless positions were given."""
    return {"image": 0, "label": 1}.get(key, key)
