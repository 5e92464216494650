"""Host tissue and model intensities, whatever units a batch comes in."""

import numpy as np
import pytest
import torch
from engine import done_rows, toy_batch, toy_insertion
from hypothesis import given, settings
from hypothesis import strategies as st

from synthaug.data import phantom_case
from synthaug.host import HostSample, from_model, host_statistics, host_tissue, to_model


@pytest.fixture(scope="module")
def brain():
    """A phantom: raw intensities (4, 64, 64, 64), exactly 0 outside the brain."""
    return torch.from_numpy(phantom_case(1, (64, 64, 64), tumour=False).image)


def zscored_inside(x):
    inside = (x != 0).all(0)
    mean, std = x[:, inside].mean(1), x[:, inside].std(1)
    return torch.where(inside, (x - mean[:, None, None, None]) / std[:, None, None, None], 0.0)


def percentile_scaled(x):
    inside = (x != 0).all(0)
    low, high = torch.quantile(x[:, inside], torch.tensor([0.005, 0.995]), dim=1)
    return ((x - low[:, None, None, None]) / (high - low)[:, None, None, None]).clamp(0, 1)


UNITS = {
    "raw": lambda x: x,
    "z-score of the brain, 0 outside": zscored_inside,
    "z-score of the image": lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True),
    "min-max": lambda x: x / x.amax((1, 2, 3), keepdim=True),
    "[-1, 1]": lambda x: 2 * x / x.amax((1, 2, 3), keepdim=True) - 1,
    "percentiles, clipped": percentile_scaled,
    "negative": lambda x: -x - 100,
    "float16": lambda x: (x / 10).half(),
}


@pytest.mark.parametrize("units", UNITS)
def test_tissue_is_found_in_any_units(brain, units):
    truth = (brain != 0).all(0)
    found = host_tissue(UNITS[units](brain))
    assert (found & ~truth).float().mean() < 0.002
    assert (truth & ~found).sum() / truth.sum() < 0.01


def test_zero_inside_the_brain_is_tissue(brain):
    x = zscored_inside(brain)
    truth = (brain != 0).all(0)
    generator = torch.Generator().manual_seed(0)
    x[:, (torch.rand(truth.shape, generator=generator) < 0.05) & truth] = 0.0
    found = host_tissue(x)
    assert (truth & ~found).sum() / truth.sum() < 0.01


def test_missing_and_partly_covered_channels(brain):
    missing = brain.clone()
    missing[1] = 0
    assert torch.equal(host_tissue(missing), host_tissue(brain[[0, 2, 3]]))
    partial = brain.clone()
    partial[0, :, :, 40:] = 0
    found = host_tissue(partial)
    assert not found[:, :, 41:].any() and found[:, :, :39].any()
    assert not host_tissue(torch.zeros(4, 20, 20, 20)).any()


def test_a_patch_of_one_slice_keeps_its_shape():
    slab = torch.rand(2, 20, 1, 24)
    slab[:, :6] = 0
    found = host_tissue(slab)
    assert found.shape == (20, 1, 24) and not found[:5].any() and found[7:].all()


def test_a_patch_without_background_is_all_tissue():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(90, 110, (2, 32, 32, 32), generator=generator).float()
    assert host_tissue(whole).float().mean() > 0.999


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
def test_model_space_does_not_depend_on_units_and_inverts(gain, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 20, 21, 22, generator=generator, dtype=torch.float64)
    tissue = torch.rand(20, 21, 22, generator=generator) > 0.3
    z = to_model(x, *host_statistics(x, tissue))
    assert z[:, tissue].mean(1).abs().max() < 0.05
    assert (z[:, tissue].std(1) - 1).abs().max() < 0.05
    scaled = x * gain + shift
    mean, std = host_statistics(scaled, tissue)
    tolerance = 1e-3 * (1 + abs(shift) / gain)
    assert torch.allclose(to_model(scaled, mean, std), z, atol=tolerance)
    assert torch.allclose(from_model(to_model(scaled, mean, std), mean, std), scaled.float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("units", ["z-score of the image", "[-1, 1]", "min-max"])
def test_the_same_tumour_is_inserted_in_any_units(brain, units):
    label = torch.zeros(1, 1, 64, 64, 64, dtype=torch.int64)
    results = []
    for image in (brain, UNITS[units](brain)):
        insert = toy_insertion(scale=0.9, edge_vox=0)
        plan = insert.plan(image[None], label)
        out, new_label = insert.apply(image[None], label, plan)
        host = HostSample.of(image, label[0, 0])
        results.append((done_rows(plan)[0]["center_vox"], to_model(out[0], host.mean, host.std), new_label))
    (where, z, labels), (where_2, z_2, labels_2) = results
    assert where == where_2 and torch.equal(labels, labels_2)
    assert torch.allclose(z, z_2, atol=5e-3)


def test_a_missing_channel_stays_as_it_is():
    image, label = toy_batch(1, labelled=False)
    image[:, 2] = 7.0
    insert = toy_insertion()
    out, _ = insert(image, label)
    assert insert.report().done == 1
    assert torch.equal(out[:, 2], image[:, 2]) and not torch.equal(out[:, 0], image[:, 0])


def test_given_statistics_are_used_and_replayed():
    image, label = toy_batch(2, labelled=False)
    insert = toy_insertion(edge_vox=0, flip=0, rotate90=False)
    plan = insert.plan(image, label, host_stats=(50.0, [[1.0] * 4, [2.0] * 4]))
    out, new_label = insert.apply(image, label, plan)
    for b, std in enumerate((1.0, 2.0)):
        inside = (new_label[b, 0] == 4)[None].expand(4, -1, -1, -1)
        row = plan.to_rows()[b]
        assert row["host_stats"] == {"mean": [50.0] * 4, "std": [std] * 4}
        mean, _ = insert.lesions.class_statistics(row["lesion"], range(4))
        floor = HostSample.of(image[b], label[b, 0]).floor.max()
        assert out[b][inside].mean() == pytest.approx(max(50 + std * float(mean[2].mean()), float(floor)), rel=0.1)
    again = insert.apply(image, label, type(plan).from_rows(plan.to_rows()))
    assert torch.equal(again[0], out)


def test_nothing_is_darker_than_the_darkest_tissue():
    image, label = toy_batch(1, labelled=False)
    insert = toy_insertion("procedural", edge_vox=0)
    out, _ = insert(image, label)
    inside = np.unique(np.nonzero((out != image).numpy())[1])
    assert len(inside) == 4
    lowest = image[0][:, host_tissue(image[0])].amin(1)
    assert (out[0][:, (out != image)[0].any(0)].amin(1) >= lowest - 1e-3).all()
