"""Lesions that are painted ahead of their insertion."""
