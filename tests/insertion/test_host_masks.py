"""A host mask may be a function of the sample: called for samples that get a lesion alone, and the same as a tensor."""

import pytest
import torch
from engine import GENERATORS, toy_bank, toy_batch, toy_insertion

from synthaug import InsertionPlan


class Masks:
    """A host mask per sample, and which of them were asked for."""

    def __init__(self, masks):
        self.masks, self.asked = masks, []

    def __call__(self, sample):
        self.asked.append(sample)
        return self.masks[sample]


def half_tissue(samples):
    """Tissue in one half of each sample, with a channel axis."""
    mask = torch.zeros(samples, 1, 48, 44, 40, dtype=torch.bool)
    mask[:, :, 20:] = True
    return mask


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_function_gives_what_its_masks_give(generator):
    image, label = toy_batch(3)
    host = half_tissue(3)
    options = {"prob": 0.6, "second": 0.5, "scale": 0.6}
    if generator != "paste":
        options.pop("scale")
    expected = toy_insertion(*GENERATORS[generator](), **options)(image, label, host=host)
    for masks in (host, host[:, 0]):
        found = toy_insertion(*GENERATORS[generator](), **options)(image, label, host=Masks(masks))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(expected[1], label)


def test_maps_may_lie_in_memory_as_files_do():
    """NIfTI files are read in Fortran's order; what comes of such a batch is the same."""
    image, label = toy_batch(2, size=(24, 24, 24), labelled=False)
    host, prior = torch.ones_like(label), torch.ones(label.shape)
    found = toy_insertion(scale=0.4, second=1.0)(image, label, host=host, prior=prior)
    turned = [x.transpose(-1, -3).contiguous().transpose(-1, -3) for x in (image, label, host, prior)]
    assert not turned[2].is_contiguous()
    again = toy_insertion(scale=0.4, second=1.0)(*turned[:2], host=turned[2], prior=turned[3])
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert not torch.equal(found[1], label)


def test_only_samples_that_get_a_lesion_are_asked_for_and_once():
    image, label = toy_batch(8, size=(24, 24, 24), labelled=False)
    masks = Masks(torch.ones(8, 24, 24, 24, dtype=torch.bool))
    insert = toy_insertion(prob=0.4, second=1.0, scale=0.4)
    for _ in range(3):
        masks.asked.clear()
        insert(image, label, host=masks)
        insert.number -= 8
        drawn = sorted({row.sample for row in insert.plan(image, label).insertions})
        insert.number += 8
        assert masks.asked == drawn and len(drawn) < 8


def test_a_refused_insertion_asks_for_nothing():
    image, label = toy_batch(1)
    insert = toy_insertion(lesions=toy_bank(1))
    insert(image, label, groups=["patient-0"], host=Masks(None))
    assert insert.report().refused == {"no donor of another patient group": 1}


def test_plan_and_apply_ask_once_each_and_a_replay_for_what_was_done():
    image, label = toy_batch(2)
    masks = Masks(half_tissue(2))
    masks.masks[0] = False
    insert = toy_insertion()
    plan = insert.plan(image, label, host=masks)
    assert masks.asked == [0, 1]
    expected = insert.apply(image, label, plan, host=masks)
    assert masks.asked == [0, 1, 0, 1]
    replay = InsertionPlan.from_rows(plan.to_rows())
    found = toy_insertion().apply(image, label, replay, host=masks)
    assert masks.asked == [0, 1, 0, 1, 1], "the first sample's lesion had no room"
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(ValueError, match="made with a host mask"):
        insert.apply(image, label, replay)
