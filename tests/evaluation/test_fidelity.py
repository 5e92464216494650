"""Fidelity: numbers with known answers, and a classifier that must see what is there and nothing else."""

import numpy as np
import pytest
import torch

from synthaug.evaluation.fidelity import (
    ClassifierOptions,
    Specimen,
    classifier_auc,
    compare_statistics,
    diversity,
    lesion_statistics,
    roc_auc,
    within,
)
from synthaug.evaluation.fidelity.border import border_profile, border_profiles, linear_scores
from synthaug.training.painting_losses import shell

CHANNELS, CLASSES = ("t1", "flair"), ("core", "oedema")
QUICK = ClassifierOptions(folds=2, steps=40, batch=8, size=16, crops=6)


def specimen(seed: int, group: str, mean: float = 2.0, std: float = 0.5, border: float = 0.0) -> Specimen:
    rng = torch.Generator().manual_seed(seed)
    mask = torch.zeros(2, 24, 24, 24)
    mask[1, 6:18, 6:18, 6:18] = 1
    mask[:, 9:15, 9:15, 9:15] = torch.tensor([1.0, 0.0])[:, None, None, None]
    lesion = mask.sum(0)
    noise = torch.randn((2, 24, 24, 24), generator=rng)
    image = torch.where(lesion > 0, mean + std * noise, noise)
    image += border * shell(lesion[None, None])[0]
    return Specimen(image, mask, group)


def group_of(mean: float = 2.0, std: float = 0.5, seed: int = 0, **other) -> list[Specimen]:
    return [specimen(seed + i, f"patient {i}", mean, std, **other) for i in range(6)]


def test_statistics_of_white_noise_and_of_a_ramp_are_the_known_ones():
    found = lesion_statistics(specimen(0, "a", 3.0, 0.5).image, specimen(0, "a").mask)
    assert found.shape == (2, 2, 5)
    assert torch.allclose(found[..., 0], torch.tensor(3.0), atol=0.1)
    assert torch.allclose(found[0, :, 1], torch.tensor(0.5), rtol=0.15)
    assert torch.allclose(found[0, :, 2], torch.tensor(0.5 * (1 - 1 / 27) ** 0.5), rtol=0.15)
    ramp = torch.linspace(0, 23, 24)[:, None, None].expand(2, 24, 24, 24).contiguous()
    mask = torch.zeros(2, 24, 24, 24)
    mask[0, 8:16, 8:16, 8:16] = 1
    mean, std, fine, middle, coarse = lesion_statistics(ramp, mask)[0, 0]
    assert mean == pytest.approx(11.5) and std == pytest.approx(np.std(np.arange(8)), rel=1e-4)
    assert fine < 0.01 and middle < 0.01 and coarse == pytest.approx(float(std), rel=1e-3)


def test_comparison_gives_shift_in_real_deviations_and_ratios():
    rows = compare_statistics(group_of(2.0, 0.5), group_of(2.5, 1.0, seed=50), CLASSES, CHANNELS)
    assert [(r["class"], r["channel"]) for r in rows] == [(k, c) for k in CLASSES for c in CHANNELS]
    for row in rows:
        assert row["mean"] == pytest.approx(1.0, abs=0.15)
        assert row["std"] == pytest.approx(2.0, rel=0.1)
    assert within(rows, 0.15) == {"mean": 0, "std": 0, "fine": 0, "middle": 0, "coarse": 0}
    same = compare_statistics(group_of(), group_of(seed=50), CLASSES, CHANNELS)
    assert within(same, 0.15)["std"] == 1


def test_classifier_tells_other_lesions_and_not_the_same_ones():
    real = group_of()
    assert classifier_auc(real, group_of(3.0, 0.5, seed=50), options=QUICK)["auc"] > 0.95
    assert 0.2 < classifier_auc(real, group_of(seed=50), options=QUICK)["auc"] < 0.8


def test_classifier_sees_its_region_alone():
    real, seamed = group_of(), group_of(seed=50, border=6.0)
    assert classifier_auc(real, seamed, "border", QUICK)["auc"] > 0.9
    assert 0.2 < classifier_auc(real, seamed, "lesion", QUICK)["auc"] < 0.8


def linear_auc(real, inserted, part=lambda x: x) -> float:
    folds = linear_scores(border_profiles(real), border_profiles(inserted), 3, part=part)
    return float(np.mean([fold.auc for fold in folds]))


def test_the_linear_classifier_finds_what_lies_along_the_outline():
    real = group_of()
    assert 0.35 < linear_auc(real, group_of(seed=50)) < 0.65
    ring, outside = group_of(seed=50, border=0.5), (lambda x: x[:, :3])
    assert linear_auc(real, ring) > 0.95 and linear_auc(real, ring, outside) > 0.95
    assert linear_auc(real, ring, lambda x: x[:, 3:]) < 0.65, "the ring lies outside"
    rough = group_of(std=0.8, seed=50)
    assert linear_auc(real, rough, lambda x: x[:, 3:, 1]) > 0.95 and linear_auc(real, rough, outside) < 0.65


def test_border_profiles_are_means_and_spreads_by_depth():
    one = specimen(0, "a", 3.0, 0.5)
    profile = np.nanmean(border_profile(one, np.random.default_rng(0)), 0)
    assert profile.shape == (6, 2, 2)
    assert profile[:3, 0] == pytest.approx(0, abs=0.1) and profile[3:, 0] == pytest.approx(3, abs=0.1)
    assert profile[:3, 1] == pytest.approx(1, abs=0.1) and profile[3:, 1] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="at least 7 patients"):
        linear_scores(border_profiles(group_of()), border_profiles(group_of()), 7)


def test_classifier_repeats_itself_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    quick = ClassifierOptions(folds=2, steps=3, batch=4, size=16, crops=2)
    first, second = (classifier_auc(group_of(), group_of(seed=50), options=quick) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())


def test_roc_auc_counts_pairs():
    assert roc_auc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert roc_auc(np.ones(3), np.ones(4)) == 0.5


def test_roc_auc_of_single_precision_scores_is_counted_in_double():
    rng = np.random.default_rng(0)
    negative, positive = rng.normal(0, 1, 3000).astype(np.float32), rng.normal(0.5, 1, 5000).astype(np.float32)
    more = sum(int((negative < value).sum()) for value in positive)
    assert roc_auc(negative, positive) == pytest.approx(more / (3000 * 5000), abs=1e-12)


def test_diversity_is_a_share_of_the_difference_between_patients():
    real = [specimen(0, "a", 1.0, 0.01), specimen(1, "b", 3.0, 0.01)]
    alike = [(specimen(2, "a", 1.0, 0.0), specimen(3, "a", 1.0, 0.0))]
    unlike = [(specimen(2, "a", 1.0, 0.0), specimen(3, "a", 2.0, 0.0))]
    assert torch.allclose(diversity(alike, real), torch.zeros(2), atol=1e-3)
    assert torch.allclose(diversity(unlike, real), torch.full((2,), 0.5), atol=0.02)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"lesion, border.*'rim'"):
        classifier_auc(group_of(), group_of(), "rim")
    with pytest.raises(ValueError, match=r"at least 4 patients.*got 2"):
        classifier_auc(group_of()[:2], group_of())
    with pytest.raises(ValueError, match="two patients"):
        diversity([], group_of())
