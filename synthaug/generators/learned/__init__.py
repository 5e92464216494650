"""Trained generators: networks, their files, and the ways to paint with them."""
