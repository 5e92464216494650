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
from synthaug.profile.training import FOLDER, PATIENCE, SMALL, Watch, cases_held_out, train_generator


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


def test_a_training_ends_when_nothing_gets_better():
    kept = []
    watch = Watch(specimens(), 10, time.monotonic() + 1000, lambda generator, found: kept.append(generator.spread))
    spreads = [3.0, 2.0, 1.0, *[4.0] * PATIENCE]
    ended = [watch(10 * number, partial(Noise, spread)) for number, spread in enumerate(spreads, 1)]
    assert kept == [3.0, 2.0, 1.0] and ended == [False] * (len(spreads) - 1) + [True]
    assert not watch(11, partial(Noise, 1.0)), "it looks at every tenth step alone"


def test_the_clock_ends_a_training_with_a_last_look():
    watch = Watch(specimens(), 1000, time.monotonic() - 1, lambda generator, found: None)
    assert watch(3, lambda: Noise(1.0)) and [step for step, _ in watch.looks] == [3]


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


@pytest.mark.slow
def test_a_data_sets_own_generator_is_trained_compared_and_used(limbs_fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.profile.training.SMALL", (*SMALL, "crops.sizes={16: 1}", "demo.size=16"))
    monkeypatch.setattr("synthaug.profile.training.LEAST_STEPS", 12)
    fitted = rewritten(replace(limbs_fitted, out=tmp_path), limbs_fitted.profile)
    watch = train_generator(fitted, 0.2)
    assert watch.looks and (tmp_path / FOLDER / "config.json").is_file()
    held_out = cases_held_out(fitted)
    rows = compare(fitted, held_out, ("paste", FOLDER))
    assert {REAL, "paste", FOLDER} == set(rows)
    rewritten(fitted, recommended(fitted.profile, {"paste": {"distance": 9.0}, FOLDER: {"distance": 0.1}}))
    insert = TumorInsertion.from_profile(tmp_path)
    assert isinstance(insert.generator, GANGenerator) and insert.generator.space == fitted.profile.space


def test_one_patient_cannot_be_held_out(limbs_fitted):
    with pytest.raises(ConfigError, match="at least two patients"):
        cases_held_out(replace(limbs_fitted, cases=limbs_fitted.cases[:1]))
