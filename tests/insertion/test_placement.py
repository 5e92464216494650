"""Where lesions go: what fits is found, what does not is refused, and places vary."""

import numpy as np
import pytest
import torch
from engine import done_rows, toy_bank, toy_batch, toy_insertion
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from synthaug.geometry import Window, grown, squared_distance
from synthaug.insertion.placement import Site, place


def ball(side, radius):
    axis = torch.arange(side) - side // 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return x * x + y * y + z * z <= radius * radius


@settings(max_examples=20, deadline=None)
@given(
    reach=st.floats(0.5, 6),
    spacing=st.tuples(*[st.floats(0.5, 3)] * 3),
    seed=st.integers(0, 1000),
)
def test_growing_is_the_euclidean_distance(reach, spacing, seed):
    mask = torch.rand(11, 13, 9, generator=torch.Generator().manual_seed(seed)) > 0.97
    mask[5, 5, 5] = True
    truth = ndimage.distance_transform_edt(~mask.numpy(), sampling=spacing)
    got = squared_distance(mask, reach, spacing).sqrt().numpy()
    near = truth <= reach
    assert np.allclose(got[near], truth[near], atol=1e-3)
    assert (got[~near] > reach - 1e-3).all()
    clear = np.abs(truth - reach) > 1e-3
    assert np.array_equal(grown(mask, reach, spacing).numpy()[clear], (truth <= reach)[clear])


@settings(max_examples=30, deadline=None)
@given(
    center=st.tuples(st.integers(0, 10), st.integers(0, 7), st.integers(0, 8)),
    size=st.tuples(*[st.integers(1, 14)] * 3),
)
def test_windows_read_and_write_like_padded_slices(center, size):
    volume = torch.arange(11 * 8 * 9, dtype=torch.float32).reshape(11, 8, 9) + 1
    window = Window.at(torch.tensor(center), size, volume.shape)
    padded = torch.nn.functional.pad(volume, (14,) * 6)
    start = [c - n // 2 + 14 for c, n in zip(center, size, strict=True)]
    cut = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    assert torch.equal(window.read(volume), padded[cut])
    written = volume.clone()
    window.write(written, -padded[cut])
    expected = padded.clone()
    expected[cut] = -padded[cut]
    assert torch.equal(written, expected[14:-14, 14:-14, 14:-14])


def test_the_only_place_that_fits_is_found():
    lesion = ball(16, 5)
    for corner in ((3, 4, 5), (30, 9, 22), (17, 25, 11)):
        tissue = torch.zeros(48, 44, 40, dtype=torch.bool)
        room = tuple(slice(c, c + 14) for c in corner)
        tissue[room] = True
        occupied = ~tissue
        occupied[:] = False
        found = place(Site(tissue, occupied), lesion, grown(lesion, 1.0, (1, 1, 1)), 1.0, seed=1)
        assert bool(found.fits)
        assert int(found.lesion.sum()) == int(lesion.sum())


def test_a_patch_centred_on_a_tumour_still_gets_one():
    image, label = toy_batch(8, size=(64, 64, 64), labelled=False)
    label[:, :, 20:44, 20:44, 20:44] = 2
    insert = toy_insertion(lesions=toy_bank(size=16), clearance_mm=3.0)
    plan = insert.plan(image, label)
    assert len(done_rows(plan)) == 8


def test_the_lesion_s_shape_counts_not_its_box():
    # an L-shaped corridor: boxes would not fit around the corner, the lesion does
    lesion = torch.zeros(24, 24, 8, dtype=torch.bool)
    lesion[4:20, 4:8, 2:6] = True
    lesion[4:8, 4:20, 2:6] = True
    tissue = torch.zeros(32, 32, 16, dtype=torch.bool)
    tissue[3:26, 3:12, 2:14] = True
    tissue[3:12, 3:26, 2:14] = True
    occupied = ~tissue
    found = place(Site(tissue, occupied), lesion, grown(lesion, 1.0, (1, 1, 1)), 1.0, seed=3)
    assert bool(found.fits)
    assert not (found.window.read(occupied) & lesion).any()


def test_what_sticks_out_is_cut_off_and_its_share_is_kept():
    image, label = toy_batch(6, size=(40, 40, 40), labelled=False)
    for share in (0.5, 0.95):
        insert = toy_insertion(lesions=toy_bank(size=22), tissue_share=share, scale=1.0, flip=0, rotate90=False)
        plan = insert.plan(image, label)
        rows = done_rows(plan)
        assert len(rows) >= 5
        for row in rows:
            whole = sum(insert.lesions.lesion(row["lesion"]).voxels)
            assert share <= sum(row["voxels"].values()) / whole <= 1


def test_places_with_the_share_sought_come_before_those_that_would_do():
    lesion = ball(16, 6)
    tissue = torch.ones(48, 48, 48, dtype=torch.bool)
    tissue[::4, :, :24] = False  # a quarter of one half is none
    site = Site(tissue, torch.zeros_like(tissue))
    clear = grown(lesion, 1.0, (1, 1, 1))
    free = [place(site, lesion, clear, 0.6, seed) for seed in range(20)]
    held = [place(site, lesion, clear, 0.6, seed, 0.98) for seed in range(20)]
    whole = int(lesion.sum())
    assert sum(int(p.lesion.sum()) < 0.9 * whole for p in free) > 4
    assert all(p.fits and int(p.lesion.sum()) >= 0.95 * whole for p in held)
    site.tissue[::4], site.state[::4] = False, 0
    sieve = Site(site.tissue, torch.zeros_like(tissue))
    assert all(place(sieve, lesion, clear, 0.6, seed, 0.98).fits for seed in range(5)), "it is sought, not needed"


def test_places_cover_the_tissue():
    lesion = ball(10, 3)
    tissue = torch.ones(40, 40, 40, dtype=torch.bool)
    site = Site(tissue, torch.zeros_like(tissue))
    centers = torch.stack([place(site, lesion, lesion, 1.0, seed).center_vox for seed in range(200)]).float()
    assert (centers.amin(0) < 8).all() and (centers.amax(0) > 31).all()
    assert torch.allclose(centers.mean(0), torch.full((3,), 20.0), atol=2.5)
    assert len({tuple(c) for c in centers.tolist()}) > 180
    remainders = centers % 4
    assert all(len(remainders[:, i].unique()) == 4 for i in range(3)), "places lie on a lattice"


def test_the_location_prior_weights_the_centre():
    image, label = toy_batch(1, size=(48, 48, 48), labelled=False)
    prior = torch.zeros(1, 48, 48, 48)
    prior[:, :, 30:] = 1.0
    prior[:, :, 12:16] = 0.02
    insert = toy_insertion(scale=0.5)
    ys = [insert.recorded(image, label, prior=prior)[2].to_rows()[0]["center_vox"][1] for _ in range(60)]
    high = sum(y >= 29 for y in ys)
    assert high >= 50
    assert all(y >= 29 or 11 <= y <= 17 for y in ys)


def test_second_lesions_keep_clear_of_first_ones():
    image, label = toy_batch(6, size=(56, 56, 56), labelled=False)
    insert = toy_insertion(second=1.0, scale=0.8, clearance_mm=5.0)
    plan = insert.plan(image, label)
    assert len(done_rows(plan)) == 12
    for b in range(6):
        one = [row for row in plan.to_rows() if row["sample"] == b]
        masks = []
        for row in one:
            alone = type(plan).from_rows([row | {"sample": 0}])
            masks.append(insert.apply(image[b : b + 1], label[b : b + 1], alone)[1][0, 0].numpy() != 0)
        assert ndimage.distance_transform_edt(~masks[0])[masks[1]].min() > 5.0


@pytest.mark.parametrize("size", [(20, 64, 33), (17, 17, 90), (128, 24, 24)])
def test_uneven_volumes(size):
    image, label = toy_batch(2, size=size, labelled=False)
    insert = toy_insertion(scale=0.6)
    insert(image, label)
    assert insert.report().done == 2
