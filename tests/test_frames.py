"""Host coordinates: the same place in any cut, orientation and voxel size of a host."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthaug.frames import (
    changed,
    checked_frames,
    cropped,
    flipped,
    host_frame,
    mirrored,
    other_side,
    place,
    turn_between,
    voxel,
)  # fmt: skip

axes_of_patient = st.permutations([0, 1, 2])


def oriented(order, signs, spacing=(1.0, 1.0, 1.0), origin=(5.0, -20.0, 7.0)):
    affine = np.zeros((4, 4))
    for axis, (to, sign, size) in enumerate(zip(order, signs, spacing, strict=True)):
        affine[to, axis] = sign * size
    affine[:3, 3], affine[3, 3] = origin, 1
    return affine


def body(size=(20, 24, 16)):
    tissue = np.zeros(size, bool)
    tissue[3:17, 2:20, 4:14] = True
    return tissue


@settings(max_examples=40, deadline=None)
@given(
    order=axes_of_patient, signs=st.tuples(*[st.sampled_from([-1, 1])] * 3), spacing=st.tuples(*[st.floats(0.5, 4)] * 3)
)
def test_orientation_and_voxel_size_of_the_file_do_not_matter(order, signs, spacing):
    tissue, points = body(), np.array([[4, 5, 6], [16.0, 3, 9]])
    straight = place(host_frame(tissue, np.diag([*spacing, 1])), points)
    # the same body, stored with other axes
    stored = np.transpose(tissue, order)
    shape = np.array(stored.shape)
    stored = stored[tuple(slice(None, None, s) for s in signs)]
    moved = points[:, order]
    moved = np.where(np.array(signs) > 0, moved, shape - 1 - moved)
    frame = host_frame(stored, oriented(order, signs, np.array(spacing)[list(order)]))
    assert np.allclose(place(frame, moved), straight)


def test_the_box_is_from_face_to_face_and_single_voxels_do_not_stretch_it():
    tissue = body((60, 60, 60))
    tissue[3:57, 3:57, 3:57] = True
    frame = host_frame(tissue)
    assert np.allclose(place(frame, [2.5] * 3), 0) and np.allclose(place(frame, [56.5] * 3), 1)
    tissue[0, 30, 30] = tissue[30, 30, 59] = True
    assert np.allclose(host_frame(tissue), frame)
    assert np.isnan(host_frame(np.zeros((4, 4, 4), bool))).all()


@settings(max_examples=40, deadline=None)
@given(
    start=st.tuples(*[st.integers(-9, 9)] * 3),
    flip=st.lists(st.sampled_from([0, 1, 2]), unique=True),
    seed=st.integers(0, 99),
)
def test_frames_follow_crops_flips_and_affine_changes(start, flip, seed):
    rng = np.random.default_rng(seed)
    frame = host_frame(body(), oriented((1, 2, 0), (-1, 1, -1)))
    at = rng.uniform(0, 10, 3)
    assert np.allclose(place(cropped(frame, start), at), place(frame, at + start))
    matrix = np.concatenate([np.eye(3) + 0.3 * rng.standard_normal((3, 3)), rng.standard_normal((3, 1))], 1)
    assert np.allclose(place(changed(frame, matrix), at), place(frame, matrix[:, :3] @ at + matrix[:, 3]))
    back = np.where(np.isin([0, 1, 2], flip), 11 - at, at)
    assert np.allclose(place(flipped(frame, (12, 12, 12), flip), back), place(frame, at))
    assert np.allclose(voxel(frame, place(frame, at)), at)
    assert np.allclose(mirrored(mirrored(at)), at)


@settings(max_examples=40, deadline=None)
@given(order=axes_of_patient, signs=st.tuples(*[st.sampled_from([-1, 1])] * 3), mirror=st.booleans())
def test_turns_bring_a_donor_into_the_orientation_of_its_host(order, signs, mirror):
    rng = np.random.default_rng(1)
    upright = rng.random((5, 6, 7))  # in the axes of the patient
    donor = np.transpose(upright, order)[tuple(slice(None, None, s) for s in signs)]
    source = oriented(order, signs)[:3] / 100
    # a host whose affine change turned and bent it a little
    target = (np.eye(3) + 0.1 * rng.standard_normal((3, 3))) / 80
    axes, flips = turn_between(source, np.concatenate([target, np.zeros((3, 1))], 1), mirror)
    turned = np.transpose(donor, axes)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    assert np.array_equal(turned, upright[::-1] if mirror else upright)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 4, 4)), r"expected \(3, 4\) or \(2, 3, 4\) maps to host coordinates, got \(2, 4, 4\)"),
        (np.full((3, 4), np.nan), "finite maps that can be turned back; that of sample 0"),
        (np.zeros((3, 4)), "can be turned back"),
    ],
)
def test_wrong_frames_are_named(frames, message):
    with pytest.raises(ValueError, match=message):
        checked_frames(frames, 2)
    assert checked_frames(None, 2) is None and len(checked_frames(np.eye(3, 4), 2)) == 2


@settings(max_examples=20, deadline=None)
@given(order=axes_of_patient, signs=st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_the_other_side_is_the_mirror_image(order, signs):
    frame = host_frame(body(), oriented(order, signs, (1.0, 2.0, 1.5)))
    matrix, here = other_side(frame), np.array([4.0, 7.0, 9.0])
    there = matrix[:, :3] @ here + matrix[:, 3]
    assert np.allclose(place(frame, there), mirrored(place(frame, here)))
    assert np.allclose(matrix[:, :3] @ there + matrix[:, 3], here)
