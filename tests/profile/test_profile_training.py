"""`synthaug fit --train`: when a training ends, which generator is recommended, and the whole of it on made-up CT."""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from synthaug import TumorInsertion
from synthaug.config import ConfigError
from synthaug.evaluation.fidelity import Specimen
from synthaug.generators.base import TumorGenerator
from synthaug.generators.learned.gan import GANGenerator
from synthaug.profile.comparison import REAL, compare, recommended
from synthaug.profile.fit import rewritten
from synthaug.profile.specimens import distance, repainted
from synthaug.profile.training import FOLDER, PATIENCE, RUN, SMALL, Watch, cases_held_out, finished, train_generator
from synthaug.profile.validations import Validations
from synthaug.training.run import steps_done


class Noise(TumorGenerator):
    """Paints noise of a spread."""

    def __init__(self, spread: float):
        self.spread = spread

    def generate(self, context, mask, seeds, donor=None, support=None):
        drawn = [torch.randn(context.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        return self.spread * torch.stack(drawn)


def specimens() -> list[Specimen]:
    mask = torch.zeros(1, 20, 20, 20)
    mask[:, 5:15, 5:15, 5:15] = 1
    return [
        Specimen(torch.randn(1, 20, 20, 20, generator=torch.Generator().manual_seed(s)), mask, f"{s}") for s in (1, 2)
    ]


def test_distance_is_least_where_statistics_agree():
    real = specimens()
    near, far = (distance(real, repainted(real, Noise(spread), seed=5)) for spread in (1.0, 3.0))
    assert near < 0.1 < 0.5 < far


def test_surroundings_stay_as_they_are():
    real = specimens()
    made = repainted(real, Noise(2.0))
    outside = real[0].mask[0] == 0
    assert torch.equal(made[0].image[:, outside], real[0].image[:, outside])
    assert not torch.equal(made[0].image, real[0].image)


def watching(out, minutes: float = 1000, every: int = 10) -> tuple[Watch, list[float]]:
    kept = list[float]()
    return Watch(specimens(), minutes, out, lambda generator: kept.append(generator.spread), every), kept


def test_a_training_ends_when_nothing_gets_better(tmp_path):
    watch, kept = watching(tmp_path)
    spreads = [3.0, 2.0, 1.0, *[4.0] * PATIENCE]
    ended = [watch(10 * number, partial(Noise, spread)) for number, spread in enumerate(spreads, 1)]
    assert kept == [3.0, 2.0, 1.0] and ended == [False] * (len(spreads) - 1) + [True]
    assert not watch(11, partial(Noise, 1.0)), "it validates at every tenth step alone"


def test_the_clock_ends_a_training_with_a_last_validation(tmp_path):
    watch, kept = watching(tmp_path, minutes=0, every=1000)
    assert watch(3, partial(Noise, 1.0)) and list(watch.validations.found) == [3] and kept == [1.0]


def test_a_run_that_goes_on_knows_its_validations_its_best_and_its_time(tmp_path):
    first, _ = watching(tmp_path)
    for step, spread in ((10, 3.0), (20, 1.0), (30, 4.0)):
        first(step, partial(Noise, spread))
    Validations.load(tmp_path).model_copy(update={"seconds": 45.0}).save(tmp_path)
    second, kept = watching(tmp_path, minutes=1)
    assert 10 < second.until - time.monotonic() < 15.1, "a quarter of the minute is left"
    # what was killed after its validation is done again: the same step counts once
    ended = [second(step, partial(Noise, 4.0)) for step in range(30, 30 + 10 * PATIENCE, 10)]
    assert kept == [] and ended == [False] * (PATIENCE - 1) + [True]
    assert list(Validations.load(tmp_path).found) == list(range(10, 30 + 10 * PATIENCE, 10))


@pytest.mark.parametrize(
    ("found", "minutes", "over"),
    [
        ({}, 1, False),
        ({10: 0.5}, 1, True),
        ({10: 0.5}, 2, False),
        (dict.fromkeys(range(1, PATIENCE + 1), 0.5), 2, False),
        (dict.fromkeys(range(1, PATIENCE + 2), 0.5), 2, True),
    ],
)
def test_a_run_is_finished_by_its_minutes_or_by_patience(found, minutes, over):
    assert finished(Validations(seconds=60, found=found), minutes) == over


def test_validations_that_tell_nothing_are_the_worst_and_damaged_ones_are_named(tmp_path):
    assert Validations().with_one(5, float("nan"), 1).with_one(6, 0.5, 2).best == 0.5
    Validations().with_one(5, float("nan"), 1).save(tmp_path)
    assert Validations.load(tmp_path).found == {5: float("inf")}
    for content, message in (("{", "looks.json: not JSON"), ('{"found": {"x": 1}}', r"looks.json: found\.x")):
        (tmp_path / "looks.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            Validations.load(tmp_path)


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ({"paste": {"distance": 0.3}, "generator": {"distance": 0.29}}, "paste"),
        ({"paste": {"distance": 0.3}, "generator": {"distance": 0.2}}, "generator"),
        ({"paste": {"distance": 0.3, "auc": 0.6}, "generator": {"distance": 0.2, "auc": 0.9}}, "paste"),
        ({"paste": {"distance": 0.3, "auc": 0.8}, "generator": {"distance": 0.2, "auc": 0.7}}, "generator"),
    ],
)
def test_the_simpler_generator_is_recommended_unless_another_is_clearly_nearer(limbs_fitted, rows, best):
    profile = recommended(limbs_fitted.profile, {REAL: {"distance": 0.1}} | rows)
    assert profile.generator.name == best and profile.generator.compared[REAL] == {"distance": 0.1}
    assert f"{rows['paste']['distance']:.2f}" in profile.why["generator"]


TINY_CROPS = ("crops.sizes={16: 1}", "demo.size=16")


@pytest.fixture
def tiny_training(monkeypatch):
    monkeypatch.setattr("synthaug.profile.training.SMALL", (*SMALL, *TINY_CROPS))
    monkeypatch.setattr("synthaug.profile.training.LEAST_STEPS", 12)
    monkeypatch.setattr("synthaug.profile.training.PROBE_STEPS", 4)
    monkeypatch.setattr("synthaug.profile.training.PATIENCE", 1000)  # the clock alone ends these trainings


@pytest.mark.slow
def test_a_data_sets_own_generator_is_trained_compared_and_used(limbs_fitted, tmp_path, tiny_training):
    fitted = rewritten(replace(limbs_fitted, out=tmp_path), limbs_fitted.profile)
    first = train_generator(fitted, 0.05)
    assert first.found and (tmp_path / FOLDER / "config.json").is_file()
    held_out = cases_held_out(fitted)
    rows = compare(fitted, held_out, ("paste", FOLDER))
    assert {REAL, "paste", FOLDER} == set(rows)
    rewritten(fitted, recommended(fitted.profile, {"paste": {"distance": 9.0}, FOLDER: {"distance": 0.1}}))
    insert = TumorInsertion.from_profile(tmp_path)
    assert isinstance(insert.generator, GANGenerator) and insert.generator.space == fitted.profile.space

    done = steps_done(tmp_path / RUN)
    assert train_generator(fitted, 0.05) == first and steps_done(tmp_path / RUN) == done, "it is finished"
    longer = train_generator(fitted, 0.07)
    assert steps_done(tmp_path / RUN) > done and longer.found.items() > first.found.items() and longer.seconds >= 4.2


def test_one_patient_cannot_be_held_out(limbs_fitted):
    with pytest.raises(ConfigError, match="at least two patients"):
        cases_held_out(replace(limbs_fitted, cases=limbs_fitted.cases[:1]))
