"""Steering: what may be set between batches, size weights, the schedule of prob, and the controller."""

import json

import numpy as np
import pytest
import torch
from engine import CHANNELS, toy_bank, toy_batch, toy_case, toy_insertion
from hypothesis import given
from hypothesis import strategies as st

from synthaug import BRATS18, LesionBank, LesionShapes, Outcome
from synthaug.insertion.adaptive import AdaptiveInsertion
from synthaug.insertion.schedule import ProbSchedule
from synthaug.lesions.scale import SizeWeights
from synthaug.sizes import SizeClasses

MIX = {"NCR": 0.3, "ED": 0.4, "ET": 0.3}
SIZES = SizeClasses((6.0, 9.0))
BANK = toy_bank()


def rows(recall: dict, dice: dict, lesions: int = 4) -> list[dict]:
    """Validation rows of one case; names of regions to their scores, and of sizes to those of WT's lesions."""
    made = []
    for name in recall:
        size = name if name in SIZES.names else "all"
        region = "WT" if name in SIZES.names else name
        found = round(recall[name] * lesions)
        values = {"lesions": lesions, "lesions_found": found, "lesion_recall": found / lesions, "false_positives": 0}
        made.append({"case": "a", "region": region, "size": size, "lesion_dice": dice[name]} | values)
    return made


def validation(**worse) -> list[dict]:
    """Rows in which everything is found at 0.75 and outlined at 0.8, but for what is given."""
    names = ("WT", "NCR", "ED", "ET", *SIZES.names)
    return rows(dict.fromkeys(names, 0.75) | worse, dict.fromkeys(names, 0.8) | worse)


def decided(insert, samples: int) -> list:
    """What is asked for in so many samples; the decisions of `plan` without looking for places, which takes longer."""
    draw = insert._decider.batch([(1.0, 1.0, 1.0)] * samples, (48, 44, 40), [None] * samples)
    insert._decider.advance(draw.samples, draw.mix_voxels)
    return draw.insertions


def diameters(insert, samples: int = 400) -> np.ndarray:
    found = []
    for row in decided(insert, samples):
        lesion = insert.lesions.lesion(row.lesion)
        found.append(row.scale * (6 / np.pi * sum(lesion.voxels) * np.prod(lesion.spacing_mm)) ** (1 / 3))
    return np.array(found)


# ------------------------------------------------------------------------------------------- size weights


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [({"diameter_mm": (6.0, 10.0)}, 6.0, 10.0), ({"scale": (0.6, 1.0), "lesions": toy_bank(count=1, size=14)}, 0, 99)],
)
def test_size_weights_tilt_the_diameters_by_their_ratio(options, low, high):
    plain, tilted = toy_insertion(**options), toy_insertion(**options)
    before = diameters(plain)
    middle = float(np.median(before))
    tilted.size_weights = SizeWeights(SizeClasses((middle,), ("low", "high")), (1.0, 4.0))
    after = diameters(tilted)
    assert (before < middle).mean() == pytest.approx(0.5, abs=0.05)
    assert (after < middle).mean() == pytest.approx(0.2, abs=0.06)
    assert low - 1e-6 <= after.min() and after.max() <= high + 1e-6


def test_size_weights_choose_among_donors_of_unlike_sizes():
    both = [toy_case(0, 10), toy_case(1, 18)]
    insert = toy_insertion(lesions=LesionBank.from_arrays(both, BRATS18, CHANNELS))
    middle = float(np.mean(sorted(set(diameters(insert, 30)))))
    insert.size_weights = SizeWeights(SizeClasses((middle,), ("low", "high")), (1.0, 9.0))
    assert (diameters(insert, 200) < middle).mean() == pytest.approx(0.1, abs=0.06)


def test_equal_size_weights_change_no_size():
    options = {"diameter_mm": (6.0, 10.0)}
    plain, tilted = toy_insertion(**options), toy_insertion(**options)
    tilted.size_weights = SizeWeights(SIZES, (3.0, 3.0, 3.0))
    assert diameters(tilted, 20) == pytest.approx(diameters(plain, 20))


def test_shapes_that_draw_their_own_diameters_cannot_be_weighted():
    insert = toy_insertion("procedural", LesionShapes(diameter_mm=(8, 14)))
    with pytest.raises(ValueError, match="give TumorInsertion\\(diameter_mm"):
        insert.size_weights = SizeWeights(SIZES, (1.0, 1.0, 1.0))
    assert insert.size_weights is None


@pytest.mark.parametrize("weights", [(1.0, 2.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)])
def test_bad_size_weights(weights):
    with pytest.raises(ValueError, match=r"size.weight"):
        SizeWeights(SIZES, weights)


def test_size_weights_of_another_kind():
    with pytest.raises(TypeError, match="expected SizeWeights or None, got tuple"):
        toy_insertion().size_weights = (1.0, 2.0)


@pytest.mark.parametrize(("edges", "names"), [((10, 5), "abc"), ((0,), "ab"), ((5,), "abc"), ((5,), "aa")])
def test_bad_size_classes(edges, names):
    with pytest.raises(ValueError, match="size classes: expected"):
        SizeClasses(edges, tuple(names))


def test_size_classes_in_words():
    sizes = SizeClasses()
    assert [sizes.words(name) for name in sizes.names] == ["below 10 mm", "10 to 25 mm", "25 mm or more"]
    assert sizes.counts([3, 10, 24.9, 25, 80]) == {"small": 1, "medium": 2, "large": 2}
    with pytest.raises(ValueError, match="unknown size 'tiny'"):
        sizes.words("tiny")


# --------------------------------------------------------------------------------------------- class mix


def shares(insert, samples: int) -> np.ndarray:
    voxels = np.zeros(3)
    for row in decided(insert, samples):
        own = np.array(insert.lesions.lesion(row.lesion).voxels) * row.scale**3
        for k, name in enumerate(BRATS18.names):
            voxels[BRATS18.index(row.swaps.get(name, name))] += own[k]
    return voxels / voxels.sum()


def test_a_class_mix_that_is_set_is_followed_without_making_up_for_the_past():
    later = {"NCR": 0.2, "ED": 0.2, "ET": 0.6}
    changed, fresh = toy_insertion(class_mix={"NCR": 0.1, "ED": 0.8, "ET": 0.1}), toy_insertion(class_mix=later)
    assert shares(changed, 600)[1] == pytest.approx(0.8, abs=0.05)
    changed.class_mix = later
    assert shares(changed, 200) == pytest.approx(shares(fresh, 200), abs=0.02)
    assert changed.class_mix == pytest.approx(later)


def test_setting_the_same_class_mix_changes_nothing():
    first, second = toy_insertion(class_mix=MIX), toy_insertion(class_mix=MIX)
    decided(first, 5), decided(second, 5)
    second.class_mix = MIX
    assert decided(first, 5) == decided(second, 5)


def test_a_class_mix_beside_swaps_or_of_wrong_shares_is_refused():
    swapping = toy_insertion(swaps=[("ED", "ET", 0.5)])
    with pytest.raises(ValueError, match="this insertion has swaps"):
        swapping.class_mix = MIX
    mixing = toy_insertion(class_mix=MIX)
    for wrong in ({"NCR": 0.5}, {"XX": 1.0}, {"NCR": -1.0, "ED": 2.0}):
        with pytest.raises(ValueError, match=r"class_mix|unknown class"):
            mixing.class_mix = wrong
    assert mixing.class_mix == pytest.approx(MIX)


def test_a_class_mix_of_a_class_without_intensities_is_refused():
    insert = toy_insertion(classes="BRATS24")
    with pytest.raises(ValueError, match="no intensities of RC"):
        insert.class_mix = {"RC": 1.0}


# ---------------------------------------------------------------------------------------------- schedule


def test_the_schedule_warms_up_holds_and_decays():
    schedule = ProbSchedule(0.6, warmup_steps=2, decay_from=4, decay_to=8, end_prob=0.2)
    assert [schedule(step) for step in range(1, 10)] == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2])
    assert schedule.mean(9) == pytest.approx(3.4 / 9)
    half = ProbSchedule(1.0, decay_from=0, decay_to=10, shape="cosine")
    assert (half(5), half(10), half(99)) == pytest.approx((0.5, 0.0, 0.0))
    assert ProbSchedule(0.6)(10**6) == 0.6


@given(
    prob=st.floats(0, 1), end=st.floats(0, 1), warm=st.integers(0, 20), hold=st.integers(0, 20), step=st.integers(1, 99)
)
def test_the_schedule_stays_between_its_ends(prob, end, warm, hold, step):
    schedule = ProbSchedule(prob, warm, warm + hold, warm + hold + 10, end)
    assert 0 <= schedule(step) <= max(prob, end)


@pytest.mark.parametrize(
    "options",
    [
        {"prob": 1.5},
        {"prob": 0.5, "end_prob": -0.1},
        {"prob": 0.5, "warmup_steps": -1},
        {"prob": 0.5, "decay_from": 5},
        {"prob": 0.5, "decay_from": 6, "decay_to": 5},
        {"prob": 0.5, "warmup_steps": 9, "decay_from": 5, "decay_to": 7},
        {"prob": 0.5, "shape": "square"},
    ],
)
def test_bad_schedules(options):
    with pytest.raises(ValueError, match=r"expected|give both"):
        ProbSchedule(**options)


# -------------------------------------------------------------------------------------------- controller


def test_the_weakest_class_and_size_gain_what_the_others_lose():
    insert = toy_insertion(class_mix=MIX)
    log = AdaptiveInsertion(insert, size_classes=SIZES).update(validation(ET=0.25, small=0.25))
    assert insert.class_mix == pytest.approx(log["class_mix"])
    assert sum(insert.class_mix.values()) == pytest.approx(1)
    assert insert.class_mix["ET"] > MIX["ET"] and insert.class_mix["NCR"] < MIX["NCR"]
    assert insert.class_mix["NCR"] / insert.class_mix["ED"] == pytest.approx(MIX["NCR"] / MIX["ED"])
    weights = dict(zip(SIZES.names, insert.size_weights.weights, strict=True))
    assert weights["small"] > 1 > weights["medium"] == weights["large"]
    need = {"small": 0.75, "medium": 1 - (0.75 + 0.8) / 2}
    assert weights["small"] / weights["medium"] == pytest.approx(need["small"] / need["medium"])
    json.dumps(log, allow_nan=False)


def test_more_of_the_weak_size_is_really_inserted():
    insert = toy_insertion(diameter_mm=(4.0, 10.0))
    adaptive = AdaptiveInsertion(insert, size_classes=SIZES, bound=3.0)
    before = SIZES.counts(diameters(insert))["large"]
    adaptive.update(validation(large=0.0))
    assert SIZES.counts(diameters(insert))["large"] > 1.5 * before


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.floats(1, 4), st.floats(0, 5))
def test_weights_are_bounded(values, bound, strength):
    insert = toy_insertion(class_mix=MIX, lesions=BANK)
    adaptive = AdaptiveInsertion(insert, size_classes=SIZES, bound=bound, strength=strength, momentum=0)
    log = adaptive.update(validation(**dict(zip(("NCR", "ED", "ET", *SIZES.names), values, strict=True))))
    assert all(1 / bound - 1e-9 <= w <= bound + 1e-9 for w in log["weights"].values())


def test_the_average_moves_by_its_momentum():
    adaptive = AdaptiveInsertion(toy_insertion(class_mix=MIX), size_classes=SIZES, momentum=0.75)
    adaptive.update(validation(ET=0.0))
    log = adaptive.update(validation(ET=1.0))
    assert log["scores"]["class ET"] == pytest.approx({"lesion_recall": 0.25, "lesion_dice": 0.25})
    assert log["updates"] == 2


def test_false_positives_raise_no_rate():
    plain, noisy = (AdaptiveInsertion(toy_insertion(class_mix=MIX), size_classes=SIZES) for _ in range(2))
    rows_with_inventions = [
        # what evaluate_case gives for the same lesions and 12 inventions of each class and size
        row | {"false_positives": 12, "lesion_dice": row["lesion_dice"] * row["lesions"] / (row["lesions"] + 12)}
        for row in validation(ET=0.25)
    ]
    expected, got = plain.update(validation(ET=0.25)), noisy.update(rows_with_inventions)
    assert got["weights"] == pytest.approx(expected["weights"])


def test_a_size_without_lesions_keeps_the_average_weight():
    adaptive = AdaptiveInsertion(toy_insertion(), size_classes=SIZES)
    seen = [row for row in validation(small=0.25) if row["size"] != "large"]
    empty = rows({"large": 0.0}, {"large": 0.0})[0] | {"lesions": 0, "lesions_found": 0, "lesion_recall": None}
    log = adaptive.update([*seen, empty | {"lesion_dice": None}])
    assert log["weights"]["size large"] == 1
    assert "size large" not in log["scores"]


def test_swaps_leave_the_classes_alone():
    insert = toy_insertion(swaps=[("ED", "ET", 0.5)])
    log = AdaptiveInsertion(insert, size_classes=SIZES).update(validation(ET=0.0))
    assert "class_mix" not in log and insert.class_mix is None


def test_strength_zero_inserts_what_would_be_inserted_anyway():
    plain, steered = toy_insertion(class_mix=MIX), toy_insertion(class_mix=MIX)
    AdaptiveInsertion(steered, sizes=False, strength=0).update(validation(ET=0.0))
    assert decided(plain, 8) == decided(steered, 8)


def test_a_resumed_controller_continues_to_the_bit():
    def start():
        insert = toy_insertion(class_mix=MIX, scale=(0.5, 0.9))
        return insert, AdaptiveInsertion(insert, size_classes=SIZES)

    first, controller = start()
    controller.update(validation(ET=0.25, small=0.5))
    decided(first, 4)
    state = json.loads(json.dumps([first.state_dict(), controller.state_dict()]))
    again, resumed = start()
    again.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    assert (again.class_mix, again.size_weights) == (first.class_mix, first.size_weights)
    for insert, steering in ((first, controller), (again, resumed)):
        insert.prob = 0.9
        decided(insert, 3)
        steering.update(validation(ED=0.25, large=0.5))
    assert decided(first, 6) == decided(again, 6)
    assert first.state_dict() == again.state_dict()
    image, label = toy_batch()
    assert all(torch.equal(a, b) for a, b in zip(first(image, label), again(image, label), strict=True))


def test_a_state_from_before_these_values_is_read():
    insert = toy_insertion(prob=0.4)
    insert(*toy_batch())
    state = {key: insert.state_dict()[key] for key in ("number", "mix_counts", "audit")}
    counts = state["audit"]["counts"]
    state["audit"]["counts"] = counts[: Outcome.OTHER_BATCH] + counts[Outcome.NO_LESION + 1 :]
    report = insert.report()
    insert.load_state_dict(state | {"number": 7})
    assert (insert.number, insert.prob, insert.size_weights) == (7, 0.4, None)
    assert insert.report() == report
    with pytest.raises(ValueError, match="insertion state: expected version 1 to 4, got 5"):
        insert.load_state_dict(insert.state_dict() | {"version": 5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum < 1"),
        ({"bound": 0.5}, "bound >= 1"),
        ({"strength": -1}, "strength"),
        ({"classes": True}, "has no class_mix"),
        ({"sizes": False}, "neither classes nor sizes"),
    ],
)
def test_bad_controllers(options, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveInsertion(toy_insertion(), **options)


def test_rows_that_do_not_tell_what_is_needed():
    adaptive = AdaptiveInsertion(toy_insertion(class_mix=MIX), size_classes=SIZES)
    with pytest.raises(ValueError, match=r"expected rows of evaluate_case"):
        adaptive.update([])
    with pytest.raises(ValueError, match=r"expected rows of evaluate_case"):
        adaptive.update([{"region": "WT", "size": "all", "dice": 1.0}])
    with pytest.raises(ValueError, match="no row is of NCR; the rows are of WT, ED, ET"):
        adaptive.update([row for row in validation() if row["region"] != "NCR"])
