"""Configurations that are ready to run with a profile: three trainers, nnU-Net and a cohort."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from synthaug.data.cases import Case
from synthaug.data.folds import fold_split
from synthaug.lesions.bank import LesionBank
from synthaug.profile import inserted
from synthaug.profile.decisions import gate_border
from synthaug.profile.profile import BANK, Profile
from synthaug.profile.use import beside

FOLDS = 5
COARSE_SIDE, COARSE_FILTERS = 48, (12, 24, 48, 96)
COHORT_CASES = 100


def configurations(profile: Profile, cases: Sequence[Case], bank: LesionBank, path: Path) -> dict[str, str]:
    """File name to content.

    Args:
        profile: of the data.
        cases: that were measured.
        bank: their lesions.
        path: of the profile's file.
    """
    split, learned = _split(cases), inserted.takes_learned(profile, cases)
    options, painted = inserted.options(profile, learned), str(path.parent / inserted.PAINTED)
    segmentation, coarse = _segmentation(profile, path, split), _coarse(profile, path, split)
    nnunet, commands, lesions = _nnunet(profile, options), COMMANDS, dict[str, Any]()
    if learned:
        lesions = {"bank": inserted.MASKS, "generator": inserted.PAINTER, "painted": inserted.POOL}
        coarse["optimizer"]["steps"] *= 2  # what it brings takes longer to learn (docs/when_it_pays.md)
        nnunet["bank"] = painted
        commands = COMMANDS | {"nnunet.yaml": f"{inserted.PAINT}; export SYNTHAUG_CONFIG={{file}}"}
    for content in (segmentation, coarse):
        content["insertion"] |= lesions | options
    files = {
        "segmentation.yaml": (segmentation, "A segmenter by the profile's plan, for a GPU"),
        "segmentation_coarse.yaml": (coarse, "The same on coarse voxels, for a try on a CPU"),
        "gan.yaml": (_gan(profile, path, cases), "A GAN that paints this data set's lesions"),
        "diffusion.yaml": (_diffusion(profile, path, cases), "A diffusion model that does the same"),
        "cohort.yaml": (_cohort(profile, bank, path), "Synthetic cases as files, in the layout of the data"),
        "nnunet.yaml": (nnunet, "Settings of nnUNetTrainerSynthAug"),
    }
    told = {name: commands[name].format(file=path.parent / name, painted=painted) for name in files}
    return {name: _text(content, head, told[name]) for name, (content, head) in files.items()}


COMMANDS = {
    "segmentation.yaml": "synthaug train segmentation --config {file}",
    "segmentation_coarse.yaml": "synthaug train segmentation --config {file}",
    "gan.yaml": "synthaug train gan --config {file}",
    "diffusion.yaml": "synthaug train diffusion --config {file}",
    "cohort.yaml": "synthaug cohort --config {file} --out COHORT",
    "nnunet.yaml": "export SYNTHAUG_CONFIG={file}; synthaug nnunet-bank DATASET_ID --fold 0",
}


def _text(content: Mapping[str, Any], head: str, command: str) -> str:
    note = "# What is not given here is the profile's, or the default; a key that is given wins over the profile."
    return f"# {head}.\n#   {command}\n{note}\n\n{yaml.safe_dump(content, sort_keys=False, width=110)}"


def _split(cases: Sequence[Case]) -> dict[str, Any]:
    """Choose the keys that say which cases are for validation; with one patient there are none to hold out."""
    patients = {case.group for case in cases}
    if len(patients) < 2:
        return {"validation": sorted(patients)}
    return {"folds": min(FOLDS, len(patients)), "fold": 0}


def held_out_patients(cases: Sequence[Case]) -> list[str]:
    """List the patients that no generator of a profile is trained on, the test set of the first fold."""
    patients = {case.group for case in cases}
    if len(patients) < 2:
        return []
    return sorted({case.group for case in fold_split(list(cases), min(FOLDS, len(patients)), 0, 0)[1]})


def _segmentation(profile: Profile, path: Path, split: dict[str, Any]) -> dict[str, Any]:
    plan = profile.plan
    levels = len(plan.strides)
    return {
        "data": {
            "profile": str(path),
            **split,
            "spacing_mm": list(plan.spacing_mm),
            "dtype": "float16",
            "patch_size": list(plan.patch_size),
            "batch": plan.batch,
            "lesion_share": 0.5,
            "workers": 8,
        },
        "network": {
            "name": "DynUNet",
            "filters": list(plan.filters),
            "strides": [list(s) for s in plan.strides],
            "kernels": [list(k) for k in plan.kernels],
            "deep_supervision": max(0, min(3, levels - 2)),
        },
        "loss": {"name": "dice_ce"},
        "augmentation": {},
        "optimizer": {
            "steps": 50_000, "name": "sgd", "lr": 0.01, "momentum": 0.99, "weight_decay": 3.0e-5, "schedule": "poly",
            "warmup_steps": 500, "ema": 0.999,
        },
        "insertion": {},
        "validation": {"every": 5000},
        "inference": {"overlap": 0.5, "windows": 4},
        "log_every": 50,
        "checkpoint_every": 1000,
    }  # fmt: skip


def _coarse(profile: Profile, path: Path, split: dict[str, Any]) -> dict[str, Any]:
    """Choose voxels so large that the median case is about twice as long as a patch of `COARSE_SIDE`."""
    extent = np.array(profile.plan.shape) * np.array(profile.plan.spacing_mm)
    least = float(np.max(extent)) / (2 * COARSE_SIDE)
    spacing = [round(max(s, least), 2) for s in profile.plan.spacing_mm]
    sides = [int(max(16, min(COARSE_SIDE, 16 * round(e / s / 16)))) for e, s in zip(extent, spacing, strict=True)]
    whole = _segmentation(profile, path, split)
    whole["data"] |= {"spacing_mm": spacing, "patch_size": sides, "batch": 2, "dtype": "float32", "workers": 0}
    whole["network"] = {
        "name": "DynUNet", "filters": list(COARSE_FILTERS), "strides": [1, 2, 2, 2], "deep_supervision": 1,
    }  # fmt: skip
    whole["optimizer"] = {"steps": 600, "name": "adamw", "lr": 2.0e-3, "warmup_steps": 20, "ema": 0.99}
    whole["validation"] = {"every": 300}
    if edge := profile.insertion.get("edge_vox"):
        # as wide in mm as on the data's own voxels: on wider ones it would make small lesions mostly edge
        whole["insertion"] = {"edge_vox": round(edge * min(profile.plan.spacing_mm) / min(spacing), 2)}
    return whole | {"threads": 2, "log_every": 20, "checkpoint_every": 100}


def _crops(profile: Profile) -> dict[str, Any]:
    return {"sizes": dict(profile.plan.crops)}


def _generator_data(profile: Profile, path: Path, cases: Sequence[Case]) -> dict[str, Any]:
    return {"profile": str(path), "validation": held_out_patients(cases), "batch": 2}


def _gan(profile: Profile, path: Path, cases: Sequence[Case]) -> dict[str, Any]:
    several = len(profile.labels.lesions) > 1
    return {
        "data": _generator_data(profile, path, cases),
        "crops": _crops(profile) | {"swap": 0.2 if several else 0.0},
        "painter": {"widths": [32, 64, 96, 128], "head": max(16, 2 * len(profile.channels) + 1)},
        "optimizer": {"steps": 6000},
        "demo": {"size": 64},
    }


def _diffusion(profile: Profile, path: Path, cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "data": _generator_data(profile, path, cases),
        "crops": _crops(profile) | {"swap": 0.2 if len(profile.labels.lesions) > 1 else 0.0},
        "refine": {"start": 4000},
        "optimizer": {"steps": 6000},
        "demo": {"size": 64},
    }


def _cohort(profile: Profile, bank: LesionBank, path: Path) -> dict[str, Any]:
    most = len(profile.sizes.per_case) - 1
    options = {k: v for k, v in profile.insertion.items() if k not in ("prob", "second", "seed")}
    return {
        "profile": str(path),
        "layout": profile.data.layout,
        "count": COHORT_CASES,
        "lesions": {"bank": str(path.parent / BANK), "per_case": [1, max(1, min(most, 3))], **options},
        "gate": {"deviation": 4.0, "border_jump": gate_border(bank)},
    }


def _nnunet(profile: Profile, options: Mapping[str, Any]) -> dict[str, Any]:
    rule, labels = profile.host, profile.labels
    return {
        "bank": "bank_fold{fold}.safetensors",
        "generator": "paste",
        "classes": dict(labels.lesions),
        "channels": list(profile.names),
        "group_pattern": profile.data.group_pattern,
        "host": {
            "labels": list(labels.organs),
            "range": {name: list(bounds) for name, bounds in rule.range.items()},
            "clip": "inside",
            "statistics": "patch",
        },
        "insertion": {**beside(profile.insertion, options), **options},
    }
