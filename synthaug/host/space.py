"""The space in which intensities are told: the host rule and the units together, which banks, generators and models
record, so that what was made in one is not used in another."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from synthaug.classes import Classes
from synthaug.config import Section
from synthaug.host import HostSample, zscore_host
from synthaug.host.rule import HostRule
from synthaug.host.units import Units


class Space(Section):
    """Host rule and units; by default those of skull-stripped images.

    Attributes:
        rule: which voxels may hold a lesion.
        units: of model intensities.
    """

    rule: HostRule = HostRule()
    units: Units = Units()

    def check(self, channels: Sequence[str], classes: Classes) -> None:
        """Check that the rule fits channels and classes.

        Raises:
            ValueError: a channel that the rule looks at is not there; a label value is lesion and organ at once.
        """
        self.rule.check_channels(channels)
        others = {**self.rule.labels, **self.rule.avoided}
        if both := [name for name, value in others.items() if value in classes.values.values()]:
            raise ValueError(
                f"host rule: {', '.join(both)} cannot be lesion and host at once; the lesions are {classes}"
            )

    def check_same(self, name: str, other_name: str, other: "Space | None") -> None:
        """Check that something was made in this space.

        Args:
            name: of what has this space.
            other_name: of the other thing.
            other: its space; None fits any.

        Raises:
            ValueError: in another one; both are named.
        """
        if other is None or self._alike(other):
            return
        if self == Space():
            advice = "give the profile that it was made with (--profile, profile=, TumorInsertion.from_profile)"
        else:
            advice = "make it anew with this profile"
        raise ValueError(f"{other_name} was made with {other.words()}; {name} has {self.words()}: {advice}")

    def _alike(self, other: "Space") -> bool:
        """Compare units, and where these are the host's the rule, too, for then they follow from it."""
        return self.units == other.units and (self.rule == other.rule or bool(self.units.fixed))

    def words(self) -> str:
        """Say it in words, for messages."""
        return f"{self.units.words()}, host: {self.rule.words()}"

    def host_of(
        self,
        image: np.ndarray,
        label: np.ndarray | None,
        channels: Sequence[str],
        classes: Classes,
        spacing_mm: Sequence[float],
        mask: np.ndarray | None = None,
    ) -> Tensor:
        """Find the host tissue of a whole case, (X, Y, Z) bool; see `HostRule.of_volume`."""
        volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        values = torch.zeros(volume.shape[1:], dtype=torch.int16) if label is None else torch.from_numpy(label)
        given = None if mask is None else torch.from_numpy(mask)
        return self.rule.of_volume(volume, values, channels, tuple(classes.values.values()), spacing_mm, given)

    def network_image(
        self, image: np.ndarray, channels: Sequence[str], spacing_mm: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prepare what a segmentation network sees of a whole case; labels have no say, for predictions have none.

        Skull-stripped MR is z-scored over the brain, with 0 around it (`zscore_host`). Otherwise the background is no
        value but what the image shows there: air is told in the units of the rest.

        Args:
            image: (C, X, Y, Z), intensities as stored.
            channels: of the image.
            spacing_mm: voxel size.

        Returns:
            (C, X, Y, Z) float32, and (C,) the value that stands for outside, such as in what is padded.

        Raises:
            ValueError: no host tissue.
        """
        if self == Space():
            return zscore_host(image), np.zeros(len(image), np.float32)
        volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        nothing = torch.zeros(volume.shape[1:], dtype=torch.int16)
        fixed, tissue = self.units.statistics(channels), nothing == 0
        if fixed is None or None in fixed:
            rule = HostRule(stripped=self.rule.stripped, body=self.rule.body)
            tissue = rule.of_volume(volume, nothing, channels, (), spacing_mm)
        if not tissue.any():
            raise ValueError(f"image: no host tissue by the rule: {self.rule.words()}")
        sample = HostSample.of(volume, nothing, tissue, fixed=fixed)
        z = self.units.clipped(sample.to_model(volume), channels)
        return z.numpy(), z.flatten(1).amin(1).numpy()


_warned: set[str] = set()


def warn_of_patches(rule: HostRule) -> None:
    """Say once for each rule that patches without a host mask are judged by a part of it.

    Warns:
        UserWarning: what is not known.
    """
    if rule.words() not in _warned:
        _warned.add(rule.words())
        what = "what is enclosed by the body or is a table" if rule.masks is None else f"the masks {rule.masks}"
        warnings.warn(
            f"host rule ({rule.words()}): a patch alone does not tell {what}; batches without host masks are judged by "
            "intensities and labels alone. Give host= (in adapters host_key=) with masks of whole volumes",
            stacklevel=4,
        )
