"""A suggested insertion for a measured data set, with the reasons in words.

The rules, each of which becomes a reason:

- Classes. Nothing is renamed below a volume ratio of 2. Above it the target gives each class the square root of its
  share, which halves the imbalance on a logarithmic scale: enough to matter, and no lesion becomes implausible. Gliomas
  whose oedema leads get the swaps of arXiv 2509.24973, oedema to enhancing and enhancing to necrotic in one draw, with
  the probability that comes nearest to the target; other data get the target itself as class_mix. Two classes that
  intensity hardly tells apart are not renamed into each other: the label would say what the image does not show.
- Scale. From what makes the median lesion 10 mm, the least that counts as measurable, up to 0.8, so that small lesions
  come as often as large ones and there is room; not so far down that half of the lesions fall below the volume floor
  (those are not drawn then). Data whose median lesion is small already are varied about their own size.
- How often. 0.6 of the patches, 0.4 where there are 100 patients or more; a second lesion as often as cases have one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from synthaug.imbalance.measure import Measurements
from synthaug.imbalance.separability import HARD, ClassPair, find_pair
from synthaug.random import stream
from synthaug.sizes import SizeClasses

MILD_RATIO = 2.0
MOST_SWAPPED = 0.7
MEASURABLE_MM = 10.0
LARGEST_SCALE = 0.8
MANY_PATIENTS = 100
FEW_DONORS = 50
TRACE = 0.02
CHAIN = (("ED", "ET"), ("ET", "NCR"))


@dataclass
class Suggestion:
    """An ``insertion`` section of a segmentation configuration.

    Attributes:
        config: keys and values as trainers read them; keys that are not in it keep their defaults.
        reasons: key to words, for the keys that were chosen by what was measured.
        notes: further conclusions from the figures, in words.
        diameters_mm: diameters of inserted lesions, drawn as the suggestion would draw them.
    """

    config: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    diameters_mm: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def yaml(self) -> str:
        """Write the section as YAML with its reasons as comments; JSON values are YAML."""
        lines = ["insertion:"]
        for key, value in self.config.items():
            if key in self.reasons:
                lines += [f"  # {line}" for line in _wrapped(self.reasons[key])]
            lines.append(f"  {key}: {json.dumps(value)}")
        return "\n".join(lines) + "\n"


def suggest(
    measured: Measurements, pairs: list[ClassPair], sizes: SizeClasses | None = None, seed: int = 0
) -> Suggestion:
    """Suggest an insertion for a measured data set.

    Args:
        measured: the data.
        pairs: comparisons, `compare_all` of its samples.
        sizes: size classes by which lesions are told in words.
        seed: seed of the draws that show which diameters the suggestion leads to.

    Returns:
        The section, and a reason in words for each of its keys.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synthaug.data import write_phantom_dataset
        >>> from synthaug.imbalance import compare_all, measure_folder
        >>> with TemporaryDirectory() as folder:
        ...     _ = write_phantom_dataset(folder, 2, size=(48, 48, 48))
        ...     measured = measure_folder(folder)
        >>> suggestion = suggest(measured, compare_all(measured.intensities, measured.channels))
        >>> sorted(suggestion.config)
        ['generator', 'lesions', 'prob', 'scale', 'second', 'swap_draw', 'swaps']
    """
    sizes = sizes or SizeClasses()
    suggestion = Suggestion({"lesions": "bank", "generator": "paste"})
    if not measured.lesions:
        suggestion.config["lesions"], suggestion.config["generator"] = "shapes", "procedural"
        suggestion.reasons["lesions"] = f"no lesion has {measured.min_voxels} voxels, so there is no donor for a bank"
        return suggestion
    _how_often(suggestion, measured)
    _scale(suggestion, measured, sizes, seed)
    _classes(suggestion, measured, pairs)
    _notes(suggestion, measured, pairs)
    return suggestion


# ------------------------------------------------------------------------------------------------ how often


def _how_often(suggestion: Suggestion, measured: Measurements) -> None:
    patients = len(set(measured.cases.values()))
    several = np.mean([count > 1 for count in _lesions_per_case(measured).values()])
    suggestion.config["prob"] = 0.6 if patients < MANY_PATIENTS else 0.4
    few = "few, so that a network sees the same tumours again and again" if patients < MANY_PATIENTS else "many"
    suggestion.reasons["prob"] = f"{_count(patients, 'patient')} are {few}"
    suggestion.config["second"] = float(np.clip(round(several * 20) / 20, 0.1, 0.5))
    suggestion.reasons["second"] = (
        f"{several:.0%} of the cases with a tumour have more than one lesion of {measured.min_voxels} voxels or more"
    )


def _lesions_per_case(measured: Measurements) -> dict[str, int]:
    names = [lesion.case for lesion in measured.lesions]
    return {name: names.count(name) for name in dict.fromkeys(names)}


# ---------------------------------------------------------------------------------------------------- scale


def _scale(suggestion: Suggestion, measured: Measurements, sizes: SizeClasses, seed: int) -> None:
    diameters = np.array([lesion.diameter_mm for lesion in measured.lesions])
    median = float(np.median(diameters))
    if median * LARGEST_SCALE <= MEASURABLE_MM * 1.25:
        low, high = 0.7, 1.3
        why = f"the median lesion has {median:.0f} mm already, so sizes are varied about their own"
    else:
        low, high = max(0.1, round(MEASURABLE_MM / median, 1)), LARGEST_SCALE
        low = _above_floor(measured, low)
        why = (
            f"the median lesion has {median:.0f} mm and becomes {low * median:.0f} to {high * median:.0f} mm; "
            f"real ones are {_sizes_in_words(sizes.counts(diameters), sizes)}, and smaller ones find room more often"
        )
    suggestion.config["scale"] = [float(low), float(high)]
    suggestion.diameters_mm = drawn_diameters(measured, low, high, seed)
    shares = {name: n / len(suggestion.diameters_mm) for name, n in sizes.counts(suggestion.diameters_mm).items()}
    words = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
    suggestion.reasons["scale"] = f"{why}. Inserted lesions would be {words}, were there room for each"


def drawn_diameters(measured: Measurements, low: float, high: float, seed: int, count: int = 4000) -> np.ndarray:
    """Draw diameters as `TumorInsertion` does: uniform scales, and with each a lesion that keeps the volume floor."""
    rng = stream(seed)
    scales = rng.uniform(low, high, count)
    lesions = sorted(measured.lesions, key=lambda lesion: -lesion.voxels)
    voxels = np.array([lesion.voxels for lesion in lesions])
    enough = np.searchsorted(-voxels, -measured.min_voxels / scales**3, side="right")
    picked = (rng.random(count) * np.maximum(enough, 1)).astype(int)
    diameters = np.array([lesion.diameter_mm for lesion in lesions])[picked] * scales
    return diameters[enough > 0]


def _above_floor(measured: Measurements, low: float) -> float:
    """Raise the lower end in tenths until half of the lesions keep the volume floor there."""
    voxels = np.median([lesion.voxels for lesion in measured.lesions])
    while low < LARGEST_SCALE - 0.1 and voxels * low**3 < measured.min_voxels:
        low = round(low + 0.1, 1)
    return low


def _sizes_in_words(counts: Mapping[str, int], sizes: SizeClasses) -> str:
    return ", ".join(f"{n} {name} ({sizes.words(name)})" for name, n in counts.items())


# -------------------------------------------------------------------------------------------------- classes


def _classes(suggestion: Suggestion, measured: Measurements, pairs: list[ClassPair]) -> None:
    present, shares = measured.present, measured.shares
    if len(present) < 2:
        suggestion.notes.append("There is one class, so there is nothing to swap; insertion acts on sizes and places.")
        return
    most, least = present[0], present[-1]
    unequal = f"{most} has {measured.ratio:.1f} times the volume of {least}"
    if measured.ratio < MILD_RATIO:
        suggestion.notes.append(f"Classes are near to balanced ({unequal}), so none is renamed.")
        return
    target = tempered(shares)
    words = ", ".join(f"{name} {share:.0%}" for name, share in target.items() if share)
    alike = [p for p in pairs if {p.first, p.second} <= set(present) and p.auc < HARD]
    chained = set(sum(CHAIN, ())) <= set(present) and most == "ED" and not _any_alike(alike, CHAIN)
    if chained:
        prob, after = fitted_chain(shares, target)
        suggestion.config |= {"swaps": [[a, b, prob] for a, b in CHAIN], "swap_draw": "joint"}
        suggestion.reasons["swaps"] = (
            f"{unequal}. With probability {prob:g} oedema becomes enhancing and what was enhancing necrotic. "
            f"Inserted voxels would then be {_shares(after)}, where the lesions have {_shares(shares)}; the target of "
            f"square roots is {words}. {_told_apart(pairs, CHAIN)}"
        )
        suggestion.notes.append(
            "In place of the swaps, class_mix: "
            f"{json.dumps({n: round(s, 2) for n, s in rounded(target).items()})} aims at those shares directly and "
            "picks donors, too; take it if several kinds of lesion are in the data."
        )
    elif alike:
        suggestion.notes.append(
            f"{unequal}, but intensity hardly tells apart {' and '.join(f'{p.first} from {p.second}' for p in alike)}: "
            "renaming one into the other would teach labels that the image does not show, so none is renamed. Draw "
            f"more patches around {least} instead."
        )
    else:
        suggestion.config["class_mix"] = rounded(target)
        suggestion.reasons["class_mix"] = (
            f"{unequal}. Each class is given the square root of its share: {words}, where the lesions have "
            f"{_shares(shares)}. {_told_apart(pairs, list(combinations(present, 2)))}"
        )


def _any_alike(alike: list[ClassPair], swaps: tuple[tuple[str, str], ...]) -> bool:
    return any(find_pair(alike, *swap) is not None for swap in swaps)


def _told_apart(pairs: list[ClassPair], renamed: Sequence[tuple[str, str]]) -> str:
    known = [find_pair(pairs, *names) for names in renamed]
    told = [f"{p.first} and {p.second} {p.words} (AUC {p.auc:.2f})" for p in known if p is not None]
    return f"By intensity one tells {', '.join(told)}, so that renamed tissue can be painted" if told else ""


def tempered(shares: Mapping[str, float]) -> dict[str, float]:
    """Take the square roots of the shares, made to sum to 1; classes that do not occur keep 0."""
    total = sum(np.sqrt(share) for share in shares.values())
    return {name: float(np.sqrt(share) / total) for name, share in shares.items()}


def fitted_chain(shares: Mapping[str, float], target: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Find the probability of the joint chain, in steps of 0.05, whose mean shares are nearest the target; and them."""
    steps = np.arange(1, round(MOST_SWAPPED * 20) + 1) / 20
    outcomes = [(float(p), chained_shares(shares, float(p))) for p in steps]
    return min(outcomes, key=lambda o: sum(abs(o[1][name] - target[name]) for name in target))


def chained_shares(shares: Mapping[str, float], prob: float) -> dict[str, float]:
    """Compute mean shares after the joint chain with this probability."""
    after = dict(shares)
    for source, destination in CHAIN:
        after[source] -= prob * shares[source]
        after[destination] += prob * shares[source]
    return after


def rounded(target: Mapping[str, float]) -> dict[str, float]:
    """Round shares to hundredths that still sum to 1; classes that do not occur are left out."""
    hundredths = {name: round(share, 2) for name, share in target.items() if share > 0}
    largest = max(hundredths, key=lambda name: hundredths[name])
    hundredths[largest] = round(1 - sum(s for n, s in hundredths.items() if n != largest), 2)
    return hundredths


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share)


# ---------------------------------------------------------------------------------------------------- notes


def _notes(suggestion: Suggestion, measured: Measurements, pairs: list[ClassPair]) -> None:
    cases, present = len(measured.cases), measured.present
    for name in measured.classes.names:
        count = measured.cases_with[name]
        if not count:
            suggestion.notes.append(
                f"{name} occurs in no case: no donor has its intensities, so it cannot be asked for."
            )
            continue
        own = measured.ml[:, measured.classes.index(name)] / np.maximum(measured.ml.sum(1), 1e-9)
        traces = int((own < TRACE).sum())
        if traces:
            suggestion.notes.append(
                f"{name} is missing, or below {TRACE:.0%} of the tumour, in {traces} of {cases} cases."
            )
        held = sorted(measured.ml[:, measured.classes.index(name)], reverse=True)
        if count > 2 and held[0] > 0.5 * sum(held):
            suggestion.notes.append(f"One case holds {held[0] / sum(held):.0%} of all {name}.")
    if len(measured.lesions) < FEW_DONORS:
        suggestion.notes.append(
            f"{_count(len(measured.lesions), 'lesion')} of {measured.min_voxels} voxels or more are few donors: let "
            "their shapes vary (rotate_deg and elastic_mm of TumorInsertion), or try lesions: shapes."
        )
    tumours = [pair for pair in pairs if {pair.first, pair.second} <= set(present)]
    if tumours:
        hardest = min(tumours, key=lambda pair: pair.auc)
        suggestion.notes.append(
            f"Of the tumour classes {hardest.first} and {hardest.second} are the most alike: intensity tells them "
            f"apart {hardest.words} (AUC {hardest.auc:.2f} on all channels, {hardest.best_channel} the best of them)."
        )
    if "ct" in measured.channels:
        suggestion.notes.append(
            "On CT the air around the body counts as host tissue here, so figures against it say little; give "
            "TumorInsertion a host mask."
        )
    suggestion.notes.append(_effect(suggestion, measured))


def _effect(suggestion: Suggestion, measured: Measurements) -> str:
    """Work out how much tumour the insertion adds, which no share of classes tells."""
    config, volumes = suggestion.config, np.pi / 6 * suggestion.diameters_mm**3 / 1000
    added = config["prob"] * (1 + config["second"]) * float(volumes.mean())
    own = float(measured.ml.sum(1)[measured.ml.sum(1) > 0].mean())
    return (
        f"Per sample, prob, second and scale add {config['prob'] * (1 + config['second']):.2f} lesions and {added:.1f} "
        f"ml of tumour on average, were there room for each; a case with a tumour has {own:.1f} ml of its own."
        + (" Shares of classes in what a network sees move by that much less." if len(measured.present) > 1 else "")
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _wrapped(text: str, width: int = 108) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
