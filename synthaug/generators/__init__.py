"""Generators of the appearance of inserted lesions."""
