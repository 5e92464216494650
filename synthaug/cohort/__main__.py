"""``python -m synthaug.cohort``, for ``accelerate launch -m synthaug.cohort`` and ``torchrun -m synthaug.cohort``."""

import typer

from synthaug.cli.cohort import cohort

if __name__ == "__main__":
    typer.run(cohort)
