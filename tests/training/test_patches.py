"""Patches: what is drawn is a function of its seeds, and lies where it is said to lie."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from synthaug import BRATS18
from synthaug.data import CaseError, find_cases, load_case
from synthaug.host import zscore_host
from synthaug.training.patches import CachedVolume, PatchSampler, cache_case

CHANNELS = ("flair", "t1", "t1ce", "t2")


def volume(name="a", size=(20, 18, 16), lesion=(slice(4, 6), slice(4, 6), slice(4, 6)), channels=2) -> CachedVolume:
    """Voxels that tell where they come from: channel c at (x, y, z) is c + x + y / 100 + z / 10000."""
    x, y, z = np.meshgrid(*map(np.arange, size), indexing="ij")
    image = np.stack([100 * c + x + y / 100 + z / 10000 for c in range(channels)]).astype(np.float32)
    label = np.zeros(size, np.int16)
    if lesion is not None:
        label[lesion] = 4
    zeros = np.zeros(channels, np.float32)
    return CachedVolume(name, f"patient-{name}", image, label, (1.0, 1.0, 2.0), zeros, zeros + 1, np.eye(3, 4))


def test_shapes_types_and_groups():
    sampler = PatchSampler([volume("a"), volume("b")], (8, 6, 4), batch=3)
    batch = sampler[0]
    assert batch.image.shape == (3, 2, 8, 6, 4) and batch.image.dtype == torch.float32
    assert batch.label.shape == (3, 1, 8, 6, 4) and batch.label.dtype == torch.int16
    assert batch.host_mean.shape == batch.host_std.shape == (3, 2)
    assert len(batch.groups) == len(batch.spacing_mm) == 3
    seen = {group for step in range(20) for group in sampler[step].groups}
    assert seen == {"patient-a", "patient-b"}


def test_image_and_label_are_cut_at_the_same_place():
    source = volume()
    batch = PatchSampler([source], (8, 6, 4), batch=16)[0]
    for image, label in zip(batch.image.numpy(), batch.label[:, 0].numpy(), strict=True):
        x = int(image[0, 0, 0, 0])
        y = round((image[0, 0, 0, 0] - x) * 100)
        z = round((image[0, 0, 0, 0] - x - y / 100) * 10000)
        box = (slice(x, x + 8), slice(y, y + 6), slice(z, z + 4))
        assert np.array_equal(image, source.image[:, *box]) and np.array_equal(label, source.label[box])
        assert any(np.array_equal(frame[:, 3], [x, y, z]) for frame in batch.frames.numpy())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), step=st.integers(0, 10**7), rank=st.integers(0, 64))
def test_a_step_is_a_function_of_seed_step_and_rank(seed, step, rank):
    draw = PatchSampler([volume()], (8, 6, 4), 2, seed=seed, rank=rank, processes=65)
    draw[0]  # what was drawn before does not matter
    again = PatchSampler([volume()], (8, 6, 4), 2, seed=seed, rank=rank, processes=65)
    assert torch.equal(draw[step].image, again[step].image) and torch.equal(draw[step].label, again[step].label)


@pytest.mark.parametrize("change", [{"seed": 1}, {"rank": 1}])
def test_seeds_and_ranks_differ(change):
    one, other = (PatchSampler([volume()], (8, 6, 4), 4, processes=2, **options) for options in ({}, change))
    assert all(not torch.equal(one[step].image, other[step].image) for step in range(5))


def test_two_processes_draw_together_what_one_draws_with_the_doubled_batch():
    one = PatchSampler([volume()], (8, 6, 4), 4)
    two = [PatchSampler([volume()], (8, 6, 4), 2, rank=rank, processes=2) for rank in (0, 1)]
    for step in range(3):
        assert torch.equal(one[step].image, torch.cat([sampler[step].image for sampler in two]))


def test_worker_processes_draw_the_same():
    sampler = PatchSampler([volume()], (8, 6, 4), 2)
    loader = DataLoader(sampler, batch_size=None, sampler=range(3, 6), num_workers=2)
    for step, batch in enumerate(loader, start=3):
        assert torch.equal(batch.image, sampler[step].image) and batch.groups == sampler[step].groups


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    PatchSampler([volume()], (8, 6, 4), 2)[0]
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(before[1], torch.get_rng_state())


def test_lesion_share():
    corner = volume(size=(32, 32, 32), lesion=(slice(0, 2), slice(0, 2), slice(30, 32)))
    share = {}
    for wanted in (0.0, 0.5, 1.0):
        sampler = PatchSampler([corner], (8, 8, 8), 100, lesion_share=wanted)
        share[wanted] = float((sampler[0].label > 0).flatten(1).any(1).float().mean())
    assert share[0.0] < 0.1 and 0.3 < share[0.5] < 0.7 and share[1.0] == 1.0


def test_rare_classes_are_drawn_as_often():
    both = volume(size=(48, 24, 24), lesion=None)
    both.label[2:20, 2:20, 2:20] = 2
    both.label[40, 12, 12] = 1
    labels = PatchSampler([both], (8, 8, 8), 200, lesion_share=1.0)[0].label.flatten(1)
    assert 0.35 < float((labels == 1).any(1).float().mean()) < 0.65


def test_class_balanced_draws_the_volumes_that_have_a_rare_class():
    common, rare = (volume(size=(48, 24, 24), lesion=None) for _ in range(2))
    for v in (common, rare):
        v.label[2:20, 2:20, 2:20] = 2
    rare.label[40, 12, 12] = 1
    both = [*[common] * 7, replace(rare, group="rare")]
    share = {}
    for balanced in (False, True):
        batch = PatchSampler(both, (8, 8, 8), 300, lesion_share=1.0, class_balanced=balanced)[0]
        share[balanced] = float(np.mean([group == "rare" for group in batch.groups]))
        rare_patches = (batch.label.flatten(1) == 1).any(1)
        assert {g for g, found in zip(batch.groups, rare_patches.tolist(), strict=True) if found} == {"rare"}
    # one volume of eight: an eighth of the patches by volume; all of class 1 and an eighth of class 2 by class
    assert 0.07 < share[False] < 0.2 and 0.48 < share[True] < 0.65


def test_class_balanced_leaves_volumes_without_lesions_to_the_other_patches():
    batch = PatchSampler([volume(lesion=None)], (8, 6, 4), 8, lesion_share=1.0, class_balanced=True)[0]
    assert not batch.label.any() and len({float(x) for x in batch.image[:, 0, 0, 0, 0]}) > 1


def test_volume_without_lesion_is_drawn_anywhere():
    batch = PatchSampler([volume(lesion=None)], (8, 6, 4), 8, lesion_share=1.0)[0]
    assert not batch.label.any() and len({float(x) for x in batch.image[:, 0, 0, 0, 0]}) > 1


def test_small_volumes_are_padded_with_each_channels_background():
    source = volume(size=(5, 18, 16), lesion=(slice(2, 3), slice(4, 5), slice(4, 5)))
    image, label = PatchSampler([source], (8, 18, 16), 1, background=(-1.0, -7.0))[0][:2]
    assert torch.equal(image[0, :, 1:6], torch.from_numpy(source.image))
    assert torch.equal(label[0, 0, 1:6], torch.from_numpy(source.label))
    for padding in (image[0, :, :1], image[0, :, 6:]):
        assert (padding[0] == -1).all() and (padding[1] == -7).all()
    assert not label[0, 0, :1].any() and not label[0, 0, 6:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volumes": []}, "at least one volume"),
        ({"volumes": [volume(), volume(channels=3)]}, "differ in channels"),
        ({"patch_size": (8, 8)}, "three sides"),
        ({"batch": 0}, "batch above 0"),
        ({"lesion_share": 1.5}, "1.5"),
        ({"seed": -1}, "seed >= 0"),
        ({"rank": 2, "processes": 2}, "rank below processes"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        PatchSampler(**{"volumes": [volume()], "patch_size": (8, 6, 4), "batch": 2} | options)


def test_cache_case(phantom_folder):
    case = find_cases(phantom_folder)[0]
    raw = load_case(case, CHANNELS)
    full, half = (cache_case(case, CHANNELS, BRATS18, dtype) for dtype in ("float32", "float16"))
    assert np.array_equal(full.image, zscore_host(raw.image)) and np.array_equal(full.label, raw.label)
    assert half.image.dtype == np.float16 and np.abs(half.image.astype(np.float32) - full.image).max() < 0.01
    healthy = (raw.image > 0).all(0) & (raw.label == 0)
    assert np.allclose(full.host_mean, full.image[:, healthy].mean(1), atol=0.15)
    assert np.allclose(full.host_std, full.image[:, healthy].std(1), rtol=0.2)


def test_unknown_label_values_are_named(phantom_folder, tmp_path):
    case = find_cases(phantom_folder)[0]
    for path in (*case.images.values(), case.label):
        image = nib.load(path)
        data = np.asanyarray(image.dataobj).copy()
        if path == case.label:
            data[10, 10, 10] = 7
        nib.save(nib.Nifti1Image(data, image.affine), tmp_path / path.name)
    with pytest.raises(CaseError, match=rf"{case.name}.*\[7\].*BRATS18"):
        cache_case(find_cases(tmp_path)[0], CHANNELS, BRATS18)
