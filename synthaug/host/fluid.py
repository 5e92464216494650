"""Fluid and rim of the host: tissue in which lesions do not grow, or not often.

Fluid is told where MR shows it. In z-scores of host tissue, as means of 3 x 3 x 3 voxels, cerebrospinal fluid is dark
in T1 and FLAIR and bright in T2. FLAIR must be among the channels: where T1 or T2 are, too, they must agree; where it
is alone, fluid must be darker still. What is thinner than `THICK_MM` is dropped: lesions reach over sulci, and a lesion
without them is one that no rater draws; ventricles and cysts they do not fill. A channel that does not vary says
nothing.

Labels are no fluid, whatever they look like: necrosis does look like it.
"""

from collections.abc import Sequence

from torch import Tensor

from synthaug.geometry import box_mean, dilated, grown, opened
from synthaug.host import HostSample, to_model

SIGNS = {"flair": -1, "t1": -1, "t2": 1}
"""Whether fluid is brighter or darker than tissue in a channel."""

LEVELS = {"flair": 0.8, "t1": 0.8, "t2": 0.8}
"""How far fluid is from the mean of tissue at least, in standard deviations."""

ALONE = 1.5
"""Likewise, where FLAIR is the only channel that tells."""

THICK_MM = 4.0
"""Side of the smallest cube of fluid that counts."""


def fluid_of(image: Tensor, host: HostSample, channels: Sequence[str], spacing_mm: Sequence[float]) -> Tensor:
    """Find fluid in a sample, (X, Y, Z) bool.

    Args:
        image: (C, X, Y, Z).
        host: its tissue and statistics.
        channels: canonical names.
        spacing_mm: voxel size.

    Raises:
        ValueError: no FLAIR among the channels.
    """
    check_fluid(channels)
    telling = [name for name in channels if name in SIGNS]
    inside = host.tissue.float()[None]
    share = box_mean(inside).clamp(min=1e-3)
    fluid = host.tissue
    for name in telling:
        c = list(channels).index(name)
        z = to_model(image[c : c + 1], host.mean[c : c + 1], host.std[c : c + 1])
        level = ALONE if telling == ["flair"] else LEVELS[name]
        shows = SIGNS[name] * (box_mean(z * inside) / share)[0] > level
        fluid = fluid & (shows | ~(host.std[c] > 0) if name != "flair" else shows)
    sides = [max(2, round(THICK_MM / spacing)) for spacing in spacing_mm]
    near = dilated(opened(fluid, sides), [2 * (side // 2) + 1 for side in sides])
    for dim, side in enumerate(sides):
        near = near.narrow(dim, side // 2, fluid.shape[dim])
    return fluid & near


def check_fluid(channels: Sequence[str]) -> None:
    """Check that the channels show fluid.

    Raises:
        ValueError: no FLAIR among them.
    """
    if "flair" not in channels:
        raise ValueError(f"avoid_fluid: fluid is told by FLAIR; the channels are {', '.join(channels)}")


def rim_of(tissue: Tensor, rim_mm: float, spacing_mm: Sequence[float]) -> Tensor:
    """Find the tissue (X, Y, Z) bool within `rim_mm` of the host's edge; the border of a patch is none."""
    return tissue & grown(~tissue, rim_mm, spacing_mm)
