"""Figures: pages of HTML and slices of volumes."""
