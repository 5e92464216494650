"""What the channels are: modality by name, else by their values."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from synthaug.config import ConfigError

MR = {"flair", "t1", "t1ce", "t2", "t2star", "adc", "dwi", "swi", "mr", "mri", "pd", "dce", "t1post", "t2fs", "stir"}
PET = {"pet", "suv", "fdg"}
AIR_HU = -700
"""Values of integers down to here and below are Hounsfield units: nothing else has air so far below water."""


@dataclass
class ChannelEvidence:
    """What images say of a channel.

    Attributes:
        lowest: value, of each case.
        highest: likewise.
        whole: whether all values are whole numbers, of each case.
        air: share of what lies outside the body that is not constant, of each case where there is any.
    """

    lowest: list[float] = field(default_factory=list)
    highest: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    air: list[float] = field(default_factory=list)


def by_name(name: str) -> str | None:
    """Tell the modality by a channel's name; None where it does not say."""
    words = {*re.split(r"[^a-z0-9]+", name.lower())}
    if words & {"ct", "hu", "cect", "ncct", "cbct"}:
        return "ct"
    if words & PET:
        return "pet"
    return "mr" if words & MR or any(re.match(r"(t1|t2|flair|dwi|adc)", word) for word in words) else None


def modality(name: str, evidence: ChannelEvidence, given: str | None = None) -> tuple[str, str]:
    """Tell the modality of a channel, and why.

    Args:
        name: of the channel.
        evidence: of its images.
        given: by the user.

    Raises:
        ConfigError: name and values contradict each other, or neither says.
    """
    low, high = float(np.median(evidence.lowest)), float(np.median(evidence.highest))
    hounsfield = sum(evidence.whole) > len(evidence.whole) / 2 and low <= AIR_HU and high > 0
    words = f"values from {low:g} to {high:g}{', whole numbers' if evidence.whole and all(evidence.whole) else ''}"
    if given is not None:
        return given, "as given"
    told = by_name(name)
    if told == "mr" and hounsfield:
        raise ConfigError(
            f"channels: {name} is called like MR, and its {words} are those of CT; say what it is: --modality "
            f"{name}=ct or --modality {name}=mr"
        )
    if told == "ct" and low >= 0 and high <= 1.5:
        raise ConfigError(
            f"channels: {name} is called CT, and its {words} are no Hounsfield units; give the images in HU, or say "
            f"--modality {name}=other"
        )
    if told is not None:
        return told, f"by its name; {words}"
    if hounsfield:
        return "ct", f"{words}, as Hounsfield units have"
    if low < 0 and evidence.whole and all(evidence.whole):
        raise ConfigError(
            f"channels: the name {name} does not say what it is, and its {words} fit CT and others; say --modality "
            f"{name}=ct or --modality {name}=mr"
        )
    return "mr" if low >= 0 else "other", f"its name does not say, and its {words} are no Hounsfield units"


def stripped(evidence: Sequence[ChannelEvidence]) -> tuple[bool, str]:
    """Tell whether images were skull-stripped, or have air around the body, and why."""
    shares = [share for channel in evidence for share in channel.air]
    if not shares:
        return True, "there is no air around the tissue"
    share = float(np.median(shares))
    if share < 0.3:
        return True, f"what surrounds the tissue is one constant value (all but {share:.0%} of it)"
    return False, f"there is air around the tissue, {share:.0%} of it noise and no constant value"
