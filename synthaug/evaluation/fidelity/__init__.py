"""Fidelity of inserted lesions: statistics, distances, diversity, a classifier that tries to tell; and the kit of them.

`synthaug.evaluation.fidelity.kit` measures any generator on a folder of cases, as ``synthaug fidelity`` does.
"""

from synthaug.evaluation.fidelity.border import border_profile, border_profiles, linear_scores
from synthaug.evaluation.fidelity.classifier import (
    REGIONS,
    ClassifierOptions,
    Fold,
    Look,
    auc_interval,
    classifier_auc,
    held_out_scores,
    roc_auc,
)
from synthaug.evaluation.fidelity.distances import mean_distance, split_distances
from synthaug.evaluation.fidelity.statistics import (
    LEAST_VOXELS,
    STATISTICS,
    Specimen,
    between_patients,
    compare_statistics,
    diversity,
    lesion_statistics,
    within,
)

__all__ = [
    "LEAST_VOXELS",
    "REGIONS",
    "STATISTICS",
    "ClassifierOptions",
    "Fold",
    "Look",
    "Specimen",
    "auc_interval",
    "between_patients",
    "border_profile",
    "border_profiles",
    "classifier_auc",
    "compare_statistics",
    "diversity",
    "held_out_scores",
    "lesion_statistics",
    "linear_scores",
    "mean_distance",
    "roc_auc",
    "split_distances",
    "within",
]
