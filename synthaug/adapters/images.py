"""Conversion of a framework's images and label to the engine's batch, and back to the framework's dtypes and names.

What is wrong with them is named here, for all adapters: several label channels, images of unknown channels, no voxel
size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthaug.channels import ALIASES
from synthaug.insertion.batch import plain

NOT_A_CLASS = torch.iinfo(torch.int32).max
"""Takes the place of label values that are not whole numbers, so that the engine names them as unknown."""


Images = Mapping[Any, Tensor]
"""A framework's images by the name, key or position that it has for them."""


@dataclass(frozen=True)
class EngineBatch:
    """A framework's batch, converted to what `TumorInsertion` takes.

    Attributes:
        images: the framework's images by name, (B, C, X, Y, Z), or (B, 1, X, Y, Z) each where there are several.
        label: class values in the framework's own dtype.
        image: (B, C, X, Y, Z), the images in the insertion's channel order; the image itself where there is one.
        classes: the label as integers; the label itself where it is of integers.
        channels: canonical channel names of the insertion, in its order.
        joined: whether `image` was put together from several.
    """

    images: Images
    label: Tensor
    image: Tensor
    classes: Tensor
    channels: tuple[str, ...]
    joined: bool

    @classmethod
    def of(cls, images: Images, label: Tensor, channels: tuple[str, ...], partial: bool = False) -> "EngineBatch":
        """Convert a batch to the engine's form.

        Args:
            images: one image with all channels, in the insertion's order; or several of one channel each, named
                after the channels (BraTS 2023's aliases are understood), in any order.
            label: (B, 1, X, Y, Z) or (B, X, Y, Z), integers or whole floating numbers.
            channels: canonical channel names of the insertion, in its order.
            partial: whether channels may lack; they are taken as missing sequences then.

        Raises:
            TypeError: a list of deep-supervision targets, no tensor.
            ValueError: no image, names that are not the insertion's channels, images of several channels or of other
                shapes, one-hot labels.
        """
        check_label(label)
        joined = len(images) != 1 or (partial and canonical(next(iter(images))) in channels)
        image = _joined(images, channels, partial) if joined else next(iter(images.values()))
        return cls(images, label, image, whole_numbers(label), channels, joined)

    def back(self, image: Tensor, classes: Tensor) -> tuple[dict[Any, Tensor], Tensor]:
        """Convert the engine's result to the names, dtypes and subclasses that came in; unchanged, the same objects."""
        if image is self.image:
            return dict(self.images), self.label
        label = classes if classes.dtype == self.label.dtype else _filled(self.label, classes)
        if not self.joined:
            return dict.fromkeys(self.images, image), label
        order = {name: self.channels.index(canonical(name)) for name in self.images}
        return {name: _filled(old, plain(image)[:, order[name], None]) for name, old in self.images.items()}, label


def check_label(label: Any) -> None:
    """Check that a batch's label is one map of class values.

    Raises:
        TypeError: a list of targets.
        ValueError: several channels.
    """
    if isinstance(label, (list, tuple)):
        raise TypeError(
            f"label: expected one tensor (B, 1, X, Y, Z) of class values, got a list of {len(label)}: make the targets "
            "of deep supervision from the label after insertion"
        )
    if isinstance(label, Tensor) and label.ndim == 5 and label.shape[1] != 1:
        raise ValueError(
            f"label: expected one channel of class values, got {label.shape[1]} channels: insert before the label "
            "becomes one-hot or regions (MONAI: AsDiscrete, ConvertToMultiChannel...; TorchIO: OneHot)"
        )


def whole_numbers(label: Any) -> Any:
    """Convert a floating label, as loaders give it, to int32; other values are left to the engine's own checks."""
    if not isinstance(label, Tensor) or not label.is_floating_point():
        return label
    values = plain(label)
    return torch.where(values == values.round(), values, NOT_A_CLASS).to(torch.int32)


def canonical(name: str) -> str:
    """Look up the canonical channel name of an image called `name`."""
    return ALIASES.get(str(name).lower(), str(name).lower())


def _joined(images: Images, channels: tuple[str, ...], partial: bool) -> Tensor:
    by_channel = {canonical(name): plain(image) for name, image in images.items()}
    fits = set(by_channel) <= set(channels) if partial and images else set(by_channel) == set(channels)
    if not fits or len(by_channel) < len(images):
        raise ValueError(
            f"images: expected one with the channels {', '.join(channels)} in this order, or one for each, so named; "
            f"got {', '.join(map(str, images)) or 'none'}"
        )
    first = next(iter(by_channel.values()))
    for name, image in by_channel.items():
        if image.ndim < 2 or image.shape[1] != 1 or image.shape != first.shape:
            raise ValueError(
                f"images: expected one channel each and equal shapes, got {tuple(image.shape)} for {name} "
                f"and {tuple(first.shape)} for {next(iter(by_channel))}"
            )
    return torch.cat([by_channel.get(name, torch.zeros_like(first)) for name in channels], dim=1)


def _filled(old: Tensor, values: Tensor) -> Tensor:
    """Copy `old` with its dtype, subclass and metadata, and fill the copy with other values."""
    return old.clone().copy_(plain(values).reshape(old.shape))


def affine_spacing(affine: Any) -> Tensor:
    """Compute the voxel sizes in mm of affines (4, 4) or (B, 4, 4): (3,) or (B, 3) float64 on the CPU."""
    matrix = torch.as_tensor(affine, dtype=torch.float64, device="cpu")
    return matrix[..., :3, :3].square().sum(-2).sqrt()


def chosen_spacing(given: Any, affine: Any, what: str) -> Any:
    """Choose the voxel size: the one that the user gave, or that of the affine.

    Raises:
        ValueError: neither is known.
    """
    if given is not None:
        return given
    if affine is None:
        raise ValueError(
            f"spacing_mm: {what} carry no voxel size; give spacing_mm=(x, y, z) in mm, which decides how large lesions "
            "are in voxels and how far they stay from others"
        )
    return affine_spacing(affine)
