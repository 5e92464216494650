"""Privacy of a generator, on the lesions that the fidelity kit inserts: nearest training lesions, membership, copies.

Whom a generator has seen its weights say, or a bank's groups. Where patients that it has not seen are among the cases,
their lesions say how near real lesions come to training lesions by chance, and membership can be tested. Where all were
seen, each patient's lesions are compared with those of the others, and membership cannot be tested.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthaug.evaluation.fidelity.classifier import roc_auc
from synthaug.evaluation.fidelity.kit import Kit
from synthaug.evaluation.fidelity.scene import Sample
from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.evaluation.privacy.copies import copied
from synthaug.evaluation.privacy.features import patient_similarity
from synthaug.evaluation.privacy.texture import texture_similarity
from synthaug.files import replace_files
from synthaug.generators.base import TumorGenerator
from synthaug.profile.specimens import repainted
from synthaug.random import stream

FIGURES, TEXT = "privacy.json", "privacy.md"
BLOCKS = 4
REPAINTINGS = 4
LEAST_OUTSIDERS = 2
"""Patients that were not seen, for them to stand for all that were not."""


def measure_privacy(kit: Kit, seen: set[str] | None) -> dict[str, Any]:
    """Measure the privacy of a kit's generator; writes ``privacy.json`` and ``privacy.md`` into its folder.

    Args:
        kit: of the generator; its lesions are inserted where they are not yet.
        seen: patients that the generator, or the bank that it pastes, has seen; None where nothing says it, which
            counts as all of them.

    Returns:
        ``texture`` and ``features``: the similarity of inserted lesions to their nearest training lesion beside that of
        outside lesions, and how many are nearer than any of these; ``donor``: AUC with which it can be told whose mask
        was used; ``membership``; ``masks``; ``paragraph``.

    Raises:
        ValueError: no lesion could be inserted, or none was of a seen patient.
    """
    kit.samples()
    real, made = (kit.store.samples(kind) for kind in ("real", "made"))
    if not made:
        raise ValueError(f"{kit.name}: no lesion found a place in the cases")
    groups = {s.specimen.group for s in real}
    members = groups if seen is None else groups & seen
    if not members:
        raise ValueError(f"{kit.name} has seen none of the patients: nothing of theirs can come to light")
    found = _measured(kit, real, made, members)
    found |= {"generator": kit.name, "seen": sorted(members), "unseen": sorted(groups - members)}
    found["paragraph"] = paragraph(found)
    out = kit.store.out
    replace_files({out / FIGURES: json.dumps(found, indent=1) + "\n", out / TEXT: found["paragraph"] + "\n"})
    return found


def _measured(kit: Kit, real: Sequence[Sample], made: Sequence[Sample], members: set[str]) -> dict[str, Any]:
    sides = [[s.specimen for s in side] for side in (real, made)]
    key = f"texture {BLOCKS} {sorted(members)}"
    if key not in kit.store.rows:
        likeness = [texture_similarity(side, sides[0], BLOCKS, kit.config.seed) for side in (sides[1], sides[0])]
        kit.store.add(key, {"made": _listed(likeness[0]), "real": _listed(likeness[1])})
        kit.say("texture compared")
    row = kit.store.rows[key]
    to_made, to_real = (np.array(row[name], dtype=float) for name in ("made", "real"))
    key = f"features {sorted(members)}"
    if key not in kit.store.rows:
        kit.store.add(key, _features(kit, sides[0], sides[1], members))
        kit.say("features compared")
    groups = [np.array([s.group for s in side]) for side in sides]
    return {
        "texture": _texture(to_made, to_real, groups[0], members),
        "features": _compared(*(np.array(kit.store.rows[key][name], dtype=float) for name in ("made", "outside"))),
        "donor": _donor_told(to_made, groups[1], groups[0], kit.config.seed),
        "membership": _membership(kit, to_made, sides[0], members),
        "masks": _masks(sides[1], [s for s in sides[0] if s.group in members]),
    }


def _texture(to_made: np.ndarray, to_real: np.ndarray, groups: np.ndarray, members: set[str]) -> dict[str, Any]:
    """Compare how near inserted and outside lesions are to training lesions."""
    member = np.isin(groups, sorted(members))
    if _outsiders(groups, members):
        outside = _highest(to_real[~member][:, member])
    else:
        outside = _highest(np.where(groups[:, None] == groups[None], np.nan, to_real))
    return _compared(_highest(to_made[:, member]), outside)


def _features(kit: Kit, real: Sequence[Specimen], made: Sequence[Specimen], members: set[str]) -> dict[str, list]:
    """Nearest training lesions in features; where all patients were seen, by two halves, each the other's outsiders."""
    groups, options = np.array([s.group for s in real]), kit.config.classifier(2)
    if _outsiders(groups, members):
        splits = [set(groups.tolist()) - members]
    else:
        order = stream(kit.config.seed, len(members)).permutation(sorted(members)).tolist()
        splits = [set(order[::2]), set(order[1::2])]
    near: dict[str, list] = {"made": [], "outside": []}
    for number, outside in enumerate(splits):
        training = [s for s in real if s.group in members - outside]
        # a copy of a patient outside has nothing to be like
        asked = ([s for s in made if s.group not in outside], [s for s in real if s.group in outside])
        if len({s.group for s in training}) < 2:
            continue
        likeness = patient_similarity(training, asked, options, kit.config.seed + number)
        for name, table in zip(near, likeness, strict=True):
            near[name] += _listed(table.amax(1)) if len(table) else []
    return near


def _compared(made: np.ndarray, outside: np.ndarray) -> dict[str, Any]:
    """Summarise the similarity to the nearest training lesion of inserted and outside lesions."""
    made, outside = made[np.isfinite(made)], outside[np.isfinite(outside)]
    if not len(made) or not len(outside):
        return {"lesions": len(made), "outside": len(outside)}
    return {
        "lesions": len(made),
        "outside": len(outside),
        "median": float(np.median(made)),
        "highest": float(made.max()),
        "outside_median": float(np.median(outside)),
        "outside_highest": float(outside.max()),
        "nearer_than_all": int((made > outside.max()).sum()),
        "auc": roc_auc(outside, made),
    }


def _donor_told(to_made: np.ndarray, made: np.ndarray, real: np.ndarray, seed: int) -> dict[str, float] | None:
    """Tell the patient whose mask was used from others by the likeness of the look: AUC and interval over patients."""
    values, whose = [], []
    names = np.array(sorted(set(real.tolist())))
    for row, group in zip(to_made, made, strict=True):
        nearest = _highest(np.stack([np.where(real == name, row, np.nan) for name in names]))
        own, others = nearest[names == group], nearest[(names != group) & np.isfinite(nearest)]
        if len(others) and np.isfinite(own).all() and len(own):
            values.append(roc_auc(others, own))
            whose.append(group)
    return _weighted(np.array(values), np.array(whose), seed) if values else None


def _weighted(values: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float]:
    """Average values, with an interval by random weights of patients."""
    names = sorted(set(groups.tolist()))
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(names)), 2000)[:, [names.index(g) for g in groups]]
    low, high = np.quantile((weights * values).sum(1) / weights.sum(1), (0.025, 0.975))
    return {"auc": float(values.mean()), "low": float(low), "high": float(high)}


def _membership(kit: Kit, to_made: np.ndarray, real: Sequence[Specimen], members: set[str]) -> dict[str, Any]:
    """Test whether a patient was trained on: by what is inserted and, for weights, by painting his lesions anew."""
    groups = np.array([s.group for s in real])
    if not _outsiders(groups, members):
        why = "the generator has seen all patients here, or all but one" if len(members) > 1 else "one patient was seen"
        return {"tested": False, "why": why}
    member = np.isin(groups, sorted(members))
    scores = {"black_box": _highest(to_made.T)}
    if not kit.scene.generator.needs_donor:
        scores["repainting"] = repainting_scores(real, kit.scene.generator, kit.profile, kit.config.seed)
    return {"tested": True} | {name: _auc_of(score, member, groups, kit.config.seed) for name, score in scores.items()}


def repainting_scores(
    real: Sequence[Specimen], generator: TumorGenerator, profile: Any, seed: int = 0, count: int = REPAINTINGS
) -> np.ndarray:
    """Score how near a generator comes to real lesions when it paints them anew: higher is nearer, (N,).

    The score is minus the least mean absolute difference over the lesion of `count` seeds (Chen et al. 2020, GAN-Leaks,
    with the mask and the surroundings known).
    """
    bound = generator.bind(profile.names, profile.classes.names)
    errors = []
    for number in range(count):
        made = repainted(real, bound, seed + 1000 * number)
        errors.append(
            [float((m.image - s.image)[:, s.mask.sum(0) > 0].abs().mean()) for m, s in zip(made, real, strict=True)]
        )
    return -np.array(errors).min(0)


def _auc_of(scores: np.ndarray, member: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float] | None:
    """AUC of scores for members against others, with an interval by random weights of patients."""
    known = np.isfinite(scores)
    scores, member, groups = scores[known], member[known], groups[known]
    if member.all() or not member.any():
        return None
    pairs = (scores[member][:, None] > scores[~member][None]) + 0.5 * (scores[member][:, None] == scores[~member][None])
    names = sorted(set(groups.tolist()))
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(names)), 2000)[:, [names.index(g) for g in groups]]
    a, b = weights[:, member], weights[:, ~member]
    low, high = np.quantile(np.einsum("ni,ij,nj->n", a, pairs, b) / (a.sum(1) * b.sum(1)), (0.025, 0.975))
    return {"auc": float(pairs.mean()), "low": float(low), "high": float(high)}


def _masks(made: Sequence[Specimen], training: Sequence[Specimen]) -> dict[str, int]:
    same = copied([_numbered(s) for s in made], [_numbered(s) for s in training])
    return {"lesions": len(same), "copies": sum(same)}


def _numbered(specimen: Specimen) -> np.ndarray:
    values = torch.arange(1, len(specimen.mask) + 1)[:, None, None, None]
    return (specimen.mask * values).sum(0).byte().numpy()


def _outsiders(groups: np.ndarray, members: set[str]) -> bool:
    return len(set(groups.tolist()) - members) >= LEAST_OUTSIDERS


def _highest(table: np.ndarray) -> np.ndarray:
    """Highest finite value of each row, NaN where there is none."""
    filled = np.where(np.isfinite(table), table, -np.inf)
    best = filled.max(1, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def _listed(table: Tensor) -> list:
    return table.double().round(decimals=4).tolist()


def paragraph(found: dict[str, Any]) -> str:
    """Say in words, to be quoted, what was measured."""
    texture, features, masks = found["texture"], found["features"], found["masks"]
    reference = "patients that it has not seen" if found["membership"]["tested"] else "each other patient"
    words = [
        f"{found['generator']} inserted {masks['lesions']} lesions into other patients of a set of "
        f"{len(found['seen'])} that it has seen and {len(found['unseen'])} that it has not."
    ]
    if "median" in texture:
        words.append(
            f"The texture of the {texture['lesions']} that are large enough for it correlates with that of their "
            f"nearest training lesion by {texture['median']:.2f} in the median and {texture['highest']:.2f} at most; "
            f"real lesions of {reference} do by {texture['outside_median']:.2f} and "
            f"{texture['outside_highest']:.2f}, and "
            f"{texture['nearer_than_all']} of {texture['lesions']} inserted lesions are nearer than any of these."
        )
    if "median" in features:
        words.append(
            f"In the features of a network that tells the training patients apart, {features['nearer_than_all']} of "
            f"{features['lesions']} are nearer than any real lesion that it was not trained on."
        )
    if found["donor"]:
        words.append(f"The patient whose mask was used is told from the look with an AUC of {_words(found['donor'])}.")
    words.append(_membership_words(found["membership"]))
    words.append(f"{masks['copies']} of {masks['lesions']} masks are exact copies of training masks.")
    return " ".join(words)


def _membership_words(found: dict[str, Any]) -> str:
    if not found["tested"]:
        return f"Membership could not be tested: {found['why']}."
    names = {"black_box": "from inserted lesions", "repainting": "by painting lesions anew"}
    told = [f"{_words(found[name])} {how}" for name, how in names.items() if found.get(name)]
    return f"Who was trained on is told with an AUC of {' and '.join(told)}."


def _words(found: dict[str, float]) -> str:
    return f"{found['auc']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
