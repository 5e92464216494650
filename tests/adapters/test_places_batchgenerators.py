"""batchgeneratorsv2: a sample's frame follows the spatial transforms, and the insertion goes by it."""

import numpy as np
import pytest
import torch
from adapter_places import AFFINE, PATCH, at_home, bank_at, host_at, lies_at_home, middle, often_where_lesions_lie
from engine import toy_insertion

pytest.importorskip("batchgeneratorsv2", reason="batchgeneratorsv2 is not installed")

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from synthaug.adapters.batchgenerators import FollowedTransforms, InsertTumorTransform
from synthaug.frames import cropped, host_frame


def spatial(rotation=(-0.4, 0.4), scaling=(0.85, 1.15), elastic=0.0):
    return SpatialTransform(
        PATCH, 0, False, p_rotation=1, rotation=rotation, p_scaling=1, scaling=scaling, mode_seg="nearest",
        p_elastic_deform=elastic, elastic_deform_scale=(0.2, 0.3), elastic_deform_magnitude=(1, 2),
    )  # fmt: skip


STEPS = {
    "crop": [SpatialTransform(PATCH, 0, False)],
    "mirror": [SpatialTransform(PATCH, 0, False), MirrorTransform((0, 1, 2))],
    "turn": [SpatialTransform(PATCH, 0, False), RandomTransform(Rot90Transform(2), 0.9)],
    "affine": [spatial()],
    "all": [spatial(), RandomTransform(GaussianNoiseTransform(), 0.5), MirrorTransform((0, 2)), Rot90Transform(1)],
    "elastic": [spatial(elastic=1.0), MirrorTransform((0, 1, 2))],
}


def cut(seed=0, margin=4):
    """A box about the lesion, larger than the patch, and its frame."""
    image, label = host_at(seed)
    frame = host_frame(image[0].numpy() != 0, AFFINE)
    start = np.clip(np.rint(middle(label[0])).astype(int) - 24 + seed, 0, margin + 8)
    box = tuple(slice(s, s + 44) for s in start)
    return {"image": image[:, *box], "segmentation": label[:, *box], "frame": cropped(frame, start)}


def seeded(seed):
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("name", STEPS)
def test_a_donor_goes_home_after_every_spatial_change(name):
    insert, steps = InsertTumorTransform(at_home(), spacing_mm=(1, 1, 1)), FollowedTransforms(STEPS[name])
    for seed in range(4):
        seeded(seed)
        patch = steps(**cut(seed))
        before = patch["image"], patch["segmentation"][0]
        new = insert(**patch)
        lies_at_home(before, (new["image"], new["segmentation"][0]), within=3.0 if name == "elastic" else 2.0)
        seeded(seed)
        plan = insert.get_parameters(**patch)["plan"]
        assert plan.to_rows()[0]["place"] == "home"


def test_patches_are_those_of_the_librarys_own_composition():
    for seed in range(3):
        data = cut(seed)
        seeded(seed)
        expected = ComposeTransforms(STEPS["all"])(image=data["image"].clone(), segmentation=data["segmentation"])
        seeded(seed)
        found = FollowedTransforms(STEPS["all"])(image=data["image"].clone(), segmentation=data["segmentation"])
        assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


def test_lesions_lie_as_often_where_those_of_the_bank_lay():
    insert = InsertTumorTransform(toy_insertion(lesions=bank_at(), clearance_mm=0.0, scale=(0.3, 0.4)))
    image, _ = host_at()
    frame = host_frame(image[0].numpy() != 0, AFFINE)
    rows, frames = [], []
    for seed in range(16):
        seeded(seed)
        data = FollowedTransforms([MirrorTransform((0, 1, 2))])(image=image, frame=frame)
        plan = insert.get_parameters(**data, segmentation=torch.zeros(1, *image.shape[1:], dtype=torch.int16))["plan"]
        rows += [row | {"sample": seed} for row in plan.to_rows()]
        frames.append(data["frame"])
    often_where_lesions_lie(rows, np.stack(frames))


def test_without_a_frame_what_to_add_is_named():
    data = cut()
    del data["frame"]
    with pytest.raises(ValueError, match=r"place: home needs to know .* give samples a frame"):
        InsertTumorTransform(at_home())(**data)
    InsertTumorTransform(toy_insertion(lesions=bank_at()))(**data)


def test_what_cannot_be_followed_is_named():
    class Unfollowed(BasicTransform):
        """Says nothing of what it does."""

    with pytest.raises(ValueError, match="place: Unfollowed cannot be followed"):
        FollowedTransforms([RandomTransform(Unfollowed(), 0.5)])
