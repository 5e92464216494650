"""Segmentation: what `trainers/segmentation.py` is made of, and trained models that segment cases (`Segmenter`)."""
