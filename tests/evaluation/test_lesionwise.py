"""Lesion-wise figures of hand-made cases whose answers follow from BraTS's rules, and of random ones done plainly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from synthaug.evaluation import Lesionwise, SizeClasses, lesionwise_metrics, match_lesions
from synthaug.evaluation.lesionwise import dilation_steps

SHAPE = (60, 40, 40)


def boxes(*corners: tuple[int, int, int, int], y: int = 10) -> np.ndarray:
    """A mask of boxes, each (first x, length in x, length in y, length in z)."""
    mask = np.zeros(SHAPE, bool)
    for x, dx, dy, dz in corners:
        mask[x : x + dx, y : y + dy, 10 : 10 + dz] = True
    return mask


CUBE, SECOND, THIRD = (2, 10, 10, 10), (30, 6, 6, 6), (50, 4, 4, 4)


def figures(prediction, truth, **options) -> dict:
    return lesionwise_metrics(match_lesions(prediction, truth, options=Lesionwise(**options) if options else None))


def test_a_lesion_outlined_exactly():
    got = figures(boxes(CUBE), boxes(CUBE))
    assert (got["lesion_dice"], got["lesion_hd95_mm"], got["lesion_recall"], got["lesion_precision"]) == (1, 0, 1, 1)
    assert (got["lesions"], got["lesions_found"], got["false_positives"]) == (1, 1, 0)


def test_one_of_two_missed():
    got = figures(boxes(CUBE), boxes(CUBE, SECOND))
    assert (got["lesion_dice"], got["lesion_hd95_mm"], got["lesion_recall"]) == (0.5, 374 / 2, 0.5)


def test_one_found_one_missed_one_invented():
    got = figures(boxes(CUBE, THIRD), boxes(CUBE, SECOND))
    assert got["lesion_dice"] == pytest.approx(1 / 3)
    assert got["lesion_hd95_mm"] == pytest.approx(2 * 374 / 3)
    assert (got["lesion_recall"], got["lesion_precision"], got["false_positives"]) == (0.5, 0.5, 1)


def test_half_overlap_has_the_dice_and_distance_of_the_shift():
    got = figures(boxes((7, 10, 10, 10)), boxes(CUBE))
    assert got["lesion_dice"] == pytest.approx(0.5)
    assert got["lesion_hd95_mm"] == pytest.approx(5)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_parts_that_touch_after_dilation_are_one_lesion(gap, lesions):
    truth = boxes((2, 10, 10, 10), (12 + gap, 10, 10, 10))
    got = figures(boxes(CUBE), truth)
    assert got["lesions"] == lesions
    # of one lesion half is found: 2 * 1000 / (2000 + 1000); of two, one is exact and one missed
    assert got["lesion_dice"] == pytest.approx(2 / 3 if lesions == 1 else 1 / 2)


@pytest.mark.parametrize(("gap", "found"), [(0, 1), (2, 1), (3, 0)])
def test_a_prediction_beside_the_lesion_counts_up_to_the_dilation(gap, found):
    got = figures(boxes((12 + gap, 10, 10, 10)), boxes(CUBE))
    assert (got["lesions_found"], got["false_positives"]) == (found, 1 - found)
    assert got["lesion_dice"] == 0
    assert got["lesion_hd95_mm"] == pytest.approx(10 + gap if found else 374)


def test_a_component_that_reaches_two_lesions_is_the_prediction_of_both():
    got = figures(boxes((2, 34, 6, 6)), boxes((2, 10, 6, 6), SECOND))
    assert (got["lesions_found"], got["false_positives"]) == (2, 0)
    assert got["lesion_dice"] == pytest.approx((2 * 10 / (10 + 34) + 2 * 6 / (6 + 34)) / 2)


def test_all_components_that_reach_a_lesion_are_its_prediction():
    parts = boxes((2, 4, 10, 10), (8, 4, 10, 10))
    got = figures(parts, boxes(CUBE))
    assert (got["lesions_found"], got["false_positives"]) == (1, 0)
    assert got["lesion_dice"] == pytest.approx(2 * 800 / 1800)


@pytest.mark.parametrize(("small", "lesions"), [((30, 5, 5, 2), 0), ((30, 17, 3, 1), 1)])
def test_lesions_up_to_50_mm3_are_neither_found_nor_missed(small, lesions):
    truth = boxes(CUBE, small)
    assert figures(boxes(CUBE), truth)["lesions"] == 1 + lesions
    assert figures(boxes(CUBE), truth)["lesion_dice"] == pytest.approx(1 / (1 + lesions))
    assert figures(truth, truth)["false_positives"] == 0


def test_small_inventions_count():
    got = figures(boxes(CUBE, (40, 1, 1, 1)), boxes(CUBE))
    assert (got["false_positives"], got["lesion_dice"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("prediction", "truth", "dice", "distance", "recall", "precision"),
    [
        ((), (), 1, 0, None, None),
        ((CUBE,), (), 0, 374, None, 0),
        ((), (CUBE,), 0, 374, 0, None),
        ((), ((50, 3, 3, 3),), 1, 0, None, None),
    ],
)
def test_what_holds_where_there_is_nothing(prediction, truth, dice, distance, recall, precision):
    got = figures(boxes(*prediction), boxes(*truth))
    assert (got["lesion_dice"], got["lesion_hd95_mm"]) == (dice, distance)
    assert (got["lesion_recall"], got["lesion_precision"]) == (recall, precision)


def test_lesions_have_sizes_and_volumes_in_mm():
    truth = boxes(CUBE, SECOND)
    scores = match_lesions(boxes(CUBE, THIRD), truth, (2.0, 2.0, 2.0), Lesionwise(sizes=SizeClasses((12.0, 20.0))))
    volumes = {s.status: (s.volume_ml, s.size, s.diameter_mm) for s in scores}
    assert volumes["found"][:2] == (8.0, "large")
    assert volumes["missed"][:2] == (pytest.approx(1.728), "medium")
    assert volumes["false_positive"][:2] == (pytest.approx(0.512), "small")
    assert volumes["found"][2] == pytest.approx((6 * 8000 / np.pi) ** (1 / 3))


def test_distances_are_in_mm():
    got = lesionwise_metrics(match_lesions(boxes((7, 10, 10, 10)), boxes(CUBE), (0.5, 1.0, 1.0)))
    assert got["lesion_hd95_mm"] == pytest.approx(2.5)


def test_the_dilation_follows_the_voxels():
    assert dilation_steps(3.0, (1, 1, 1)) == [(True,) * 3] * 3
    assert dilation_steps(3.0, (2, 2, 2)) == [(True,) * 3] * 2
    assert dilation_steps(3.0, (0.98, 0.98, 3.27)) == [(True,) * 3, (True, True, False), (True, True, False)]
    assert dilation_steps(0.0, (1, 1, 1)) == []


def test_without_dilation_only_what_overlaps_is_found():
    assert figures(boxes((12, 10, 10, 10)), boxes(CUBE), dilation_mm=0.0)["lesions_found"] == 0


def test_without_surfaces_there_are_no_distances():
    got = lesionwise_metrics(match_lesions(boxes(CUBE), boxes(CUBE, SECOND), surface=False))
    assert (got["lesion_dice"], got["lesion_hd95_mm"]) == (0.5, None)


def plainly(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, int, int, int]:
    """The rules at the head of the module, on whole volumes and without distances."""
    corners, edges = ndimage.generate_binary_structure(3, 3), ndimage.generate_binary_structure(3, 2)

    def grown(mask):
        return ndimage.binary_dilation(mask, edges, iterations=3)

    lesions, count = ndimage.label(grown(truth), corners)
    components, predicted = ndimage.label(prediction, corners)
    dice, claimed = [], set()
    for number in range(1, count + 1):
        lesion = (lesions == number) & truth
        hits = set(components[grown(lesion)].tolist()) - {0}
        claimed |= hits
        if lesion.sum() > 50:
            found = np.isin(components, list(hits))
            dice.append((2 * (found & lesion).sum() / (found.sum() + lesion.sum()), bool(hits)))
    invented = predicted - len(claimed)
    total = len(dice) + invented
    return (sum(d for d, _ in dice) / total if total else 1.0), len(dice), sum(hit for _, hit in dice), invented


@given(seed=st.integers(0, 2**31), density=st.floats(0.02, 0.2), shift=st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_random_cases_agree_with_the_rules_done_plainly(seed, density, shift):
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((36, 30, 26)), 2) for _ in range(2)]
    truth = fields[0] > np.quantile(fields[0], 1 - density)
    mixed = np.roll(fields[0], shift, 0) + 0.5 * fields[1]
    prediction = mixed > np.quantile(mixed, 1 - density)
    got = figures(prediction, truth)
    dice, lesions, found, invented = plainly(prediction, truth)
    assert got["lesion_dice"] == pytest.approx(dice)
    assert (got["lesions"], got["lesions_found"], got["false_positives"]) == (lesions, found, invented)


@pytest.mark.parametrize("options", [{"dilation_mm": -1}, {"min_lesion_mm3": -1}, {"penalty_mm": float("nan")}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"expected at least 0"):
        Lesionwise(**options)


def test_masks_of_unlike_shapes():
    with pytest.raises(ValueError, match="two masks of one shape"):
        match_lesions(np.zeros((4, 4, 4)), np.zeros((4, 4, 5)))
