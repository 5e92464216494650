"""Segmentation: parts of `trainers/segmentation.py`, and trained models that segment cases (`Segmenter`)."""
