"""Looks by request: a trained generator paints what was asked for, donors of a grade are found, rows repeat it."""

import numpy as np
import pytest
import torch

from synthaug import BRATS18, InsertionPlan, LesionBank, LesionShapes, TumorInsertion, load_generator
from synthaug.generators.learned.style import StylePrior
from synthaug.insertion.looks import Looks
from synthaug.insertion.plan import Insertion

CHANNELS = ("flair", "t1", "t1ce", "t2")
SPACING = (1.0, 1.0, 1.0)


def case(name: str, enhancing: int, bright: float, seed: int, radius: int = 9):
    """A patient: oedema, and a core of enhancing tumour of that radius, as bright in T1ce as said, in z-scores."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 10, (4, 40, 40, 40))
    x, y, z = np.meshgrid(*[np.arange(40) - 20] * 3, indexing="ij")
    away = np.sqrt(x**2 + y**2 + z**2)
    label = np.where(away < enhancing, 4, np.where(away < radius, 2, 0)).astype(np.int16)
    image[2][label > 0] += 10 * bright
    return f"{name} case", name, image, label, SPACING


@pytest.fixture(scope="module")
def bank() -> LesionBank:
    cases = [case("low a", 1, -1.0, 0), case("low b", 0, -1.0, 1), case("high a", 7, 3.0, 2), case("high b", 6, 3.0, 3)]
    return LesionBank.from_arrays(cases, BRATS18, CHANNELS)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn(1, 4, 48, 48, 48, generator=torch.Generator().manual_seed(0)) * 10 + 100
    return image, torch.zeros(1, 1, 48, 48, 48, dtype=torch.int16)


def insertion(bank, style: str, lesions=None, **options) -> TumorInsertion:
    own = {"prob": 1, "second": 0, "seed": 5, "scale": (1, 1), "flip": 0, "rotate90": False, "channels": CHANNELS}
    return TumorInsertion(lesions or bank, "brats-gan", style=style, looks=bank, **(own | options))


def painted(bank, style: str) -> float:
    """Mean T1ce of the oedema of one mask, in z-scores of host tissue."""
    image, label = batch()
    after, new = insertion(bank, style, bank.subset(["high a case/0"]))(image, label, SPACING)
    return float((after[0, 2][new[0, 0] == 2].mean() - 100) / 10)


def test_a_mask_gets_the_look_that_is_asked_for(bank):
    low, high = painted(bank, "low a"), painted(bank, "high b case/0")
    assert high > low + 1.0


@pytest.mark.parametrize(("style", "groups"), [("low-grade", {"low a", "low b"}), ("high-grade", {"high a", "high b"})])
def test_looks_of_a_grade_are_of_its_patients_and_never_the_hosts(bank, style, groups):
    image, label = batch()
    plan = insertion(bank, style).plan(image.repeat(8, 1, 1, 1, 1), label.repeat(8, 1, 1, 1, 1), SPACING)
    assert {row["look"].split(" case")[0] for row in plan.to_rows()} == groups
    own = sorted(groups)[0]
    plan = insertion(bank, style).plan(image, label, SPACING, groups=[own])
    assert plan.to_rows()[0]["look"].split(" case")[0] == sorted(groups)[1]


def test_a_mask_gets_the_look_of_lesions_like_it(bank):
    looks = Looks.of("like-mask", bank, BRATS18, CHANNELS, load_generator("brats-gan"))

    def drawn(name: str) -> set[str]:
        rows = [Insertion(0, n, 0, n, name, None, None, {}, 1.0, SPACING) for n in range(12)]
        return {looks.draw(row, bank.lesion(name), bank.classes) for row in rows}

    assert "low a case/0" in drawn("low b case/0") and "high b case/0" in drawn("high a case/0")
    assert not {"low b case/0"} & drawn("high a case/0")


def test_rows_say_the_look_and_repeat_it_and_nothing_changes_without(bank):
    image, label = batch()
    engine = insertion(bank, "low-grade")
    after, _, plan = engine.recorded(image, label, SPACING)
    again = insertion(bank, "low-grade").apply(image, label, InsertionPlan.from_rows(plan.to_rows()))
    assert torch.equal(again[0], after) and plan.to_rows()[0]["look"].startswith("low")
    plain, _, record = insertion(bank, "donor").recorded(image, label, SPACING)
    assert record.to_rows()[0]["look"] is None and not torch.equal(plain, after)


def test_two_seeds_of_a_look_differ_less_than_two_looks():
    generator = load_generator("brats-gan").bind(CHANNELS, BRATS18.names)
    mask = torch.zeros(1, 3, 32, 32, 32)
    mask[:, 1, 8:24, 8:24, 8:24] = 1
    context = torch.zeros(1, 4, 32, 32, 32)
    style = generator.prior.mean.view(1, *generator.prior.shape)

    def spread(**told) -> float:
        means = [generator.generate(context, mask, [s], **told)[0][:, mask[0, 1] > 0].mean(1) for s in range(6)]
        return float(torch.stack(means).std(0).mean())

    assert 0 < spread(style=style) < 0.85 * spread()
    nothing = torch.full_like(style, torch.nan)
    same = [generator.generate(context, mask, [3], **told) for told in ({}, {"style": nothing})]
    assert torch.equal(*same)


def test_what_a_style_does_not_show_is_as_the_prior_expects_it():
    prior = StylePrior(1, 2)
    styles = torch.randn(40, 1, 1, 3, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 2, 1)
    prior.fit(styles, torch.ones(40, 1), shrinkage=0.0)
    known = torch.zeros(1, 2, 3, dtype=torch.bool)
    known[0, 0] = True
    found = prior.completed(torch.full((1, 2, 3), 1.5), known)
    assert torch.allclose(found[0, 0], torch.full((3,), 1.5)) and torch.allclose(found[0, 1], found[0, 0], atol=0.05)
    assert torch.allclose(prior.completed(found, ~known & False).flatten(), prior.mean)


def test_what_cannot_be_asked_for_is_named(bank):
    with pytest.raises(ValueError, match="low-grade is for trained generators"):
        TumorInsertion(bank, "paste", style="low-grade", channels=CHANNELS)
    with pytest.raises(ValueError, match=r"looks=LesionBank"):
        TumorInsertion(LesionShapes(), "brats-gan", style="low-grade")
    with pytest.raises(ValueError, match=r"expected donor, host, low-grade.*got nobody"):
        insertion(bank, "nobody")
    with pytest.raises(ValueError, match="like-mask needs lesions known beforehand"):
        insertion(bank, "like-mask", place="own")
    shapes = insertion(bank, "low-grade", LesionShapes(diameter_mm=(12, 14)))
    assert shapes.plan(*batch(), SPACING).to_rows()[0]["look"].startswith("low")
