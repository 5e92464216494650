"""The host's own lesion painted anew in place, and changes of contrast."""

import json

import numpy as np
import pytest
import torch
from engine import GENERATORS, done_rows, toy_bank, toy_batch, toy_insertion
from waits import NoWait

from synthaug import InsertionPlan, LesionShapes, Outcome
from synthaug.geometry import grown
from synthaug.insertion.heal import filled, healed
from synthaug.insertion.own import component
from synthaug.lesions.scale import SizeWeights
from synthaug.sizes import SizeClasses

SIZE = (48, 44, 40)
UPRIGHT = np.concatenate([np.eye(3) / np.array(SIZE)[:, None], np.full((3, 1), 0.5) / np.array(SIZE)[:, None]], 1)

CHANGES = {
    "same size": {},
    "shrunk": {"scale": (0.5, 0.8)},
    "grown": {"scale": (1.2, 1.4)},
    "swapped": {"swaps": [("ED", "ET", 1.0), ("ET", "NCR", 1.0)]},
    "halo": {"scale": 0.7, "halo_mm": 2.0},
    "second": {"scale": (0.6, 1.3), "second": 1.0},
    "contrast": {"contrast": (0.7, 1.4), "contrast_shift": 0.2},
}


def labelled_batch(samples=2, seed=0):
    """Noise brains with two lesions each, of several classes, brighter than what is around."""
    image, label = toy_batch(samples, SIZE, seed=seed, labelled=False)
    for low, high, value in ((8, 24, 2), (11, 20, 4), (13, 17, 1)):
        label[:, :, low:high, low:high, low:high] = value
    label[:, :, 34:42, 30:38, 28:36] = 2
    image += 20 * label
    return image, label


def own_insertion(generator="paste", **options):
    maker, lesions = GENERATORS[generator]()
    return toy_insertion(maker, lesions, **({"place": "own"} | options))


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_but_the_lesion_and_its_halo_changes_and_the_label_agrees(generator, change):
    insert = own_insertion(generator, **CHANGES[change])
    image, label = labelled_batch()
    before = image.clone(), label.clone()
    new_image, new_label, plan = insert.recorded(image, label, groups=["patient-0", "other"])
    assert torch.equal(image, before[0]) and torch.equal(label, before[1])
    rows, halo = done_rows(plan), CHANGES[change].get("halo_mm", 0.0)
    assert rows and all(row["place"] == "own" and row["donor_group"] != row["host_group"] for row in rows)
    for b in range(2):
        old, new = label[b, 0] > 0, new_label[b, 0] > 0
        changed = (new_image[b] != image[b]).any(0) | (new_label[b, 0] != label[b, 0])
        assert changed.any() and not (changed & ~grown(old | new, halo, (1, 1, 1))).any()
        row = [row for row in rows if row["sample"] == b]
        if len(row) == 1:
            kept = label[b, 0].clone()
            whole = kept == 2
            first = bool(row[0]["center_vox"][0] < 28)
            part = torch.zeros_like(whole)
            part[:28] = True
            rest = new_label[b, 0][~part] if first else new_label[b, 0][part]
            assert torch.equal(rest, kept[~part] if first else kept[part])
            mine = new_label[b, 0] * (part if first else ~part)
            for name, value in insert.classes.values.items():
                assert int((mine == value).sum()) == row[0]["voxels"][name]


@pytest.mark.parametrize("generator", GENERATORS)
def test_rows_and_samples_alone_give_the_same_bits(generator):
    options = {"scale": (0.6, 1.2), "second": 0.7, "contrast": (0.8, 1.2), "contrast_shift": 0.1}
    image, label = labelled_batch(3)
    groups = ["patient-0", "patient-1", "x"]
    whole = own_insertion(generator, **options)
    new_image, new_label, plan = whole.recorded(image, label, groups=groups, frames=UPRIGHT)
    rows = json.loads(json.dumps(plan.to_rows()))
    again = whole.apply(image, label, InsertionPlan.from_rows(rows))
    assert torch.equal(again[0], new_image) and torch.equal(again[1], new_label)
    single = own_insertion(generator, **options)
    for b in range(3):
        one = single(image[b : b + 1], label[b : b + 1], groups=groups[b : b + 1], frames=UPRIGHT)
        assert torch.equal(one[0][0], new_image[b]) and torch.equal(one[1][0], new_label[b])


@pytest.mark.parametrize("generator", ["paste", "gan"])
def test_the_host_does_not_wait(generator):
    insert = own_insertion(generator, scale=(0.6, 1.2), second=1.0, contrast=(0.8, 1.2), avoid_fluid=True, rim_mm=2.0)
    image, label = labelled_batch()
    with NoWait() as mode:
        plan = insert.plan(image, label, frames=UPRIGHT)
        insert.apply(image, label, plan)
    assert "aten::index_copy_" in mode.seen and insert.report().done > 0


def test_a_sample_without_a_lesion_is_counted_and_left_alone():
    insert = own_insertion()
    image, label = toy_batch(2, labelled=False)
    new_image, new_label = insert(image, label)
    assert torch.equal(new_image, image) and torch.equal(new_label, label)
    assert insert.report().refused == {Outcome.NO_LESION.reason: 2}


def test_a_second_lesion_is_another_one_and_a_third_there_is_none():
    image, label = labelled_batch(6)
    rows = own_insertion(second=1.0).plan(image, label).to_rows()
    for b in range(6):
        first, second = (row["center_vox"] for row in rows if row["sample"] == b)
        assert abs(first[0] - second[0]) > 10
    label[:, :, 34:42, 30:38, 28:36] = 0
    outcomes = [row["outcome"] for row in own_insertion(second=1.0).plan(image, label).to_rows()]
    assert outcomes == ["done", "no_lesion"] * 6


def test_the_look_is_the_donors_or_the_hosts():
    image, label = labelled_batch(1)
    label[:, :, 34:42, 30:38, 28:36] = 0
    kept, _ = own_insertion(style="host", edge_vox=0.0)(image, label)
    assert torch.allclose(kept, image, atol=1e-2)
    insert = own_insertion(edge_vox=0.0)
    styled, new_label, plan = insert.recorded(image, label)
    (row,) = done_rows(plan)
    mean, _ = insert.lesions.class_statistics(row["lesion"], range(4))
    tissue = row["tissue"]
    inside = grown(label[0, 0] != 2, 2, (1, 1, 1)) == 0
    z = (styled[0] - torch.tensor(tissue["mean"])[:, None, None, None]) / torch.tensor(tissue["std"])[
        :, None, None, None
    ]
    assert torch.allclose(z[:, inside].mean(1), mean[1], atol=0.3)
    # its texture is still the host's own
    a, b = styled[0, 0][inside], image[0, 0][inside]
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.95
    assert torch.equal(new_label, label)


def test_a_swapped_class_looks_as_the_donors_does():
    image, label = labelled_batch(1)
    label[:, :, 34:42, 30:38, 28:36] = 0
    insert = own_insertion(edge_vox=0.0, swaps=[("ED", "ET", 1.0)])
    painted, new_label, plan = insert.recorded(image, label)
    (row,) = done_rows(plan)
    mean, _ = insert.lesions.class_statistics(row["lesion"], range(4))
    assert not (new_label == 2).any() and row["voxels"]["ED"] == 0 and row["swaps"] == {"ED": "ET"}
    deep = ~grown(label[0, 0] != 2, 2, (1, 1, 1))
    z = (painted[0, 0][deep] - row["tissue"]["mean"][0]) / row["tissue"]["std"][0]
    assert z.mean() == pytest.approx(float(mean[2, 0]), abs=0.3) and abs(mean[2, 0] - mean[1, 0]) > 0.8


def test_rows_of_before_say_nothing_of_contrast():
    image, label = labelled_batch(1)
    insert = toy_insertion()
    new_image, new_label, plan = insert.recorded(image, label)
    rows = [{k: v for k, v in row.items() if k not in ("gain", "shift", "other_side")} for row in plan.to_rows()]
    with pytest.raises(ValueError, match="row 0 of an insertion plan lacks gain, shift, other_side"):
        InsertionPlan.from_rows(rows)
    again = insert.apply(image, label, InsertionPlan.from_rows([row | {"version": 3} for row in rows]))
    assert torch.equal(again[0], new_image) and torch.equal(again[1], new_label)


def test_where_it_shrinks_there_is_tissue_of_the_host():
    image, label = labelled_batch(1)
    label[:, :, 34:42, 30:38, 28:36] = 0
    image[:, :, 34:42, 30:38, 28:36] -= 40
    for frames in (None, UPRIGHT):
        new_image, new_label = own_insertion(scale=0.5)(image, label, frames=frames)
        healed_at = (label > 0) & (new_label == 0)
        values = new_image[0, 0][healed_at[0, 0]]
        assert healed_at.sum() > 2000
        assert values.mean() == pytest.approx(100, abs=3) and values.std() == pytest.approx(15, rel=0.3)


def test_the_other_side_heals_where_it_is_healthy():
    image, label = labelled_batch(1)
    label[:, :, 34:42, 30:38, 28:36] = 0
    image[:, :, 34:42, 30:38, 28:36] -= 40
    image[:, :, 22:] = torch.sin(torch.arange(SIZE[2]) / 2.0) * 20 + 100
    image[:, :, :22][(label == 0).expand_as(image)[:, :, :22]] = 100.0
    image[..., :3] = 0
    new_image, new_label = own_insertion(scale=0.4)(image, label, frames=UPRIGHT)
    healed_at = ((label > 0) & (new_label == 0))[0, 0]
    healed_at[22:] = False
    other = image[0, 0].flip(0)
    assert torch.corrcoef(torch.stack([new_image[0, 0][healed_at], other[healed_at]]))[0, 1] > 0.9


def test_a_fill_is_smooth_and_leaves_what_is_known():
    axis = torch.linspace(0, 1, 24)
    ramp = (axis[:, None, None] + 2 * axis[None, :, None] + 0 * axis)[None]
    known = torch.ones(24, 24, 24, dtype=torch.bool)
    known[8:16, 8:16, 8:16] = False
    found = filled(ramp.where(known, torch.tensor(9.0)), known)
    assert torch.equal(found[0][known], ramp[0][known]) and (found - ramp).abs().max() < 0.15
    z = torch.randn(2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    out = healed(z, known, ~known, 5, None)
    assert torch.equal(out[:, known], z[:, known]) and out[:, ~known].std() == pytest.approx(1, rel=0.3)


def test_components_are_whole_and_drawn_by_volume():
    mask = torch.zeros(64, 64, 64, dtype=torch.bool)
    mask[4:20, 4:20, 4:20], mask[40:44, 40:44, 40:44] = True, True
    sizes = [int(component(mask, seed).sum()) for seed in range(40)]
    assert set(sizes) <= {16**3, 4**3} and sizes.count(16**3) > 30
    assert not component(torch.zeros_like(mask), 3).any()


def test_no_contrast_is_no_change_and_a_factor_is_one_about_the_mean():
    image, label = toy_batch(2, labelled=False)
    plain, changed = toy_insertion(edge_vox=0.0), toy_insertion(edge_vox=0.0, contrast=2.0)
    shapes = toy_insertion("procedural", LesionShapes(), contrast_shift=0.5)
    a, la, plan = plain.recorded(image, label)
    b, lb, other = changed.recorded(image, label)
    assert torch.equal(la, lb) and all(row["gain"] is None for row in plan.to_rows())
    assert all(np.allclose(row["gain"], 2.0) and not np.any(row["shift"]) for row in other.to_rows())
    for n, row in enumerate(other.to_rows()):
        mean = torch.tensor(row["tissue"]["mean"])[:, None, None, None]
        deep = ~grown(la[n, 0] == 0, 2, (1, 1, 1))
        for axis in range(3):
            deep.index_fill_(axis, torch.tensor([0, deep.shape[axis] - 1]), False)
        assert torch.allclose((b[n] - mean)[:, deep], 2 * (a[n] - mean)[:, deep], rtol=1e-3, atol=1e-2)
    drawn = np.array([row["shift"] for row in shapes.plan(image, label).to_rows()])
    assert 0 < np.abs(drawn).max() <= 0.5 and len(np.unique(drawn)) == drawn.size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"place": "own", "class_mix": {"ET": 1.0}}, "place: own takes swaps and scale"),
        ({"place": "own", "diameter_mm": 9}, "place: own takes swaps and scale"),
        ({"place": "own", "style": "host", "swaps": [("ED", "ET", 0.5)]}, "style: host goes without swaps"),
        ({"contrast": (1.4, 0.7)}, "contrast: expected low <= high"),
        ({"contrast_shift": -1}, "contrast_shift: expected values of at least 0"),
    ],
)
def test_what_does_not_go_together_is_said(options, words):
    with pytest.raises(ValueError, match=words):
        toy_insertion(lesions=toy_bank(), **options)


def test_lesions_that_the_device_alone_knows_are_not_steered():
    insert = own_insertion()
    with pytest.raises(ValueError, match="class_mix: place: own paints lesions that the device alone knows"):
        insert.class_mix = {"ET": 1.0}
    with pytest.raises(ValueError, match="size_weights: place: own"):
        insert.size_weights = SizeWeights(SizeClasses(), (1.0,) * len(SizeClasses()))
    insert.load_state_dict(insert.state_dict())
