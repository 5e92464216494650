"""Classes, channels, spacing and host tissue of an nnU-Net task, read from dataset.json and the plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from synthaug.adapters.batchgenerators import OUTSIDE
from synthaug.adapters.nnunet.settings import HostSettings, Settings
from synthaug.adapters.nnunet.units import Units
from synthaug.channels import canonical_channels
from synthaug.classes import Classes, get_classes
from synthaug.config import ConfigError
from synthaug.data.labels import label_names
from synthaug.geometry import triple
from synthaug.host import host_tissue

BLOCKED = -1
"""Label value of what an insertion avoids: other organs and nnU-Net's ignore label."""


@dataclass(frozen=True)
class Task:
    """A dataset and a configuration of its plans.

    Attributes:
        classes: the lesion classes and their label values.
        channels: canonical channel names.
        spacing_mm: voxel size of the training patches, in their axis order.
        units: normalised intensities to raw ones and back.
        host_values: label values that lesions may replace; empty where background is the host.
        blocked_values: label values that are avoided.
        host_range: per channel the lowest and highest raw intensity of host tissue, None where there is no bound.
        known_statistics: whether host tissue has mean 0 and standard deviation 1 in every channel.
    """

    classes: Classes
    channels: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    units: Units
    host_values: tuple[int, ...]
    blocked_values: tuple[int, ...]
    host_range: tuple[tuple[float | None, float | None], ...]
    known_statistics: bool

    @classmethod
    def of(cls, plans: PlansManager, configuration: str, dataset_json: Mapping[str, Any], settings: Settings) -> "Task":
        """Read a task off nnU-Net's files.

        Raises:
            ConfigError: a configuration that is not 3-D or cascaded; names of classes, host labels or channels that
                dataset.json does not have; ranges or statistics that the plans do not allow.
        """
        chosen = plans.get_configuration(configuration)
        check_configuration(chosen, configuration)
        named, ignore = label_names(dataset_json["labels"]), dataset_json["labels"].get("ignore")
        host_values = tuple(_label_value(name, named, "host.labels") for name in settings.host.labels)
        classes = _classes(settings, named, host_values)
        lesions = set(classes.values.values())
        blocked = {*named.values()} - lesions - {*host_values} | ({ignore} if ignore is not None else set())
        channels = _channels(settings, dataset_json)
        units = Units.of(chosen.normalization_schemes, plans.foreground_intensity_properties_per_channel)
        return cls(
            classes=classes,
            channels=channels,
            spacing_mm=triple(float(s) for s in chosen.spacing),
            units=units,
            host_values=host_values,
            blocked_values=tuple(sorted(blocked)),
            host_range=_host_range(settings.host, channels, units),
            known_statistics=_known_statistics(settings.host, chosen),
        )

    def view(self, label: Tensor) -> Tensor:
        """Convert a label map for insertion: host labels to 0, avoided ones to `BLOCKED`, lesion classes stay.

        Args:
            label: (B, 1, X, Y, Z) integer with nnU-Net's values, also `OUTSIDE`.
        """
        view = torch.where(_among(label, (OUTSIDE, *self.host_values)), 0, label)
        return torch.where(_among(label, self.blocked_values), BLOCKED, view)

    def host(self, raw: Tensor, label: Tensor) -> Tensor:
        """Find where lesions may lie in a sample, (1, X, Y, Z) bool.

        That is in nnU-Net's non-zero region, not where a channel is constant (`synthaug.host`), in the host labels
        where some are named, and where the mean of 3 x 3 x 3 voxels is in the host's range: noise alone must not
        perforate it.

        Args:
            raw: (C, X, Y, Z) in raw units.
            label: (1, X, Y, Z) with nnU-Net's values.
        """
        host = (label != OUTSIDE) & host_tissue(raw)
        if self.host_values:
            host = host & _among(label, (*self.host_values, *self.classes.values.values()))
        for channel, (low, high) in enumerate(self.host_range):
            if low is None and high is None:
                continue
            mean = F.avg_pool3d(raw[channel : channel + 1].float(), 3, 1, 1, count_include_pad=False)
            host = (
                host & (mean >= (-torch.inf if low is None else low)) & (mean <= (torch.inf if high is None else high))
            )
        return host


def check_configuration(configuration: ConfigurationManager, name: str) -> None:
    """Check that tumours can be inserted into the patches of a configuration.

    Raises:
        ConfigError: it is 2-D, or the second stage of a cascade.
    """
    if len(configuration.patch_size) != 3:
        raise ConfigError(
            f"configuration {name}: insertion is 3-D only, got patches of {list(configuration.patch_size)} voxels; "
            "train 3d_fullres or 3d_lowres"
        )
    if configuration.previous_stage_name is not None:
        raise ConfigError(
            f"configuration {name}: the second stage of a cascade is not supported: the predictions of "
            f"{configuration.previous_stage_name} that it reads do not show inserted tumours; train 3d_fullres, or "
            "insert in the first stage alone"
        )


def _label_value(name: str, named: Mapping[str, int], key: str) -> int:
    if name not in named:
        raise ConfigError(f"{key}: expected labels of dataset.json, {', '.join(named)}; got {name!r}")
    return named[name]


def _classes(settings: Settings, named: Mapping[str, int], host_values: Sequence[int]) -> Classes:
    """Choose the lesion classes: those given, or all labels that are not the host's."""
    wanted, name = settings.classes, "dataset.json"
    if wanted is None:
        values = {label: value for label, value in named.items() if value not in host_values}
    elif isinstance(wanted, tuple):
        values = {label: _label_value(label, named, "classes") for label in wanted}
    else:
        try:
            name, values = get_classes(wanted).name, dict(get_classes(wanted).values)
        except ValueError as error:
            raise ConfigError(f"classes: {error}") from error
    wrong = {*values.values()} - ({*named.values()} - {*host_values})
    if wrong or not values:
        raise ConfigError(
            f"classes: expected labels of dataset.json besides the host's, of {dict(named)}; got {values or 'none'}"
        )
    return Classes(name, values, get_classes(wanted).aliases if isinstance(wanted, str) else {})


def _channels(settings: Settings, dataset_json: Mapping[str, Any]) -> tuple[str, ...]:
    listed = dataset_json["modality" if "modality" in dataset_json else "channel_names"]
    names = [listed[str(i)] for i in range(len(listed))] if settings.channels is None else settings.channels
    try:
        channels = canonical_channels(names)
    except ValueError as error:
        raise ConfigError(f"{error}; give the names in order as channels: [...]") from error
    if len(channels) != len(listed):
        raise ConfigError(f"channels: expected {len(listed)} names as in dataset.json ({listed}), got {names}")
    return channels


def _host_range(host: HostSettings, channels: Sequence[str], units: Units) -> tuple:
    """Resolve the bounds per channel; one that the plans' clipping makes void is an error."""
    named = {}
    for name, bounds in host.range.items():
        (known,) = canonical_channels([name])
        if known not in channels:
            raise ConfigError(f"host.range: expected channels {', '.join(channels)}, got {name!r}")
        named[known] = bounds
        low, high = bounds
        if low is not None and high is not None and low >= high:
            raise ConfigError(f"host.range {name}: expected low below high, got {list(bounds)}")
        floor, ceiling = units.limits(channels.index(known))
        if (low is not None and low <= floor) or (high is not None and high >= ceiling):
            raise ConfigError(
                f"host.range {name}: nnU-Net clips this channel at {floor:g} and {ceiling:g} (the plans' percentiles): "
                f"expected bounds strictly between these, or null, got {list(bounds)}"
            )
    return tuple(named.get(channel, (None, None)) for channel in channels)


def _known_statistics(host: HostSettings, configuration: ConfigurationManager) -> bool:
    if host.statistics == "patch":
        return False
    schemes, masked = configuration.normalization_schemes, configuration.use_mask_for_norm
    if any(s != "ZScoreNormalization" for s in schemes) or not all(masked):
        raise ConfigError(
            "host.statistics: volume needs ZScoreNormalization within the mask (use_mask_for_norm) in every channel; "
            f"the plans have {schemes} and {masked}: take patch"
        )
    return True


def _among(label: Tensor, values: Sequence[int]) -> Tensor:
    """Find the voxels that have one of these values; without `torch.isin`, which would copy them to the device."""
    found = torch.zeros_like(label, dtype=torch.bool)
    for value in values:
        found = found | (label == value)
    return found
