"""MONAI: patches know where in their hosts they lie, after its crops, flips, turns and affine changes."""

import json

import numpy as np
import pytest
import torch
from adapter_places import AFFINE, PATCH, at_home, bank_at, host_at, lies_at_home, often_where_lesions_lie
from engine import toy_insertion
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.transforms import (
    Compose,
    Orientationd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    Spacingd,
    SpatialPadd,
)

from synthaug.adapters.frames import HOST_FROM_WORLD, frames_by_affine
from synthaug.adapters.monai import (
    PrepareBatchInsertTumor,
    RandInsertTumor,
    RandInsertTumord,
    StoreHostFramed,
)

KEYS = ["image", "label"]
STEPS = {
    "crop": [],
    "flips": [RandFlipd(KEYS, prob=1.0, spatial_axis=0), RandFlipd(KEYS, prob=0.5, spatial_axis=2)],
    "turns": [RandRotate90d(KEYS, prob=1.0, spatial_axes=(0, 2))],
    "affine": [
        RandAffined(
            KEYS, prob=1.0, rotate_range=[0.3] * 3, scale_range=[0.1] * 3, translate_range=[2] * 3,
            shear_range=[0.05] * 3, mode=("bilinear", "nearest"),
        )
    ],
}  # fmt: skip
STEPS["all"] = [step for steps in STEPS.values() for step in steps]


def whole(seed=0):
    image, label = host_at(seed)
    return {"image": MetaTensor(image, affine=AFFINE), "label": MetaTensor(label.float(), affine=AFFINE)}


def cropping(number=1):
    return RandCropByPosNegLabeld(KEYS, "label", PATCH, pos=1, neg=0, num_samples=number)


def pipeline(*steps, number=1, lazy=False, store="image"):
    modes = {"image": {"mode": "bilinear"}, "label": {"mode": "nearest"}} if lazy else None
    first = [StoreHostFramed(store), SpatialPadd(KEYS, (64, 60, 56)), cropping(number)]
    return Compose([*first, *steps], lazy=lazy, overrides=modes)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_a_donor_goes_home_after_every_spatial_change(name, lazy):
    insert = RandInsertTumord("image", "label", at_home(), prob=1.0)
    steps = pipeline(*STEPS[name], lazy=lazy)
    for seed in range(3):
        (patch,) = steps.set_random_state(seed)(whole(seed))
        new = insert.set_random_state(seed)(patch)
        assert isinstance(new["image"], MetaTensor)
        lies_at_home((patch["image"], patch["label"][0]), (new["image"], new["label"][0]))


def test_insertion_may_stand_in_a_lazy_pipeline_with_several_patches_of_a_host():
    steps = [*STEPS["all"], RandInsertTumord("image", "label", at_home(), prob=1.0, record_key="rows")]
    for seed in range(3):
        runs = [pipeline(*part, number=2, lazy=True).set_random_state(seed)(whole()) for part in (STEPS["all"], steps)]
        for before, after in zip(*runs, strict=True):
            assert json.loads(after["rows"])[0]["place"] == "home"
            lies_at_home((before["image"], before["label"][0]), (after["image"], after["label"][0]))


def test_orientation_and_spacing_may_change_after_the_frame_was_stored():
    steps = [Orientationd(KEYS, "PLI"), Spacingd(KEYS, (1.2, 0.9, 1.1), mode=("bilinear", "nearest"))]
    (patch,) = Compose([StoreHostFramed("image"), *steps, cropping()]).set_random_state(1)(whole())
    new = RandInsertTumord("image", "label", at_home(), prob=1.0)(patch)
    lies_at_home((patch["image"], patch["label"][0]), (new["image"], new["label"][0]))


def test_batches_know_their_hosts_after_a_loader_with_workers():
    data = Dataset([whole(i) for i in range(3)], pipeline(*STEPS["all"], number=2))
    prepare = PrepareBatchInsertTumor(at_home(), spacing_mm=(1, 1, 1))
    for batch in DataLoader(data, batch_size=3, num_workers=1):
        image, label = prepare(batch, "cpu")
        for b in range(len(image)):
            lies_at_home((batch["image"][b], batch["label"][b, 0]), (image[b], label[b, 0]))


def test_a_label_that_knows_its_host_is_enough_and_the_array_form_knows_it_too():
    (patch,) = pipeline(store=KEYS).set_random_state(0)(whole())
    image = patch["image"].as_tensor()
    new = RandInsertTumor(at_home(), prob=1.0, spacing_mm=(1, 1, 1))(image, patch["label"])
    lies_at_home((image, patch["label"][0]), (new[0], new[1][0]))


def test_lesions_lie_as_often_where_those_of_the_bank_lay():
    insertion = toy_insertion(lesions=bank_at(), place="like-data", clearance_mm=0.0, scale=(0.3, 0.4))
    steps = Compose([StoreHostFramed("image"), RandFlipd(KEYS, prob=0.5, spatial_axis=1)]).set_random_state(0)
    batch = list_data_collate([steps(whole(i)) for i in range(24)])
    frames = frames_by_affine(batch["image"].meta[HOST_FROM_WORLD], batch["image"].affine)
    label = torch.zeros(24, 1, *batch["image"].shape[2:], dtype=torch.int64)
    image = batch["image"].as_tensor()
    often_where_lesions_lie(insertion.plan(image, label, frames=frames).to_rows(), frames)
    prepare = PrepareBatchInsertTumor(insertion)
    assert not torch.equal(prepare(batch, "cpu")[1], batch["label"])


def test_without_frames_the_transform_to_add_is_named():
    bare = whole()
    for insertion in (at_home(), toy_insertion(lesions=bank_at(), place="like-data")):
        with pytest.raises(ValueError, match=r"place: (home|like-data) needs to know .* add StoreHostFramed\(keys\)"):
            RandInsertTumord("image", "label", insertion, prob=1.0)(bare)
        with pytest.raises(ValueError, match=r"add StoreHostFramed\(keys\)"):
            PrepareBatchInsertTumor(insertion)(list_data_collate([bare, bare]), "cpu")
    RandInsertTumord("image", "label", toy_insertion(lesions=bank_at()), prob=1.0)(bare)


def test_what_holds_no_host_frame_is_named():
    data = whole()
    with pytest.raises(TypeError, match="image: expected a MetaTensor, which has an affine, got Tensor"):
        StoreHostFramed("image")({"image": data["image"].as_tensor()})
    with pytest.raises(ValueError, match="expected an image with host tissue"):
        StoreHostFramed("image")({"image": data["image"] * 0})
    with pytest.raises(KeyError, match="label"):
        StoreHostFramed(["image", "label"])({"image": data["image"]})
    assert StoreHostFramed("image", allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_a_mask_says_where_the_host_is_and_lps_is_turned():
    data = whole()
    mask = torch.zeros_like(data["label"])
    mask[:, 10:50, 8:48, 6:46] = 1
    found = StoreHostFramed("image", host_key="host")(data | {"host": mask})["image"]
    assert HOST_FROM_WORLD not in data["image"].meta
    corner = frames_by_affine(found.meta[HOST_FROM_WORLD], found.affine)[0] @ [49.5, 7.5, 5.5, 1]
    assert np.allclose(corner, 0)
    lps = MetaTensor(data["image"].as_tensor(), affine=np.diag([-1.0, -1, 1, 1]) @ AFFINE, meta={"space": "LPS"})
    frames = [StoreHostFramed("image")({"image": image})["image"] for image in (data["image"], lps)]
    a, b = (frames_by_affine(x.meta[HOST_FROM_WORLD], x.affine) for x in frames)
    assert np.allclose(a, b)
