"""Banks, procedural shapes, swaps, class mix and scale."""

import numpy as np
import pytest
import torch
from engine import CHANNELS, OPTIONS, done_rows, toy_bank, toy_batch, toy_case, toy_insertion
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from synthaug import BRATS18, BRATS23, LesionBank, LesionShapes, TumorInsertion, single
from synthaug.insertion.render import resample
from synthaug.lesions.rebalance import ClassMix, Swaps

CPU = torch.device("cpu")


def test_a_bank_comes_back_from_its_file(tmp_path):
    bank = toy_bank()
    bank.save(tmp_path / "sub" / "bank.safetensors")
    again = LesionBank.load(tmp_path / "sub" / "bank.safetensors")
    assert list(again) == list(bank) and again.classes == bank.classes and again.channels == bank.channels
    assert again.groups == {f"patient-{i}" for i in range(4)}
    for lesion in bank:
        assert torch.equal(again.mask(lesion.name, CPU), bank.mask(lesion.name, CPU))
        channels = range(4)
        assert torch.equal(again.intensities(lesion.name, channels, CPU), bank.intensities(lesion.name, channels, CPU))
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["bank.safetensors"]


def test_masks_and_intensities_are_the_case_s_own():
    name, group, image, label, spacing = toy_case(0, 12)
    bank = LesionBank.from_arrays([(name, group, image, label, spacing)], BRATS18, CHANNELS)
    (lesion,) = bank
    mask, box = bank.mask(lesion.name, CPU), bank.intensities(lesion.name, range(4), CPU)
    found = np.nonzero(label)
    low, high = [i.min() - 3 for i in found], [i.max() + 4 for i in found]
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    values = np.array([0, *BRATS18.values.values()])
    assert np.array_equal(values[mask.numpy()], label[cut])
    assert lesion.voxels == tuple(int((label == v).sum()) for v in BRATS18.values.values())
    healthy = image[:, (label == 0) & (image[0] != 0)]
    expected = (image[(slice(None), *cut)] - healthy.mean(1)[:, None, None, None]) / healthy.std(1)[:, None, None, None]
    assert np.abs(box.numpy() - expected).max() < 0.25
    mean, std = bank.class_statistics(lesion.name, range(4))
    for k, value in enumerate(values[1:]):
        inside = box.numpy()[:, label[cut] == value]
        assert np.allclose(mean[k], inside.mean(1), atol=0.02) and np.allclose(std[k], inside.std(1), atol=0.02)


def test_per_lesion_and_per_case():
    label = np.zeros((40, 40, 40), np.int16)
    label[2:10, 2:10, 2:10], label[20:30, 20:30, 20:30], label[35, 35, 35] = 2, 4, 1
    image = np.random.default_rng(0).normal(size=(1, 40, 40, 40)).astype(np.float32)
    samples = [("a", "p", image, label, (1, 1, 1))]
    lesions = LesionBank.from_arrays(samples, BRATS18, ("t1",))
    assert [x.voxels for x in lesions] == [(0, 0, 1000), (0, 512, 0)]
    assert lesions.skipped == ["a: 1 components below 27 voxels"]
    (case,) = LesionBank.from_arrays(samples, BRATS18, ("t1",), per="case")
    assert case.voxels == (1, 512, 1000)
    with pytest.raises(ValueError, match="'lesion' or 'case', got 'x'"):
        LesionBank.from_arrays(samples, BRATS18, ("t1",), per="x")


def test_a_bank_serves_other_values_and_fewer_channels_by_name():
    image, label = toy_batch(2, channels=2, labelled=False)
    insert = toy_insertion(classes=BRATS23, channels=("t1c", "t2w"))
    _, new_label = insert(image, label)
    assert insert.report().done == 2
    assert 3 in new_label.unique() and 4 not in new_label.unique()


@pytest.mark.parametrize("seed", range(4))
def test_shapes_nest_and_have_their_proportions(seed):
    shapes = LesionShapes(diameter_mm=30.0, proportions={"NCR": 0.2, "ET": 0.3, "ED": 0.5}, spread=0.0)
    name = f"shape:{seed}"
    lesion, mask = shapes.lesion(name), shapes.mask(name, CPU)
    assert torch.equal(mask, shapes.mask(name, CPU))
    counts = [int((mask == k + 1).sum()) for k in range(3)]
    assert counts == list(lesion.voxels)
    share = np.array(counts) / sum(counts)
    assert np.allclose(share, [0.2, 0.5, 0.3], atol=0.01)
    volume = sum(counts) * np.prod(lesion.spacing_mm)
    assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(30, rel=1e-3)
    depth = ndimage.distance_transform_edt(mask.numpy() > 0)
    ncr, ed, et = (depth[mask.numpy() == k].mean() for k in (1, 2, 3))
    assert ncr > et > ed, "the necrotic core lies inside, oedema outside"
    assert not mask[:3].any() and not mask[-3:].any()


def test_irregularity_and_other_classes():
    def roughness(irregularity):
        mask = LesionShapes(irregularity=irregularity).mask("shape:5", CPU).numpy() > 0
        surface = mask & ~ndimage.binary_erosion(mask)
        return surface.sum() / mask.sum() ** (2 / 3)

    assert roughness(0.5) > 1.1 * roughness(0.0)
    binary = LesionShapes(classes=single("liver tumour"))
    assert binary.classes == ("liver tumour",) and int(binary.mask("shape:1", CPU).max()) == 1


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.2, 1.4), seed=st.integers(0, 1000))
def test_resampling_keeps_mass_and_makes_no_holes(factor, seed):
    bank = toy_bank(1, size=20)
    one_hot = torch.stack([(bank.mask("case-0/0", CPU) == k + 1).float() for k in range(3)])
    size = [int(n * factor) + 6 for n in one_hot.shape[1:]]
    small = resample(one_hot, (factor,) * 3, size, extend=False)
    assert float(small.sum()) == pytest.approx(float(one_hot.sum()) * factor**3, rel=0.05)
    inside = small.sum(0) >= 0.5
    filled = ndimage.binary_fill_holes(inside.numpy())
    assert np.array_equal(filled, inside.numpy())
    assert small.min() >= 0 and small.sum(0).max() <= 1 + 1e-5


def test_zoom_one_moves_voxels_only():
    volume = torch.randn(2, 9, 12, 7)
    out = resample(volume, (1.0, 1.0, 1.0), (15, 16, 17), extend=False)
    start = [s // 2 - n // 2 for s, n in zip(out.shape[1:], volume.shape[1:], strict=True)]
    cut = (slice(None), *(slice(a, a + n) for a, n in zip(start, volume.shape[1:], strict=True)))
    assert torch.equal(out[cut], volume)
    assert out.abs().sum() == pytest.approx(float(volume.abs().sum()), rel=1e-6)


def test_scaled_diameters_are_what_was_asked_for():
    for spacing in ((1.0, 1.0, 1.0), (1.0, 0.8, 1.6)):
        insert = toy_insertion(lesions=toy_bank(4, size=24), diameter_mm=(9, 16), clearance_mm=1.0)
        rows = []
        for step in range(10):
            image, label = toy_batch(2, labelled=False, seed=step)
            rows += done_rows(insert.recorded(image, label, spacing)[2])
        diameters = [row["diameter_mm"] for row in rows]
        bank = {lesion.name: lesion for lesion in insert.lesions}
        for row in rows:
            volume = sum(bank[row["lesion"]].voxels)
            asked = row["scale"] * (6 * volume / np.pi) ** (1 / 3)
            assert row["diameter_mm"] == pytest.approx(asked, rel=0.06)
            assert 9 <= asked <= 16
        assert min(diameters) < 11 and max(diameters) > 14


def test_swaps_act_on_the_original_classes():
    rng = np.random.default_rng(0)
    certain = [("SNFH", "ET", 1.0), ("ET", "NETC", 1.0)]
    assert Swaps(certain, "joint", BRATS18).sample(rng) == {"ED": "ET", "ET": "NCR"}
    image, label = toy_batch(1, labelled=False)
    for draw in ("joint", "each"):
        plain = toy_insertion(lesions=toy_bank(1)).plan(image, label).to_rows()[0]
        row = toy_insertion(lesions=toy_bank(1), swaps=certain, swap_draw=draw).plan(image, label).to_rows()[0]
        before, after = plain["voxels"], row["voxels"]
        assert after == {"NCR": before["NCR"] + before["ET"], "ED": 0, "ET": before["ED"]}


def test_paste_recolours_swapped_classes():
    bank = toy_bank(1, size=20)
    image, label = toy_batch(1, labelled=False)
    for options, name in (({}, "ED"), ({"swaps": [("ED", "ET", 1.0)]}, "ET")):
        insert = toy_insertion(lesions=bank, edge_vox=0, scale=1.0, flip=0, rotate90=False, **options)
        new_image, new_label = insert(image, label)
        inside = new_image[0][:, (new_label[0, 0] == BRATS18.values["ED"]) | (new_label[0, 0] == BRATS18.values[name])]
        mean, _ = bank.class_statistics("case-0/0", range(4))
        got = (inside.mean(1) - 100) / 15
        assert torch.allclose(got, mean[BRATS18.index(name)], atol=0.6), name
    assert abs(float(mean[1, 0] - mean[2, 0])) > 1.5, "the classes differ, so the check means something"


def binomial_bounds(p, n):
    return stats.binom.interval(0.9999, n, p)


@pytest.mark.real_data
@pytest.mark.parametrize("draw", ["joint", "each"])
def test_swap_and_scale_statistics_on_the_real_bank(real_bank, draw):
    insert = TumorInsertion(
        real_bank,
        prob=0.6,
        second=0.4,
        scale=(0.3, 0.8),
        scale_after_swap={"ED": (0.1, 0.3)},
        swaps=[("ED", "ET", 0.7), ("ET", "NCR", 0.7)],
        swap_draw=draw,
    )
    rows = []
    for _ in range(100):
        # only the host's decisions are looked at; placement has its own tests
        drawn = insert._decider.batch([(1.0, 1.0, 1.0)] * 20, (128, 128, 128), [None] * 20)
        insert._decider.advance(drawn.samples, drawn.mix_voxels)
        rows += drawn.insertions
    firsts = [r for r in rows if r.order == 0]
    low, high = binomial_bounds(0.6, 2000)
    assert low <= len(firsts) <= high
    low, high = binomial_bounds(0.4, len(firsts))
    assert low <= len(rows) - len(firsts) <= high
    low, high = binomial_bounds(0.7, len(rows))
    ed, et = [r for r in rows if "ED" in r.swaps], [r for r in rows if "ET" in r.swaps]
    assert low <= len(ed) <= high and low <= len(et) <= high
    both = sum("ET" in r.swaps for r in ed)
    low, high = binomial_bounds(0.49, len(rows))
    assert both == len(ed) == len(et) if draw == "joint" else low <= both <= high
    for swapped, (a, b) in ((True, (0.1, 0.3)), (False, (0.3, 0.8))):
        scales = [r.scale for r in rows if ("ED" in r.swaps) == swapped]
        assert a <= min(scales) and max(scales) <= b
        assert stats.kstest(scales, stats.uniform(a, b - a).cdf).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.real_data
def test_class_mix_on_the_real_bank(real_bank):
    target = {"NCR": 0.25, "ED": 0.35, "ET": 0.40}
    insert = TumorInsertion(real_bank, prob=1.0, second=0.0, scale=(0.2, 0.4), class_mix=target)
    generator = torch.Generator().manual_seed(0)
    image = 100 + 15 * torch.randn(1, 4, 48, 48, 48, generator=generator)
    label = torch.zeros(1, 48, 48, 48, dtype=torch.uint8)
    for _ in range(150):
        insert(image, label)
    report = insert.report()
    assert report.done >= 147
    total = sum(report.voxels.values())
    for name, share in target.items():
        assert report.voxels[name] / total == pytest.approx(share, abs=0.05)


def test_class_mix_costs_less_when_the_donors_fit():
    rng = np.random.default_rng(0)
    mix = ClassMix({"NCR": 0.2, "ED": 0.5, "ET": 0.3}, BRATS18)
    voxels = np.array([[20.0, 50.0, 30.0], [0.0, 100.0, 0.0]])
    donor, swaps, added = mix.choose(voxels, np.ones(2), rng)
    assert donor == 0 and swaps == {} and added.tolist() == [20, 50, 30]
    mix.counts[:] = [0, 1000, 0]
    _, swaps, _ = mix.choose(voxels, np.ones(2), rng)
    assert swaps.get("ED", "ED") != "ED", "oedema is far above its share and must be renamed"


def test_option_sets_cover_every_option():
    used = {name for options in OPTIONS.values() for name in options}
    assert {"second", "scale", "swaps", "swap_draw", "class_mix", "diameter_mm", "rotate_deg", "halo_mm"} <= used
