"""Fluid and rim left out of host tissue."""

import pytest
import torch
from engine import CHANNELS, done_rows, toy_bank, toy_batch, toy_insertion

from synthaug import InsertionPlan, TumorInsertion
from synthaug.data import phantom_case
from synthaug.geometry import grown
from synthaug.host import HostSample
from synthaug.host.fluid import fluid_of, rim_of


def brain_with_a_ventricle():
    """A noise brain with a box of fluid in its middle, which the lesions' sizes make hard to miss."""
    image, label = toy_batch(4, labelled=False)
    fluid = torch.zeros(label.shape[2:], dtype=torch.bool)
    fluid[18:30, 14:30, 14:26] = True
    for channel, level in enumerate((-60.0, -60.0, -50.0, 80.0)):
        image[:, channel][:, fluid] += level
    return image, label, fluid


def test_fluid_is_dark_in_flair_and_t1_and_bright_in_t2():
    image, label, fluid = brain_with_a_ventricle()
    host = HostSample.of(image[0], label[0, 0])
    found = fluid_of(image[0], host, CHANNELS, (1, 1, 1))
    assert (found & fluid).sum() > 0.8 * fluid.sum() and (found & ~grown(fluid, 1, (1, 1, 1))).sum() < 20
    image[0, 3][fluid] -= 80.0  # air, not fluid
    assert not fluid_of(image[0], HostSample.of(image[0], label[0, 0]), CHANNELS, (1, 1, 1))[20:28, 16:28, 16:24].any()
    missing = image[1].clone()
    missing[1] = 0.0
    found = fluid_of(missing, HostSample.of(missing, label[1, 0]), CHANNELS, (1, 1, 1))
    assert (found & fluid).sum() > 0.8 * fluid.sum()
    alone = image[1, :1]
    found = fluid_of(alone, HostSample.of(alone, label[1, 0]), ("flair",), (1, 1, 1))
    assert (found & fluid).sum() > 0.8 * fluid.sum()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0)])
def test_sulci_are_no_fluid_and_thin_horns_of_ventricles_are(spacing):
    image, label = toy_batch(1, labelled=False)
    sulcus, horn, ventricle = (torch.zeros(label.shape[2:], dtype=torch.bool) for _ in range(3))
    sulcus[34:36, 10:38, 10:34] = True
    ventricle[18:26, 14:30, 14:26] = True
    horn[16:18, 18:26, 16:24] = True
    for channel, level in enumerate((-30.0, -30.0, -25.0, 40.0)):
        image[0, channel][sulcus | horn | ventricle] += level
    found = fluid_of(image[0], HostSample.of(image[0], label[0, 0]), CHANNELS, spacing)
    assert not (found & sulcus).any()
    assert (found & horn).sum() > 0.5 * horn.sum() and (found & ventricle).sum() > 0.8 * ventricle.sum()


def test_a_phantoms_ventricles_are_fluid():
    image = torch.from_numpy(phantom_case(1, (64, 64, 64), tumour=False).image)
    found = fluid_of(image, HostSample.of(image, torch.zeros(64, 64, 64)), CHANNELS, (1, 1, 1))
    assert 50 < found.sum() < 0.3 * found.numel()
    z = HostSample.of(image, torch.zeros(64, 64, 64)).to_model(image)
    assert z[3][found].mean() > 1 and z[0][found].mean() < -1


def test_lesions_keep_out_of_fluid_and_rim_and_repeat():
    image, label, fluid = brain_with_a_ventricle()
    prior = 1 + 1000.0 * fluid.expand(label.shape)
    prior[..., :6] = 30.0
    options = {"tissue_share": 0.5, "clearance_mm": 0.0, "scale": 0.7, "second": 1.0}
    free, held = toy_insertion(**options), toy_insertion(**options, avoid_fluid=True, rim_mm=4.0)
    _, plain = free(image, label, prior=prior)
    new_image, new_label, plan = held.recorded(image, label, spacing_mm=(1.0, 1.0, 2.0), prior=prior)
    certain = ~grown(~fluid, 1.5, (1, 1, 1))
    rim = torch.zeros_like(fluid)
    rim[..., 3:5] = True  # background ends at 3, and 4 mm are 2 voxels
    assert (plain[:, 0] > 0)[:, certain].any() and (plain > 0)[..., 3:5].any()
    assert len(done_rows(plan)) >= 4 and not (new_label[:, 0] > 0)[:, certain | rim].any()
    again = held.apply(image, label, InsertionPlan.from_rows(plan.to_rows()))
    assert torch.equal(again[0], new_image) and torch.equal(again[1], new_label)


def test_labels_are_no_fluid_and_statistics_stay():
    image, label, fluid = brain_with_a_ventricle()
    label[:, 0, 18:30, 14:30, 14:26] = 1
    held = toy_insertion(place="own", avoid_fluid=True, rim_mm=4.0, style="host")
    row = held.plan(image, label).to_rows()[0]
    assert row["outcome"] == "done" and row["voxels"]["NCR"] == fluid.sum()
    free = toy_insertion(place="own", style="host").plan(image, label).to_rows()[0]
    assert free["tissue"] == row["tissue"]


def test_the_rim_is_at_the_edge_of_tissue_not_of_the_patch():
    tissue = torch.ones(20, 20, 20, dtype=torch.bool)
    tissue[:5] = False
    rim = rim_of(tissue, 3.0, (1.0, 1.0, 1.0))
    assert rim[5:8].all() and not rim[8:].any() and not rim[:5].any()


def test_fluid_needs_flair():
    bank = toy_bank(channels=("t1", "t2"))
    with pytest.raises(ValueError, match="avoid_fluid: fluid is told by FLAIR; the channels are t1, t2"):
        TumorInsertion(bank, channels=("t1", "t2"), avoid_fluid=True)
