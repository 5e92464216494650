"""The viewer, ``synthaug view``: cases in a browser by NiiVue, from a server on this machine alone."""

from synthaug.view.server import ViewServer

__all__ = ["ViewServer"]
