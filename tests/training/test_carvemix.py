"""CarveMix: a region around a lesion of another patient goes to its own place, image and label alike."""

import numpy as np
import pytest
import torch

from synthaug.frames import host_frame
from synthaug.segmentation.augmentation import AugmentationConfig, SpatialAugmentation
from synthaug.training.carvemix import CarvedLesions, signed_distance
from synthaug.training.patches import CachedVolume, PatchSampler

SIZE = (24, 22, 20)


def volume(name: str, center, value: float, origin=(0, 0, 0)) -> CachedVolume:
    """All tissue of one value, and a ball of it ten higher; a host that lies `origin` voxels into its volume."""
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1)
    label = (np.linalg.norm(grid - center, axis=-1) < 4).astype(np.int16) * 4
    image = np.where(label > 0, value + 10, value)[None].astype(np.float32)
    tissue = np.zeros(SIZE, bool)
    tissue[origin[0] :, origin[1] :, origin[2] :] = True
    ones = np.ones(1, np.float32)
    return CachedVolume(name, name, image, label, (1.0, 1.0, 1.0), 0 * ones, ones, host_frame(tissue))


HOST, DONOR = volume("host", (18, 11, 10), 1.0), volume("donor", (8, 11, 10), 2.0)


def test_the_region_is_of_the_donor_and_the_rest_of_the_host():
    carved = CarvedLesions([HOST, DONOR], 1.0)
    depth = signed_distance(DONOR.label > 0, (1, 1, 1))
    sizes = set()
    for seed in range(40):
        image, label = carved.mixed(HOST, (0, 0, 0), HOST.image, HOST.label, np.random.default_rng(seed))
        region = (image == DONOR.image)[0] & (image != HOST.image)[0]
        assert region.any() and np.array_equal(image[0][region], DONOR.image[0][region])
        assert np.array_equal(label[region], DONOR.label[region])
        assert np.array_equal(image[0][~region], HOST.image[0][~region]) and np.array_equal(
            label[~region], HOST.label[~region]
        )
        # the voxels nearest to the donor's middle, up to some distance
        assert depth[region].max() <= abs(depth.min()) and depth[region].max() < depth[~region].min() + 1e-3
        sizes.add(int(region.sum()))
    assert len(sizes) > 4 and min(sizes) < (DONOR.label > 0).sum() < max(sizes)


def test_places_agree_in_the_head_and_not_in_the_file():
    moved = volume("moved", (18, 11, 10), 1.0, origin=(3, 0, 0))
    image, _ = CarvedLesions([moved, DONOR], 1.0).mixed(
        moved, (0, 0, 0), moved.image, moved.label, np.random.default_rng(0)
    )
    middle = np.argwhere((image != moved.image)[0]).mean(0)
    scale = 21 / 24  # the donor's host is 24 voxels wide, this one 21, from voxel 3 on
    assert abs(middle[0] - (2.5 + 8.5 * scale)) < 2 and abs(middle[1] - 11) < 1


def test_a_sample_is_mixed_with_other_patients_alone_and_by_its_seed():
    volumes = [HOST, DONOR]
    augment = SpatialAugmentation(AugmentationConfig(affine=0.5, elastic=0.0), (16, 16, 16))
    make = lambda prob: PatchSampler(  # noqa: E731
        volumes, (16, 16, 16), 4, augment=augment, carved=CarvedLesions(volumes, prob) if prob else None
    )
    mixed, again, never, plain = make(1.0), make(1.0), make(1e-9), make(0)
    assert torch.equal(mixed[3].image, again[3].image) and torch.equal(never[3].image, plain[3].image)
    assert not torch.equal(mixed[3].image, plain[3].image) and torch.equal(mixed[3].frames, plain[3].frames)
    with pytest.raises(ValueError, match="lesions of two patients or more"):
        CarvedLesions([HOST], 0.5)
