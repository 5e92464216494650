"""A data set's own generator: a GAN trained on the profile's crops, until the clock or held-out patients say stop.

The training is that of trainers/gan.py by the configuration that `fit` wrote, with networks and crops as small as a CPU
needs where there is no accelerator. A tenth of the time goes by before the first validation on the held-out patients;
each paints their lesions anew, over the real ones in their own surroundings, and compares statistics. The best
generator of all is kept. The run's folder has the validations and the time that went by, so that the same command goes
on with a training that was stopped, more minutes make one longer, and a finished one is not trained again.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
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
from synthaug.profile.validations import FILE as VALIDATIONS
from synthaug.profile.validations import Validations

FOLDER = "generator"
"""Folder of the kept generator, beside the profile."""
RUN = "generator_run"
PROBE_STEPS, COUNT, PATIENCE = 12, 12, 4
MOST_STEPS, LEAST_STEPS = 20_000, 60
SMALL = ("painter.widths=[16, 32, 48, 64]", "critic.widths=[16, 32, 48]", "crops.sizes={32: 1, 48: 2}", "demo.size=48")
"""Networks and crops of a training without an accelerator."""
USE = 0.9
"""Share of the time for steps; the rest is for validations and files."""


class Watch:
    """Stops a training by the clock, or when held-out lesions are painted no better for some validations.

    Args:
        real: held-out real lesions.
        minutes: length of the training, of all its sittings; the clock of this one starts here.
        out: folder of the run, which gets the validations and may have some.
        keep: called with the generator whenever it is the best so far.
        every: steps between validations.
    """

    def __init__(self, real: Sequence[Specimen], minutes: float, out: Path, keep: Callable[[Any], Any], every: int = 1):
        self.real, self.out, self.keep, self.every = list(real), out, keep, every
        self.validations = Validations.load(out)
        self.begun = time.monotonic() - self.validations.seconds
        self.until = self.begun + 60 * minutes

    def __call__(self, step: int, make: Callable[[], TumorGenerator]) -> bool:
        """Tell whether the training ends after this step."""
        over = time.monotonic() >= self.until
        if step % self.every and not over:
            return False
        generator = make()
        found = distance(self.real, repainted(self.real, generator))
        if found < self.validations.best:
            self.keep(generator)
        self.validations = self.validations.with_one(step, found, time.monotonic() - self.begun)
        self.validations.save(self.out)
        return over or self.validations.since >= PATIENCE


def train_generator(fitted: Fitted, minutes: float) -> Validations:
    """Train the data set's own GAN beside its profile, or go on; `generator` there is the best of all validations.

    Args:
        fitted: what `fit` gave.
        minutes: length of the training, with what went by before it was stopped. A run that had them, or that ended
            because nothing got better, takes no further step.

    Returns:
        The validations on held-out patients.

    Raises:
        ConfigError: fewer than two patients, of whom none could be held out, held-out lesions that are too small, or a
            run of another configuration in the folder.
    """
    from synthaug.training.gan_config import GANConfig
    from synthaug.training.launch import load_trainer
    from synthaug.training.run import steps_done

    real = real_specimens(cases_held_out(fitted), fitted.profile)
    if not real:
        raise ConfigError("--train: no lesion of the held-out patients is large enough to be measured")
    trainer, out, best = load_trainer("gan"), fitted.out / RUN, fitted.out / FOLDER
    if not best.is_dir():
        (out / VALIDATIONS).unlink(missing_ok=True)  # they were of a generator that is gone
    watch = Watch(real, minutes, out, partial(save_generator, folder=best))
    overrides, steps = [] if torch.cuda.is_available() else list(SMALL), steps_done(out)
    if not finished(watch.validations, minutes):
        seconds = _seconds_per_step(trainer, fitted.out / "gan.yaml", overrides)
        left = max(LEAST_STEPS, USE * (60 * minutes - watch.validations.seconds) / seconds)
        steps = max(steps, int(min(MOST_STEPS, steps + left)))
        watch.every = max(1, steps // COUNT)
    overrides += [f"optimizer.steps={steps}", f"checkpoint_every={max(50, steps // 20)}"]
    trainer.train(read_config(fitted.out / "gan.yaml", GANConfig, overrides), out, watch)
    if not watch.validations.found:
        raise ConfigError(f"{out}: the training ended before its first validation; give more --minutes")
    ended = watch.validations.model_copy(update={"seconds": max(60 * minutes, watch.validations.seconds)})
    ended.save(out)
    return ended


def finished(validations: Validations, minutes: float) -> bool:
    """Tell whether a run with these validations has no step to take in so many minutes."""
    return bool(validations.found) and (validations.seconds >= 60 * minutes or validations.since >= PATIENCE)


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
