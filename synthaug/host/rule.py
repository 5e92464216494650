"""The host rule: which voxels may hold a lesion, said once and used by banks, insertion, cohorts, trainers, adapters.

A rule has parts, and a voxel is host tissue where all of them agree:

- stripped: no channel has its constant background there (`synthaug.host`); for skull-stripped images.
- body: inside the body of an image with air around it (`synthaug.host.body`).
- labels: in these labels of the label map, such as an organ, or in a lesion.
- range: the mean of 3 x 3 x 3 voxels of a channel is within bounds; a mean, for noise alone must not perforate it.
- masks: in a mask that lies beside the case, or in a folder of masks.

Body and masks need whole volumes. A patch is judged by the other parts; whoever cuts patches of whole volumes works
the rule out before, and cuts the mask along.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from synthaug.config import Section
from synthaug.host import host_tissue
from synthaug.host.body import Body, body_of, darkness

BLOCKED = -1
"""Label value, in an insertion's view, of what is neither host nor lesion."""

Bounds = tuple[float | None, float | None]


class HostRule(Section):
    """Which voxels may hold a lesion; the default is that of skull-stripped images.

    Attributes:
        stripped: leave out where a channel is at its constant background.
        body: leave out what is outside the body, or None.
        range: canonical channel name to the bounds of its intensities, as stored; None is no bound.
        labels: names and values of the labels that may hold a lesion; where there are none, the background may.
        avoided: names and values of labels that are neither host nor lesion.
        masks: of `synthaug.data.maps.read_map`: a file of each case, or a folder of masks named like the cases.
    """

    stripped: bool = True
    body: Body | None = None
    range: dict[str, Bounds] = Field(default_factory=dict)
    labels: dict[str, PositiveInt] = Field(default_factory=dict)
    avoided: dict[str, int] = Field(default_factory=dict)
    masks: str | None = None

    @model_validator(mode="after")
    def _fits(self):
        for name, (low, high) in self.range.items():
            if low is not None and high is not None and low >= high:
                raise ValueError(f"range.{name}: expected low below high, got {low:g} and {high:g}")
        if both := sorted({*self.labels.values()} & {*self.avoided.values()}):
            raise ValueError(f"labels and avoided: expected a value in one of them, got {both} in both")
        return self

    @property
    def needs_volume(self) -> bool:
        """Whether patches alone do not tell."""
        return self.body is not None or self.masks is not None

    @property
    def changes_labels(self) -> bool:
        """Whether label values have roles besides lesion and background."""
        return bool(self.labels or self.avoided)

    def check_channels(self, channels: Sequence[str]) -> None:
        """Check that the channels that the rule looks at are there.

        Raises:
            ValueError: one is not.
        """
        wanted = [*self.range, *([] if self.body is None else [self.body.channel])]
        if missing := [name for name in wanted if name not in channels]:
            raise ValueError(f"host rule: it looks at {', '.join(missing)}; the channels are {', '.join(channels)}")

    def of_volume(
        self,
        image: Tensor,
        label: Tensor,
        channels: Sequence[str],
        lesions: Sequence[int],
        spacing_mm: Sequence[float],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Find the host tissue of a whole case, (X, Y, Z) bool.

        Args:
            image: (C, X, Y, Z), intensities as stored.
            label: (X, Y, Z) integer, values as stored.
            channels: of the image.
            lesions: label values of the lesion classes.
            spacing_mm: voxel size.
            mask: (X, Y, Z), of `masks`, where the rule has some.

        Raises:
            ValueError: no mask where the rule has some.
        """
        if self.masks is not None and mask is None:
            raise ValueError(f"host rule: expected the case's mask of {self.masks}, got none")
        host = self._of_voxels(image, label, channels, lesions)
        if self.body is not None:
            body = body_of(image[list(channels).index(self.body.channel)], self.body, spacing_mm)
            host = host & body.to(host.device)
        return host if mask is None else host & (mask != 0)

    def of_patch(self, image: Tensor, label: Tensor, channels: Sequence[str], lesions: Sequence[int]) -> Tensor:
        """Find host tissue of a patch, (X, Y, Z) bool on its device, by the parts of the rule that a patch can tell.

        Of the body it knows what is not dark, so air is left out and a table is not. Arguments as for `of_volume`.
        """
        host = self._of_voxels(image, label, channels, lesions)
        if self.body is not None:
            values = smoothed(image[list(channels).index(self.body.channel)])
            host = host & (values > darkness(values, self.body.above))
        return host

    def _of_voxels(self, image: Tensor, label: Tensor, channels: Sequence[str], lesions: Sequence[int]) -> Tensor:
        host = host_tissue(image) if self.stripped else torch.ones_like(label, dtype=torch.bool)
        if self.labels:
            host = host & among(label, (*self.labels.values(), *lesions))
        if self.avoided:
            host = host & ~among(label, tuple(self.avoided.values()))
        for name, (low, high) in self.range.items():
            if low is None and high is None:
                continue
            mean = smoothed(image[list(channels).index(name)])
            host = (
                host & (mean >= (-torch.inf if low is None else low)) & (mean <= (torch.inf if high is None else high))
            )
        return host

    def view(self, label: Tensor, blocked: int = BLOCKED) -> Tensor:
        """View a label map as an insertion does: host labels 0, avoided ones `blocked`, lesions as they are."""
        if not self.changes_labels:
            return label
        label = label.to(torch.int16) if label.dtype == torch.uint8 else label
        view = torch.where(among(label, tuple(self.labels.values())), 0, label)
        return torch.where(among(view, tuple(self.avoided.values())), blocked, view)

    def lesions_of(self, label: Any) -> Any:
        """Keep the lesions alone of a label map, array or tensor: host and avoided labels become 0."""
        for value in (*self.labels.values(), *self.avoided.values()):
            label = label * (label != value)
        return label

    def words(self) -> str:
        """Say it in words, for messages."""
        parts = ["skull-stripped"] if self.stripped else []
        parts += [] if self.body is None else [self.body.words()]
        parts += [f"in the labels {', '.join(self.labels)}"] if self.labels else []
        parts += [f"{name} within {_bound(low)} to {_bound(high)}" for name, (low, high) in self.range.items()]
        parts += [] if self.masks is None else [f"masks {self.masks}"]
        return ", ".join(parts) or "everywhere"


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def smoothed(values: Tensor) -> Tensor:
    """Average 3 x 3 x 3 voxels of (X, Y, Z), those that are there at the border; float32."""
    return F.avg_pool3d(values[None, None].float(), 3, 1, 1, count_include_pad=False)[0, 0]


def among(label: Tensor, values: Sequence[int]) -> Tensor:
    """Find where a label map has one of these values; without `torch.isin`, which would copy them to the device."""
    found = torch.zeros_like(label, dtype=torch.bool)
    for value in values:
        found = found | (label == value)
    return found
