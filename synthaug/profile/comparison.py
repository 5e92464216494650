"""Which generator suits a data set: each inserts lesions of training patients into held-out ones, and is measured.

Measured are the distance of intensities and texture from the real lesions of these patients, and the area under the
curve of a small classifier that tries to tell them apart, where there are patients enough. The distance of the training
patients' real lesions from the held-out ones stands beside it: nothing can be expected to be nearer than that.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from synthaug.data.cases import Case
from synthaug.evaluation.fidelity import ClassifierOptions, Specimen, classifier_auc
from synthaug.frames import host_frame
from synthaug.profile.fit import Fitted
from synthaug.profile.profile import FILE, Generator, Profile
from synthaug.profile.specimens import cut, distance, inserted_alone, model_intensities, real_specimens, with_host

logger = logging.getLogger(__name__)

INSERTIONS = 24
SCALE = (0.8, 1.0)
"""Near the donors' own sizes, so that texture is not compared with that of lesions twice as large."""
LEAST_PATIENTS = 2
CLASSIFIER = ClassifierOptions(folds=2, steps=120, batch=8)
"""Small enough for minutes on a CPU; `synthaug.evaluation.fidelity` asks more thoroughly."""
REAL = "real lesions of other patients"
NEARER_BY, EASIER_BY = 0.02, 0.05
"""A generator is preferred to a simpler one only where its distance is less by more than the first, and the
classifier's area under the curve not greater by more than the second."""


def inserted_specimens(
    fitted: Fitted, cases: Sequence[Case], generator: str, count: int = INSERTIONS
) -> list[Specimen]:
    """Insert lesions of all other patients into cases by the profile, and cut them out.

    Args:
        fitted: what `fit` gave.
        cases: hosts.
        generator: name or folder.
        count: insertions that are tried; one that finds no place gives no specimen.
    """
    from synthaug.insertion.insertion import TumorInsertion

    profile, hosts = fitted.profile, {case.group for case in cases}
    donors = fitted.bank.of_groups(set(fitted.bank.groups) - hosts)
    options = {"prob": 1.0, "second": 0.0, "seed": 0, "scale": SCALE}
    engine = TumorInsertion.from_profile(fitted.out / FILE, donors, generator, **options)
    found = []
    for first, case in enumerate(cases):
        volume, host = with_host(case, profile)
        image, label = torch.from_numpy(volume.image)[None], torch.from_numpy(volume.label)[None]
        known: dict[str, Any] = {"groups": [case.group], "frames": host_frame(host, volume.affine)}
        for _ in range(first, count, len(cases)):
            after, after_label = engine(image, label, volume.spacing_mm, host=torch.from_numpy(host)[None], **known)
            only = inserted_alone(label, after_label)[0]
            changed = replace(volume, image=after[0].numpy())
            specimen = cut(model_intensities(changed, host, profile), only, profile, case.group)
            if specimen is not None:
                found.append(specimen)
    return found


def compare(fitted: Fitted, cases: Sequence[Case], generators: Sequence[str]) -> dict[str, dict[str, float]]:
    """Measure generators on patients that none of them saw; name to ``distance`` and, where it can be had, ``auc``.

    Args:
        fitted: what `fit` gave.
        cases: of held-out patients.
        generators: names, or folders beside the profile.
    """
    real = real_specimens(cases, fitted.profile)
    others = [case for case in fitted.cases if case.group not in {c.group for c in cases}]
    rows = {REAL: {"distance": round(distance(real, real_specimens(others[:INSERTIONS], fitted.profile)), 3)}}
    for name in generators:
        folder = fitted.out / name
        made = inserted_specimens(fitted, cases, str(folder) if folder.is_dir() else name)
        if not made:
            logger.warning("%s: no lesion found a place in the held-out patients", name)
            continue
        rows[name] = {"distance": round(distance(real, made), 3), "lesions": float(len(made))}
        patients = {s.group for s in real} & {s.group for s in made}
        if len(patients) >= LEAST_PATIENTS:
            rows[name]["auc"] = round(classifier_auc(real, made, options=CLASSIFIER)["auc"], 3)
    return rows


def recommended(profile: Profile, rows: dict[str, dict[str, float]]) -> Profile:
    """Write into a profile which generator is nearest to the real lesions, simpler ones first, and the figures."""
    known = [name for name in rows if name != REAL]
    best = known[0]
    for name in known[1:]:
        nearer = rows[name]["distance"] < rows[best]["distance"] - NEARER_BY
        told_apart = rows[name].get("auc", 0.5) > rows[best].get("auc", 1.0) + EASIER_BY
        best = name if nearer and not told_apart else best
    figures = ", ".join(f"{name} {row['distance']:.2f}" for name, row in rows.items())
    why = (
        f"distance of intensities and texture from the real lesions of held-out patients: {figures}; a generator is "
        f"preferred to a simpler one where it is nearer by more than {NEARER_BY:g} and a classifier does not tell it "
        f"more easily, by {EASIER_BY:g} in AUC. It does not say what helps training most: synthaug trial does"
    )
    return profile.model_copy(
        update={"generator": Generator(name=best, compared=rows), "why": profile.why | {"generator": why}}
    )
