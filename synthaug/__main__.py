"""``python -m synthaug``: the command line, ``synthaug``."""

from synthaug.cli.app import app

app(prog_name="synthaug")
