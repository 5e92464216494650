"""Phantoms: brains and gliomas made from formulas and anatomy."""
