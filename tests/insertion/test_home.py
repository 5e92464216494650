"""Donors at their own places, and lesions as often where the data have them."""

import numpy as np
import pytest
import torch
from engine import CHANNELS, GENERATORS, done_rows, toy_bank, toy_batch, toy_case, toy_insertion
from hypothesis import given, settings
from hypothesis import strategies as st

from synthaug import BRATS18, InsertionPlan, LesionBank, LesionShapes, Outcome, PaintedLesions, TumorInsertion
from synthaug.frames import flipped, host_frame, place
from synthaug.lesions.base import center_of
from synthaug.lesions.places import PlaceFrequency

SIZE = (48, 44, 40)
UPRIGHT = np.concatenate([np.eye(3) / np.array(SIZE)[:, None], np.full((3, 1), 0.5) / np.array(SIZE)[:, None]], 1)
"""Frame of a patch that is a whole host."""


def placed_bank(count=3, shift=(-4, 2, 3)) -> LesionBank:
    """Nested balls, each moved further from the middle of its brain, with affines."""
    samples = []
    for i in range(count):
        name, group, image, label, spacing = toy_case(i, 12)
        move = [i * s for s in shift]
        image[:, :3] = image[:, 3:6]  # all is tissue
        samples.append(
            (name, group, np.roll(image, move, (1, 2, 3)), np.roll(label, move, (0, 1, 2)), spacing, None, np.eye(4))
        )
    return LesionBank.from_arrays(samples, BRATS18, CHANNELS)


def test_a_bank_knows_where_its_lesions_lay(tmp_path):
    bank = placed_bank()
    assert toy_bank().places is None and next(iter(toy_bank())).frame is None
    for i, lesion in enumerate(bank):
        assert np.allclose(center_of(lesion, bank.margin_vox), 0.5 + np.array([-4, 2, 3]) * i / 28, atol=1 / 28)
    bank.save(tmp_path / "bank.safetensors")
    again = LesionBank.load(tmp_path / "bank.safetensors")
    assert [x.frame for x in again] == [x.frame for x in bank] and again.subset(["case-1/0"]).lesion("case-1/0").frame
    assert np.array_equal(again.places.grid, bank.places.grid)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), flip=st.lists(st.sampled_from([0, 1, 2]), unique=True))
def test_a_donor_goes_where_it_lay_in_its_own_host(seed, flip):
    insert = toy_insertion(lesions=placed_bank(), place="home", shift_mm=0.0, mirror=False, seed=seed)
    image, label = toy_batch(labelled=False)
    frame = flipped(UPRIGHT, SIZE, flip)
    rows = insert.plan(image, label, frames=frame).to_rows()
    for row in rows:
        assert row["outcome"] == "done" and row["place"] == "home" and tuple(row["axes"]) == (0, 1, 2)
        assert row["flips"] == [axis in flip for axis in range(3)]
        lesion = insert.lesions.lesion(row["lesion"])
        assert np.abs(place(frame, row["center_vox"]) - center_of(lesion, 3)).max() < 0.6 / 40


def test_half_of_the_donors_go_to_the_other_side():
    insert = toy_insertion(lesions=placed_bank(2), place="home", shift_mm=3.0)
    image, label = toy_batch(40, labelled=False)
    rows = insert.plan(image, label, groups=["patient-0"] * 40, frames=UPRIGHT).to_rows()
    left = np.array([row["center_vox"][0] < SIZE[0] / 2 for row in rows])
    assert {row["lesion"] for row in rows} == {"case-1/0"} and 10 < left.sum() < 30
    assert all(row["flips"][0] != side for row, side in zip(rows, left, strict=True))
    home = np.array([place(UPRIGHT, row["center_vox"]) for row in rows]) - center_of(
        insert.lesions.lesion("case-1/0"), 3
    )
    off = np.abs(home[left] * SIZE)
    assert 2 < off.max() < 4 and len({tuple(row["center_vox"]) for row in rows}) > 20


@pytest.mark.parametrize("generator", GENERATORS)
def test_what_is_there_is_replaced_with_its_label(generator):
    maker, _ = GENERATORS[generator]()
    insert = toy_insertion(maker, placed_bank(1), place="home", shift_mm=0.0, mirror=False, halo_mm=0.0)
    image, label = toy_batch(1)
    label[:, :, 10:34, 10:30, 10:30] = 2
    new_image, new_label, plan = insert.recorded(image, label, frames=UPRIGHT)
    (row,) = done_rows(plan)
    written = (new_label != label) | (new_image != image).any(1, keepdim=True)
    assert row["voxels"]["NCR"] and int((new_label == 1).sum()) == row["voxels"]["NCR"]
    assert int((new_label == 4).sum()) == row["voxels"]["ET"]
    assert written.sum() <= sum(row["voxels"].values())
    again = insert.apply(image, label, InsertionPlan.from_rows(plan.to_rows()))
    assert torch.equal(again[0], new_image) and torch.equal(again[1], new_label)


def test_lesions_of_one_call_and_ignored_voxels_are_not_replaced():
    image, label = toy_batch(1, labelled=False)
    insert = toy_insertion(lesions=placed_bank(1), place="home", second=1.0, shift_mm=0.0)
    assert [row["outcome"] for row in insert.plan(image, label, frames=UPRIGHT).to_rows()] == ["done", "no_room"]
    label[:, :, 22:26, 20:24, 18:22] = -1
    ignoring = toy_insertion(lesions=placed_bank(1), place="home", shift_mm=0.0, ignore_label=-1)
    assert [row["outcome"] for row in ignoring.plan(image, label, frames=UPRIGHT).to_rows()] == ["no_room"]


def test_a_donor_whose_place_is_not_in_the_patch_stays_away():
    insert = toy_insertion(lesions=placed_bank(1), place="home")
    image, label = toy_batch(1)
    beyond = UPRIGHT + np.array([[0, 0, 0, 0.6], [0, 0, 0, 0], [0, 0, 0, 0]])
    (row,) = insert.plan(image, label, frames=beyond).to_rows()
    assert row["outcome"] == "no_home" and row["reason"] == Outcome.NO_HOME.reason and row["lesion"] is None
    assert all(torch.equal(a, b) for a, b in zip(insert(image, label, frames=beyond), (image, label), strict=True))
    assert insert.report().refused == {Outcome.NO_HOME.reason: 1}


def test_a_batch_equals_its_samples_and_donors_are_of_other_patients():
    image, label = toy_batch(6)
    frames, groups = [UPRIGHT] * 6, [f"patient-{b % 3}" for b in range(6)]
    for rule in ("home", "like-data"):
        whole = toy_insertion(lesions=placed_bank(), place=rule)
        together = whole.recorded(image, label, groups=groups, frames=frames)
        single = toy_insertion(lesions=placed_bank(), place=rule)
        for b in range(6):
            one = single(image[b : b + 1], label[b : b + 1], groups=groups[b : b + 1], frames=frames[b : b + 1])
            assert torch.equal(one[0][0], together[0][b]) and torch.equal(one[1][0], together[1][b])
        assert all(row["donor_group"] != row["host_group"] for row in together[2].to_rows())


def test_paintings_go_home_where_their_donors_lay():
    painted = PaintedLesions(placed_bank(2), "procedural", 4, scale=(0.5, 0.9), spacing_mm=(1, 1, 1))
    insert = TumorInsertion(painted, prob=1.0, second=0.0, place="home", shift_mm=0.0, mirror=False)
    image, label = toy_batch(4, labelled=False)
    for row in done_rows(insert.plan(image, label, frames=UPRIGHT)):
        donor = painted.bank.lesion(row["lesion"].split(" ")[0])
        assert np.abs(place(UPRIGHT, row["center_vox"]) - center_of(donor, 3)).max() < 2.5 / 40


def test_lesions_lie_as_often_where_they_do_in_the_data():
    low = np.zeros((28, 28, 28), bool)
    low[4:10, 10:18, 4:8] = True
    frequency = PlaceFrequency.of_points([place(host_frame(np.ones_like(low)), np.argwhere(low))])
    assert frequency.grid.max() == 1 and frequency.grid.min() == np.float32(0.02)
    assert np.allclose(frequency.grid, frequency.grid[::-1], atol=1e-6)  # both sides
    image, label = toy_batch(60, labelled=False)
    shapes = LesionShapes(diameter_mm=(6, 8))
    heights = {}
    for rule in ("like-data", "anywhere"):
        insert = TumorInsertion(shapes, "procedural", prob=1.0, second=0.0, place=rule, places=frequency)
        rows = insert.plan(image, label, frames=UPRIGHT).to_rows()
        heights[rule] = np.mean([row["center_vox"][2] / SIZE[2] for row in rows if row["outcome"] == "done"])
    assert heights["like-data"] < 0.38 < 0.45 < heights["anywhere"]


def test_weights_at_voxels_are_those_of_their_places():
    rng = np.random.default_rng(0)
    frequency = PlaceFrequency(rng.random((16, 16, 16)).astype(np.float32))
    middles = [torch.arange(16) for _ in range(3)]
    frame = np.concatenate([np.eye(3) / 16, np.full((3, 1), 1 / 32)], 1)
    assert np.allclose(frequency.weights(frame, middles).numpy(), frequency.grid, atol=1e-6)
    turned = flipped(frame, (16, 16, 16), [1])
    assert np.allclose(frequency.weights(turned, middles).numpy(), frequency.grid[:, ::-1], atol=1e-6)
    assert np.allclose(PlaceFrequency.from_dict(frequency.to_dict()).grid, frequency.grid, atol=1e-4)


def test_by_default_places_count_where_they_are_known():
    image, label = toy_batch(1)
    known, unknown = toy_insertion(lesions=placed_bank()), toy_insertion()
    assert [row["place"] for row in known.plan(image, label, frames=UPRIGHT).to_rows()] == ["like-data"]
    assert [row["place"] for row in known.plan(image, label).to_rows()] == ["anywhere"]
    assert [row["place"] for row in unknown.plan(image, label, frames=UPRIGHT).to_rows()] == ["anywhere"]


def test_what_a_place_needs_is_said():
    with pytest.raises(
        ValueError, match="place: home needs donors whose places are known, and this LesionBank has none"
    ):
        toy_insertion(place="home")
    with pytest.raises(
        ValueError, match="place: like-data needs to know where lesions lie, and this LesionShapes does not"
    ):
        toy_insertion("procedural", LesionShapes(), place="like-data")
    with pytest.raises(
        ValueError, match="place: home needs to know where in their hosts the samples lie; expected frames"
    ):
        toy_insertion(lesions=placed_bank(), place="home").plan(*toy_batch(1))
    with pytest.raises(ValueError, match="places: expected the voxels of at least one lesion"):
        PlaceFrequency.of_points([])
