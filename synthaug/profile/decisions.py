"""What follows from the measurements: host range, units and the options of insertion, each with its reason.

Where `synthaug.imbalance.suggestion` decides already (how often, how large, class swaps), its reasons are taken over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthaug.classes import Classes
from synthaug.cohort.gate import border_jumps
from synthaug.host.body import Body
from synthaug.host.rule import HostRule
from synthaug.host.units import Fixed, Units
from synthaug.imbalance.separability import compare_all
from synthaug.imbalance.suggestion import suggest
from synthaug.lesions.bank import LesionBank
from synthaug.profile.labels import Roles, glioma_name
from synthaug.profile.measure import Look
from synthaug.profile.profile import Channel

AIR_ABOVE_HU = -300.0
THICK_SLICES = 2.0
WIDER = 0.1
"""Share of its width by which a learned range is wider on each side than what was seen."""
SOFTEST, SOFTEST_FIXED = 0.5, 0.9
"""Least share of the contrast that a border keeps, in z-scores and in fixed units: half of a small lesion is border,
and in fat, 130 HU below it, an edge of 0.3 voxels would take its median to 0 HU."""
LEAST_SLICES = 5
"""Least diameter of an insertion, in voxels along their longest side: what is thinner is mostly edge."""
SHARPER_BY = 2.0
"""Sharpest border that the gate of a cohort lets pass, in units of the bank's: the same lesion has another border in
fat than in muscle."""

EDGES = (0.5, 99.5)


@dataclass(frozen=True)
class Decided:
    """A value and why."""

    value: Any
    why: str


def host_before(modalities: Mapping[str, str], roles: Roles, is_stripped: bool, why: str) -> Decided:
    """Decide on the host rule without its range, by which surroundings of lesions are found."""
    names = {"labels": roles.organs, "avoided": roles.avoided}
    if roles.organs:
        return Decided(HostRule(stripped=False, **names), f"lesions lie in {', '.join(roles.organs)}")
    computed = [name for name, kind in modalities.items() if kind == "ct"]
    if computed:
        body = Body(channel=computed[0], above=AIR_ABOVE_HU)
        return Decided(
            HostRule(stripped=False, body=body, **names),
            f"CT: the body is what is above {AIR_ABOVE_HU:g} HU, in large parts, and what it encloses; no air or table",
        )
    if not is_stripped:
        first = next(iter(modalities))
        return Decided(HostRule(stripped=False, body=Body(channel=first), **names), why)
    return Decided(HostRule(**names), why)


def host_range(look: Look, name: str) -> Decided | None:
    """Bound smoothed intensities: of half of the lesions' surroundings at least, and of lesions themselves."""
    around = [lesion.around[name] for lesion in look.places if name in lesion.around]
    if not around:
        return None
    own = np.median([lesion.own[name] for lesion in look.places], axis=0)
    low, high = np.median(around, axis=0)
    low, high = min(low, own[0]), max(high, own[1])
    margin = WIDER * (high - low)
    bounds = (float(np.floor(low - margin)), float(np.ceil(high + margin)))
    return Decided(
        bounds,
        f"of half of the {len(around)} lesions, nine tenths of the surroundings (2 to 10 mm off, mean of 3 x 3 x 3 "
        f"voxels) lie within {np.median(around, axis=0)[0]:.0f} to {np.median(around, axis=0)[1]:.0f} in {name}, and "
        f"they themselves within {own[0]:.0f} to {own[1]:.0f}",
    )


def within_range(look: Look, rule: HostRule) -> dict[str, np.ndarray]:
    """Collect raw intensities of host voxels within the rule's ranges, by channel."""
    names = list(look.host)
    pairs = {name: np.concatenate(look.host[name]) for name in names}
    keep = np.ones(len(pairs[names[0]]), bool)
    for name, (low, high) in rule.range.items():
        mean = pairs[name][:, 1]
        keep &= (mean >= (-np.inf if low is None else low)) & (mean <= (np.inf if high is None else high))
    return {name: pair[keep, 0] for name, pair in pairs.items()}


def fixed_units(look: Look, names: Sequence[str], host: Mapping[str, np.ndarray]) -> Decided:
    """Compute one scale for each of these channels, from lesion and host voxels of all cases."""
    fixed, words = {}, []
    for name in names:
        values = np.concatenate([*look.lesion[name], host[name]])
        low, high = np.percentile(values, EDGES)
        if not high > low:
            continue
        clipped = values.clip(low, high)
        scale = {"low": low, "high": high, "mean": clipped.mean(), "std": max(float(clipped.std()), 1e-6)}
        fixed[name] = Fixed(**{key: round(float(v), 3) for key, v in scale.items()})
        words.append(f"{name} {fixed[name].low:g} to {fixed[name].high:g}")
    if not fixed:
        return Decided(Units(), "MR has no units, so intensities are told as z-scores of each case's host tissue")
    return Decided(
        Units(fixed=fixed),
        f"Hounsfield units are absolute, so all cases share one scale: percentiles 0.5 and 99.5 of lesion and host "
        f"voxels ({', '.join(words)}), their mean and deviation, as nnU-Net's CTNormalization",
    )


def percentiles(channel: Channel, look: Look, host: Mapping[str, np.ndarray]) -> Channel:
    """Add to a channel what its intensities are like."""
    at = (0.5, 50, 99.5)
    lesion = np.concatenate(look.lesion[channel.name])
    update = {"lesion": tuple(np.percentile(lesion, at).round(4).tolist())}
    if len(host[channel.name]):
        update["host"] = tuple(np.percentile(host[channel.name], at).round(4).tolist())
    return channel.model_copy(update=update)


def insertion(
    look: Look, classes: Classes, channels: Sequence[str], fixed: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Choose the options of insertion, with the reason of each key; `fixed` where the intensities have units."""
    measured = look.measured
    canonical = {name: glioma_name(name) or name for name in classes.names}
    taken = len(set(canonical.values())) == len(canonical)
    own = {b: a for a, b in canonical.items()} if taken else {}
    if taken:
        measured = _with_names(measured, canonical)
    pairs = compare_all({n: np.concatenate(s) for n, s in measured.samples.items()}, measured.channels)
    suggested = suggest(measured, pairs)
    config = {k: v for k, v in suggested.config.items() if k not in ("lesions", "generator")}
    why = dict(suggested.reasons)
    if "swaps" in config:
        config["swaps"] = [[own.get(a, a), own.get(b, b), p] for a, b, p in config["swaps"]]
    if "class_mix" in config:
        config["class_mix"] = {own.get(name, name): share for name, share in config["class_mix"].items()}
    _least_size(config, why, look)
    _turns(config, why, look)
    _edge(config, why, look, fixed)
    return config, {f"insertion.{key}": reason for key, reason in why.items() if key in config}


def _least_size(config: dict[str, Any], why: dict[str, str], look: Look) -> None:
    """Hold the scale where lesions are not mostly edge."""
    if "scale" not in config:
        return
    low, high = config["scale"]
    least = LEAST_SLICES * float(np.median([max(case.spacing_mm) for case in look.cases]))
    # lesions that are thin themselves stay so at any scale
    diameters = [lesion.diameter_mm for lesion in look.places if lesion.diameter_mm >= 2 * least]
    needed = min(1.0, float(np.ceil(10 * least / np.percentile(diameters, 5))) / 10) if diameters else low
    if needed > low:
        config["scale"] = [needed, max(needed, high)]
        why["scale"] += (
            f". From {low:g} on, the smallest would be thinner than {LEAST_SLICES} voxels ({least:.0f} mm), which is "
            f"mostly edge, so it begins at {needed:g}"
        )


def _turns(config: dict[str, Any], why: dict[str, str], look: Look) -> None:
    spacing = np.median([case.spacing_mm for case in look.cases], axis=0)
    ratio = float(spacing.max() / spacing.min())
    if ratio >= THICK_SLICES:
        config["rotate90"] = False
        config["rotate_deg"] = 0.0
        why["rotate90"] = (
            f"voxels of {spacing[0]:.2f} x {spacing[1]:.2f} x {spacing[2]:.2f} mm are {ratio:.1f} times as long as "
            "wide: a right-angle turn out of the plane would show a lesion's steps where no scanner makes them"
        )


def _edge(config: dict[str, Any], why: dict[str, str], look: Look, fixed: bool) -> None:
    shares = [lesion.edge for lesion in look.places if lesion.edge is not None]
    if not shares:
        return
    found, least = float(np.median(shares)), SOFTEST_FIXED if fixed else SOFTEST
    config["edge_vox"] = round(1 / float(np.clip(found, least, 1.0)) - 1, 1)
    why["edge_vox"] = (
        f"the step across the border of real lesions is {found:.0%} of their contrast to their surroundings (median of "
        f"{len(shares)}); a soft edge of so many voxels leaves as much, but {least:.0%} at least, so that small "
        "lesions keep their intensities"
    )


def gate_border(bank: LesionBank) -> float:
    """Choose the gate's limit of border jumps, in units of the bank's median: beyond the bank's own sharpest border."""
    jumps = border_jumps(bank, bank.channels)
    return round(max(3.0, SHARPER_BY * max(jumps) / max(float(np.median(jumps)), 1e-3)), 1)


def _with_names(measured, names: Mapping[str, str]):
    """The measurements with other class names, in the same order."""
    from dataclasses import replace

    def other(table: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(key, key): value for key, value in table.items()}

    values = {names[name]: value for name, value in measured.classes.values.items()}
    return replace(
        measured,
        classes=Classes(measured.classes.name, values),
        parts=other(measured.parts),
        specks=other(measured.specks),
        samples=other(measured.samples),
    )
