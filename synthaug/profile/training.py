"""A data set's own generator: a GAN trained on the profile's crops, until the clock or held-out patients say stop.

The training is that of trainers/gan.py by the configuration that `fit` wrote, with networks and crops as small as a CPU
needs where there is no accelerator. A tenth of the time goes by before the first look at the held-out patients; each
look paints their lesions anew, over the real ones in their own surroundings, and compares statistics. The best
generator of all looks is kept.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from synthaug.config import ConfigError, read_config
from synthaug.data.cases import Case
from synthaug.evaluation.fidelity import Specimen
from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.hub import save_generator
from synthaug.profile.fit import Fitted
from synthaug.profile.specimens import distance, real_specimens, repainted

FOLDER = "generator"
"""Folder of the kept generator, beside the profile."""
RUN = "generator_run"
PROBE_STEPS, LOOKS, PATIENCE = 12, 12, 4
MOST_STEPS, LEAST_STEPS = 20_000, 60
SMALL = ("painter.widths=[16, 32, 48, 64]", "critic.widths=[16, 32, 48]", "crops.sizes={32: 1, 48: 2}", "demo.size=48")
"""Networks and crops of a training without an accelerator."""
USE = 0.9
"""Share of the time for steps; the rest is for looks and files."""


class Watch:
    """Stops a training by the clock, or when held-out lesions are painted no better for some looks.

    Args:
        real: held-out real lesions.
        every: steps between looks.
        until: time (`time.monotonic`) of the end.
        keep: called with the generator whenever it is the best so far.
    """

    def __init__(
        self, real: Sequence[Specimen], every: int, until: float, keep: Callable[[TumorGenerator, float], None]
    ):
        self.real, self.every, self.until, self.keep = list(real), max(1, every), until, keep
        self.best, self.since, self.looks = float("inf"), 0, list[tuple[int, float]]()

    def __call__(self, step: int, make: Callable[[], TumorGenerator]) -> bool:
        """Tell whether the training ends after this step."""
        over = time.monotonic() >= self.until
        if step % self.every and not over:
            return False
        generator = make()
        found = distance(self.real, repainted(self.real, generator))
        self.looks.append((step, found))
        self.since = 0 if found < self.best else self.since + 1
        if found < self.best:
            self.best = found
            self.keep(generator, found)
        return over or self.since >= PATIENCE


def train_generator(fitted: Fitted, minutes: float) -> Watch:
    """Train the data set's own GAN beside its profile; `generator` there is the best of all looks.

    Args:
        fitted: what `fit` gave.
        minutes: length of the training.

    Returns:
        The looks at held-out patients.

    Raises:
        ConfigError: fewer than two patients, of whom none could be held out, or held-out lesions that are too small.
    """
    from synthaug.training.gan_config import GANConfig
    from synthaug.training.launch import load_trainer

    real = real_specimens(cases_held_out(fitted), fitted.profile)
    if not real:
        raise ConfigError("--train: no lesion of the held-out patients is large enough to be measured")
    until = time.monotonic() + 60 * minutes
    trainer, out = load_trainer("gan"), fitted.out / RUN
    overrides = [] if torch.cuda.is_available() else list(SMALL)
    seconds = _seconds_per_step(trainer, fitted.out / "gan.yaml", overrides)
    steps = int(min(MOST_STEPS, max(LEAST_STEPS, USE * 60 * minutes / seconds)))
    overrides += [f"optimizer.steps={steps}", f"checkpoint_every={max(50, steps // 20)}"]
    config = read_config(fitted.out / "gan.yaml", GANConfig, overrides)

    def keep(generator: Any, found: float) -> None:
        save_generator(generator, fitted.out / FOLDER)

    watch = Watch(real, steps // LOOKS, until, keep)
    trainer.train(config, out, watch)
    if not watch.looks:
        raise ConfigError(f"{out}: the training ended before its first look at a held-out patient; give more --minutes")
    return watch


def cases_held_out(fitted: Fitted) -> list[Case]:
    """List the cases of the patients that no generator of this profile is trained on.

    Raises:
        ConfigError: there is none.
    """
    from synthaug.profile.configs import held_out_patients

    patients = set(held_out_patients(fitted.cases))
    cases = [case for case in fitted.cases if case.group in patients]
    if not cases or len(patients) == len({case.group for case in fitted.cases}):
        raise ConfigError("--train: expected at least two patients, so that one can be held out")
    return cases


def _seconds_per_step(trainer: Any, file: Path, overrides: Sequence[str]) -> float:
    """Time a few steps of a training in a folder that is thrown away."""
    from synthaug.training.gan_config import GANConfig

    few = [f"optimizer.steps={PROBE_STEPS}", f"log_every={PROBE_STEPS // 2}", "demo.every=1000000"]
    few += ["loss.adversarial_from=0", f"checkpoint_every={PROBE_STEPS}"]
    with tempfile.TemporaryDirectory() as folder:
        row = trainer.train(read_config(file, GANConfig, [*overrides, *few]), Path(folder))
    return float(row["seconds_per_step"])
