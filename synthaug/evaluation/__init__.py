"""Scores of segmentations: voxel, surface and lesion-wise metrics per class, region and lesion size; and tables."""

from synthaug.evaluation.case import evaluate_case
from synthaug.evaluation.lesionwise import LesionScore, Lesionwise, match_lesions
from synthaug.evaluation.regions import default_regions
from synthaug.evaluation.registry import METRICS, Metric, lesionwise_metrics, mask_metrics
from synthaug.evaluation.summary import format_table, paired_differences, summarise, write_table
from synthaug.sizes import SizeClasses

__all__ = [
    "METRICS",
    "LesionScore",
    "Lesionwise",
    "Metric",
    "SizeClasses",
    "default_regions",
    "evaluate_case",
    "format_table",
    "lesionwise_metrics",
    "mask_metrics",
    "match_lesions",
    "paired_differences",
    "summarise",
    "write_table",
]
