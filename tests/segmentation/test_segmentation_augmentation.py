"""Augmentation of patches: what changes, what stays, and that a sample depends on its seed alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from synthaug.frames import place
from synthaug.segmentation.augmentation import AugmentationConfig, IntensityAugmentation, SpatialAugmentation, mixup
from synthaug.training.patches import CachedVolume, PatchSampler

ALL_INTENSITIES = ("gamma", "brightness", "contrast", "noise", "blur", "bias_field", "low_resolution")


def patch(size, seed=0):
    """A ball of tissue with a lesion in it, on background 0."""
    generator = torch.Generator().manual_seed(seed)
    x, y, z = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    inside = x**2 + y**2 + z**2 < 9**2
    image = torch.where(inside, torch.randn(2, *size, generator=generator) * 0.2 + x / 9, 0.0)
    label = (((x - 4) ** 2 + y**2 + z**2 < 3**2) * 2).to(torch.int16)
    return image, label


def only(**shares) -> AugmentationConfig:
    return AugmentationConfig(**(dict.fromkeys(("affine", "elastic", "flip", *ALL_INTENSITIES), 0.0) | shares))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_an_augmented_sample_depends_on_its_seed_alone(seed):
    augment = SpatialAugmentation(AugmentationConfig(elastic=0.3, affine=0.4), (16, 16, 16))
    fresh = SpatialAugmentation(AugmentationConfig(elastic=0.3, affine=0.4), (16, 16, 16))
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    image, label = patch(augment.region_size(seed))
    one = augment(image, label, seed)
    augment(image, label, seed + 1)
    for a, b, c in zip(one, augment(image, label, seed), fresh(image, label, seed), strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
    intensities, again = (IntensityAugmentation(AugmentationConfig()) for _ in range(2))
    both = intensities(torch.stack([one[0], one[0]]), [seed, seed + 1])
    assert torch.equal(both[1], again(one[0][None], [seed + 1])[0]) and torch.equal(
        both[0], again(one[0][None], [seed])[0]
    )
    assert one[0].shape == (2, 16, 16, 16) and one[1].shape == (16, 16, 16) and one[1].dtype == label.dtype
    assert torch.equal(state[0], torch.get_rng_state()) and np.array_equal(state[1], np.random.get_state()[1])


@pytest.mark.parametrize("name", ALL_INTENSITIES)
def test_intensities_change_in_the_body_alone(name):
    image, _ = patch((24, 24, 24))
    changed = IntensityAugmentation(only(**{name: 1.0}))(image[None], [5])[0]
    assert (changed != image)[image != 0].float().mean() > 0.5
    assert (changed[image == 0] == 0).all() and changed.isfinite().all()
    assert not torch.equal((changed - image)[0], (changed - image)[1])


@pytest.mark.parametrize("kind", ["affine", "elastic"])
def test_spatial_changes_move_image_and_label_together(kind):
    augment = SpatialAugmentation(only(**{kind: 1.0}), (24, 24, 24))
    for seed in range(3):
        size = augment.region_size(seed)
        assert min(size) >= 34
        _, label = patch(size)
        moved, moved_label, _ = augment(label[None].float() + 0.0, label, seed)
        assert 0.5 < (moved_label != 0).sum() / (label != 0).sum() < 1.9
        agree = ((moved[0] > 1) == (moved_label != 0)).float().mean()
        assert agree > 0.99 and not torch.equal(moved_label, label[5:29, 5:29, 5:29])


def test_flips_and_nothing():
    image, label = patch((16, 12, 8))
    unchanged = SpatialAugmentation(only(), (16, 12, 8))(image, label, 3)
    assert torch.equal(unchanged[0], image) and torch.equal(unchanged[1], label)
    flipped = SpatialAugmentation(only(flip=1.0), (16, 12, 8))(image, label, 3)
    assert torch.equal(flipped[0], image.flip(1, 2, 3)) and torch.equal(flipped[1], label.flip(0, 1, 2))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_map_to_the_region_follows_turns_and_flips(seed):
    augment = SpatialAugmentation(only(affine=0.5, flip=0.5), (14, 12, 10))
    size = augment.region_size(seed)
    where = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in size), indexing="ij"))
    moved, _, matrix = augment(where + 1, torch.zeros(size, dtype=torch.int16), seed)
    for voxel in ([7, 6, 5], [5, 4, 6]):
        assert np.allclose(moved[:, *voxel].numpy() - 1, place(matrix, voxel), atol=1e-3)


def test_mixup_mixes_images_and_targets_alike():
    image, target = torch.arange(4.0).reshape(4, 1, 1, 1, 1), torch.arange(4.0).reshape(4, 1, 1, 1, 1)
    mixed, mixed_target = mixup(image, target, 1.0, 7)
    assert torch.equal(mixed, mixed_target) and not torch.equal(mixed, image)
    assert mixed.min() >= 0 and mixed.max() <= 3 and torch.equal(mixup(image, target, 1.0, 7)[0], mixed)


def test_worker_processes_augment_as_the_training_does():
    image, label = patch((24, 24, 24))
    ones = np.ones(2, np.float32)
    volume = CachedVolume("a", "a", image.numpy(), label.numpy(), (1.0, 1.0, 1.0), 0 * ones, ones, np.eye(3, 4))
    config = AugmentationConfig(affine=0.5, elastic=0.3)
    sampler = PatchSampler([volume], (16, 16, 16), 2, augment=SpatialAugmentation(config, (16, 16, 16)))
    for step, batch in enumerate(DataLoader(sampler, batch_size=None, sampler=range(2, 5), num_workers=2), start=2):
        again = sampler[step]
        assert torch.equal(batch.image, again.image) and torch.equal(batch.label, again.label)
        assert torch.equal(batch.host_mean, again.host_mean) and torch.equal(batch.frames, again.frames)
