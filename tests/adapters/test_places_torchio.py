"""TorchIO: patches know where in their hosts they lie, after its crops, flips, turns and affine changes."""

import numpy as np
import pytest
import torch
import torchio
from adapter_places import AFFINE, PATCH, at_home, bank_at, host_at, lies_at_home, often_where_lesions_lie
from engine import toy_insertion

from synthaug.adapters.frames import coordinates, fitted_frame
from synthaug.adapters.torchio import AddHostCoordinates, InsertTumorsInBatch, RandomTumor
from synthaug.frames import host_frame

NOISE = [torchio.ZNormalization(), torchio.RandomNoise(std=(0, 0.1)), torchio.RandomBiasField()]
STEPS = {
    "none": [],
    "flips": [torchio.RandomFlip(axes=(0, 2), flip_probability=0.7)],
    "turns": [torchio.RandomAffine(scales=0, degrees=(90, 90, 0, 0, 0, 0))],
    "affine": [torchio.RandomAffine(scales=0.1, degrees=15, translation=3)],
    "canonical": [torchio.ToCanonical(), torchio.Resample((1.0, 0.8, 0.9))],
}
STEPS["all"] = [step for steps in STEPS.values() for step in steps]


def whole(seed=0):
    image, label = host_at(seed)
    return torchio.Subject(
        mri=torchio.ScalarImage(tensor=image, affine=AFFINE), tumour=torchio.LabelMap(tensor=label, affine=AFFINE)
    )


def patch_of(subject, seed):
    """A patch that a sampler cuts about the lesion."""
    torch.manual_seed(seed)
    return next(torchio.LabelSampler(PATCH, "tumour")(subject, 1))


@pytest.mark.parametrize("name", STEPS)
def test_a_donor_goes_home_after_every_spatial_change(name):
    insert = RandomTumor(at_home(), p=1.0)
    steps = torchio.Compose([AddHostCoordinates(), *STEPS[name], *NOISE])
    for seed in range(3):
        torch.manual_seed(seed)
        np.random.seed(seed)
        patch = patch_of(steps(whole(seed)), seed)
        new = insert(patch)
        before = patch["mri"].data, patch["tumour"].data[0]
        lies_at_home(before, (new["mri"].data, new["tumour"].data[0]), within=2.0)


def test_the_plan_of_a_history_repeats():
    subject = torchio.Compose([AddHostCoordinates(), *STEPS["flips"]])(whole())
    new = RandomTumor(at_home(), p=1.0)(subject)
    again = new.get_composed_history()(whole())
    assert torch.equal(again["mri"].data, new["mri"].data) and torch.equal(again["tumour"].data, new["tumour"].data)


def test_batches_of_a_queue_know_their_hosts():
    data = torchio.SubjectsDataset([whole(i) for i in range(2)], torchio.Compose([AddHostCoordinates(), *STEPS["all"]]))
    queue = torchio.Queue(data, 4, 2, torchio.LabelSampler(PATCH, "tumour"), num_workers=0)
    insert = InsertTumorsInBatch(at_home())
    for batch in torchio.SubjectsLoader(queue, batch_size=2, num_workers=0):
        new = insert(batch)
        for b in range(2):
            before = batch["mri"]["data"][b], batch["tumour"]["data"][b, 0]
            lies_at_home(before, (new["mri"]["data"][b], new["tumour"]["data"][b, 0]), within=2.0)


def test_lesions_lie_as_often_where_those_of_the_bank_lay():
    insertion = toy_insertion(lesions=bank_at(), clearance_mm=0.0, scale=(0.3, 0.4))
    steps = torchio.Compose([AddHostCoordinates(), torchio.RandomFlip(axes=(0, 1), flip_probability=0.5)])
    subjects = [steps(whole(i)) for i in range(16)]
    frames = np.stack([fitted_frame(s["host_coordinates"].data) for s in subjects])
    image = torch.stack([s["mri"].data for s in subjects])
    label = torch.zeros(16, 1, *image.shape[2:], dtype=torch.int64)
    often_where_lesions_lie(insertion.plan(image, label, frames=frames).to_rows(), frames)


def test_without_coordinates_the_transform_to_add_is_named():
    for insertion in (at_home(), toy_insertion(lesions=bank_at(), place="like-data")):
        with pytest.raises(ValueError, match=r"place: (home|like-data) needs to know .* add AddHostCoordinates\(\)"):
            RandomTumor(insertion, p=1.0)(whole())
        loader = torchio.SubjectsLoader([whole(), whole()], batch_size=2)
        with pytest.raises(ValueError, match=r"add AddHostCoordinates\(\)"):
            InsertTumorsInBatch(insertion)(next(iter(loader)))
    empty = torchio.Subject(mri=torchio.ScalarImage(tensor=torch.zeros(1, 8, 8, 8)))
    with pytest.raises(ValueError, match="expected an image with host tissue"):
        AddHostCoordinates()(empty)


def test_a_mask_says_where_the_host_is():
    mask = torch.zeros(1, 60, 56, 52, dtype=torch.int16)
    mask[:, 10:50, 8:48, 6:46] = 1
    subject = whole()
    subject.add_image(torchio.LabelMap(tensor=mask, affine=AFFINE), "host")
    found = AddHostCoordinates("places", host_name="host")(subject)["places"]
    assert np.allclose(fitted_frame(found.data), host_frame(mask[0].numpy() != 0, AFFINE), atol=1e-5)


@pytest.mark.parametrize("pad", [0.0, 7.0])
def test_padding_does_not_count_and_a_sample_of_nothing_else_is_far_from_its_host(pad):
    frame = np.concatenate([np.diag([0.01, -0.02, 0.015]), [[0.2], [0.9], [0.1]]], 1)
    image = torch.full((3, 30, 30, 30), pad)
    image[:, 8:, :20] = coordinates(frame, (30, 30, 30))[:, 8:, :20]
    assert np.allclose(fitted_frame(image), frame, atol=1e-5)
    empty = torchio.Subject(mri=torchio.ScalarImage(tensor=torch.zeros(4, 40, 40, 40)))
    empty.add_image(torchio.LabelMap(tensor=torch.zeros(1, 40, 40, 40, dtype=torch.int16)), "tumour")
    empty.add_image(torchio.Image(tensor=torch.full((3, 40, 40, 40), pad), type="host_coordinates"), "where")
    insertion = at_home()
    new = RandomTumor(insertion, p=1.0)(empty)
    assert torch.equal(new["mri"].data, empty["mri"].data) and insertion.report().done == 0
