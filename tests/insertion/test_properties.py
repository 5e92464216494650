"""What holds for every generator and option set: exact no-op, batch invariance, replay, honest labels and counts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from engine import GENERATORS, OPTIONS, done_rows, toy_batch, toy_insertion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from synthaug import BRATS18, InsertionPlan
from synthaug.insertion.blending import soft_edge

SIZE = (36, 34, 32)
VALUES = list(BRATS18.values.values())


@pytest.fixture(params=GENERATORS)
def parts(request):
    return GENERATORS[request.param]()


@pytest.fixture(params=OPTIONS)
def options(request):
    return OPTIONS[request.param]


def support_of(label, changed, options):
    """Where the image may change: where the label did, and within the halo or fringe around it."""
    width = max(options.get(name, 0.0) for name in ("halo_mm", "fringe_mm"))
    if not width:
        return changed
    return torch.from_numpy(ndimage.distance_transform_edt(~changed.numpy()) <= width)


def test_changes_lie_in_the_support_and_labels_agree(parts, options):
    image, label = toy_batch(2, SIZE)
    insert = toy_insertion(*parts, **options)
    plan = insert.plan(image, label)
    new_image, new_label = insert.apply(image, label, plan)
    rows = done_rows(plan)
    assert rows, plan.to_rows()
    for b in range(2):
        changed = (new_label != label)[b, 0]
        assert int(changed.sum()) == sum(sum(r["voxels"].values()) for r in rows if r["sample"] == b)
        image_changed = (new_image != image)[b].any(0)
        assert not (image_changed & ~support_of(label, changed, options)).any()
        assert (image_changed & changed).sum() > 0.95 * changed.sum()
        assert not (label[b, 0][changed] != 0).any(), "an existing label was overwritten"
        written = {n: int(((new_label[b, 0] == v) & changed).sum()) for n, v in BRATS18.values.items()}
        asked = {n: sum(r["voxels"][n] for r in rows if r["sample"] == b) for n in BRATS18.names}
        assert written == asked
    assert set(new_label.unique().tolist()) <= {0, *VALUES}


def test_a_batch_equals_its_samples_one_by_one(parts, options):
    image, label = toy_batch(2, SIZE)
    whole = toy_insertion(*parts, **options)
    plan = whole.plan(image, label)
    together = whole.apply(image, label, plan)
    single = toy_insertion(*parts, **options)
    for b in range(2):
        alone = single(image[b : b + 1], label[b : b + 1])
        replayed = whole.apply(image[b : b + 1], label[b : b + 1], plan.select(b))
        for got, replay, expected in zip(alone, replayed, together, strict=True):
            assert torch.equal(got[0], expected[b])
            assert torch.equal(replay[0], expected[b])


def test_a_plan_replays_bit_for_bit(parts, options):
    image, label = toy_batch(2, SIZE)
    insert = toy_insertion(*parts, **options)
    plan = insert.plan(image, label)
    first = insert.apply(image, label, plan)
    rows = json.loads(json.dumps(plan.to_rows()))
    other = toy_insertion(*parts, **options, **({} if "seed" in options else {"seed": 99}))
    for replay in (insert.apply(image, label, plan), other.apply(image, label, InsertionPlan.from_rows(rows))):
        assert torch.equal(first[0], replay[0]) and torch.equal(first[1], replay[1])
    assert InsertionPlan.from_rows(rows).to_rows() == rows


def test_inputs_and_global_random_state_are_left_alone(parts, options):
    image, label = toy_batch(2, SIZE)
    kept = image.clone(), label.clone()
    torch.manual_seed(5)
    np.random.seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    toy_insertion(*parts, **options)(image, label)
    assert torch.equal(image, kept[0]) and torch.equal(label, kept[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_every_asked_insertion_is_counted_once(parts, options):
    insert = toy_insertion(*parts, **{**options, "prob": 0.7, "second": 0.5})
    asked, outcomes, voxels = 0, [], dict.fromkeys(BRATS18.names, 0)
    for step in range(4):
        image, label = toy_batch(2, SIZE, seed=step)
        plan = insert.plan(image, label)
        insert.apply(image, label, plan)
        if step == 0:  # again, which is no other insertion
            insert.apply(image, label, plan)
        asked += len(plan)
        outcomes += [row["reason"] for row in plan.to_rows()]
        for row in plan.to_rows():
            for name, n in row["voxels"].items():
                voxels[name] += n
    report = insert.report()
    assert report.samples == 8
    assert report.asked == asked == len(outcomes)
    assert report.done + sum(report.refused.values()) == asked
    assert report.done == outcomes.count("done")
    assert report.refused == {r: outcomes.count(r) for r in set(outcomes) - {"done"}}
    assert report.voxels == voxels


def test_prob_zero_returns_the_batch(parts):
    image, label = toy_batch(2, SIZE)
    insert = toy_insertion(*parts, prob=0.0)
    new_image, new_label = insert(image, label)
    assert torch.equal(new_image, image) and torch.equal(new_label, label)
    assert insert.report().asked == 0 and insert.report().samples == 2


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(*[st.integers(17, 45)] * 3),
    samples=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    label_dtype=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    spacing=st.tuples(*[st.floats(0.6, 3.0)] * 3),
    prob=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_any_size_dtype_and_spacing(parts, size, samples, dtype, label_dtype, spacing, prob, seed):
    image, label = toy_batch(samples, size, seed=seed, dtype=dtype)
    label = label.to(label_dtype)
    insert = toy_insertion(*parts, prob=prob, second=0.5, scale=(0.3, 1.0), seed=seed)
    plan = insert.plan(image, label, spacing)
    new_image, new_label = insert.apply(image, label, plan)
    assert new_image.dtype == dtype and new_label.dtype == label_dtype
    assert new_image.shape == image.shape and new_label.shape == label.shape
    changed = new_label != label
    assert not ((new_image != image).any(1, keepdim=True) & ~changed).any()
    assert int(changed.sum()) == sum(sum(row["voxels"].values()) for row in plan.to_rows())
    chosen = {row["sample"] for row in done_rows(plan)}
    for b in set(range(samples)) - chosen:
        assert torch.equal(new_image[b], image[b]) and torch.equal(new_label[b], label[b])
    assert new_image.float().isfinite().all()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gain=st.sampled_from([1.0, 1.0 + 1e-6, 1.0001, 1.01, 0.5, 3.0]),
    shift=st.sampled_from([0.0, 1e-4, 0.5, -40.0]),
    channel=st.integers(0, 3),
    sample=st.integers(0, 1),
    known=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_plan_equals_its_rows_whatever_became_of_the_batch(parts, gain, shift, channel, sample, known, seed):
    image, label = toy_batch(2, size=(30, 28, 26), seed=seed, labelled=False)
    insert = toy_insertion(*parts, seed=seed, second=0.5, scale=(0.4, 0.8))
    plan = insert.plan(image, label, host_stats=(100.0, 15.0) if known else None)
    rows = json.loads(json.dumps(plan.to_rows()))
    before = insert.apply(image, label, plan)
    changed = image.clone()
    changed[sample, channel] = changed[sample, channel] * gain + shift
    other = toy_insertion(*parts, seed=99)
    found = [
        applied(insert, changed, label, plan),
        applied(insert, changed, label, InsertionPlan.from_rows(rows)),
        applied(other, changed, label, InsertionPlan.from_rows(rows)),
    ]
    assert InsertionPlan.from_rows(rows).to_rows() == rows
    if torch.equal(changed, image):
        assert torch.equal(found[0][0], before[0]) and torch.equal(found[0][1], before[1])
    done = any(row["sample"] == sample for row in done_rows(plan))
    if done and not known and (gain >= 1.01 or gain == 0.5 or abs(shift) > 0.4):
        assert isinstance(found[0], str) and f"sample {sample}" in found[0]
    if isinstance(found[0], str):
        assert found[0] == found[1] == found[2]
    else:
        assert all(torch.equal(a, b) for more in found[1:] for a, b in zip(found[0], more, strict=True))


def applied(insert, image, label, plan):
    """What comes of a plan, or the words with which it is refused."""
    try:
        return insert.apply(image, label, plan)
    except ValueError as error:
        assert "made for a batch of other host tissue" in str(error)
        return str(error)


def test_non_contiguous_channels_last_and_labels_without_channel(parts):
    image, label = toy_batch(2, SIZE)
    expected = toy_insertion(*parts)(image, label)
    last = image.contiguous(memory_format=torch.channels_last_3d)
    strided = torch.stack([image, image], -1)[..., 0]
    assert not strided.is_contiguous()
    backwards = label[:, 0].transpose(1, 3).contiguous().transpose(1, 3)
    for variant, labels in ((last, label[:, 0]), (strided, backwards)):
        got = toy_insertion(*parts)(variant, labels)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1][:, 0])


def test_metatensor_is_kept(parts):
    monai_data = pytest.importorskip("monai.data", reason="needs the extra `train` (monai)")
    image, label = toy_batch(1, SIZE)
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    meta = monai_data.MetaTensor(image, affine=affine, meta={"patient": "p1"})
    expected = toy_insertion(*parts)(image, label)
    got_image, got_label = toy_insertion(*parts)(meta, monai_data.MetaTensor(label, affine=affine))
    assert isinstance(got_image, monai_data.MetaTensor) and isinstance(got_label, monai_data.MetaTensor)
    assert torch.equal(got_image.affine, affine) and got_image.meta["patient"] == "p1"
    assert torch.equal(got_image.as_tensor(), expected[0]) and torch.equal(got_label.as_tensor(), expected[1])


def test_clearance_is_kept_by_shape(parts):
    image, label = toy_batch(4, size=(40, 40, 40))
    label[:, :, 12:22, 12:22, 12:22] = 4
    insert = toy_insertion(*parts, clearance_mm=4.0, scale=(0.5, 0.8), second=1.0)
    spacing = (1.0, 2.0, 1.0)
    plan = insert.plan(image, label, spacing)
    _, new_label = insert.apply(image, label, plan)
    assert len(done_rows(plan)) >= 4
    for b in range(4):
        distance = ndimage.distance_transform_edt(label[b, 0].numpy() == 0, sampling=spacing)
        changed = (new_label != label)[b, 0].numpy()
        assert changed.any() and distance[changed].min() > 4.0


def test_lesions_stay_in_the_host_mask(parts):
    image, label = toy_batch(2, labelled=False)
    host = torch.zeros(label.shape, dtype=torch.bool)
    host[:, :, 20:44, 18:40, 14:36] = True
    insert = toy_insertion(*parts, scale=0.8, tissue_share=0.7)
    plan = insert.plan(image, label, host=host)
    with pytest.raises(ValueError, match="host mask"):
        insert.apply(image, label, plan)
    _, new_label = insert.apply(image, label, plan, host=host)
    assert len(done_rows(plan)) == 2
    assert not ((new_label != 0) & ~host).any()


def test_replay_in_a_new_process(tmp_path):
    image, label = toy_batch(2, SIZE)
    insert = toy_insertion(second=1.0, scale=(0.5, 0.9), elastic_mm=1.0)
    plan = insert.plan(image, label)
    insert.lesions.save(tmp_path / "bank.safetensors")
    (tmp_path / "rows.json").write_text(json.dumps(plan.to_rows()))
    script = (
        "import json, sys, torch; sys.path.insert(0, sys.argv[2])\n"
        "from engine import toy_batch, toy_insertion\n"
        "from synthaug import InsertionPlan\n"
        "folder = sys.argv[1]\n"
        "plan = InsertionPlan.from_rows(json.load(open(folder + '/rows.json')))\n"
        "insert = toy_insertion(lesions=folder + '/bank.safetensors')\n"
        "torch.save(insert.apply(*toy_batch(2, (36, 34, 32)), plan), folder + '/out.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parents[1])], check=True)
    replayed = torch.load(tmp_path / "out.pt")
    expected = insert.apply(image, label, plan)
    assert torch.equal(replayed[0], expected[0]) and torch.equal(replayed[1], expected[1])


def test_soft_edge_rises_inwards_and_is_zero_outside():
    support = torch.zeros(15, 15, 15, dtype=torch.bool)
    support[3:12, 3:12, 3:12] = True
    weight = soft_edge(support, 1.0)
    assert (weight[~support] == 0).all()
    assert weight[3, 7, 7] == pytest.approx(0.5)
    assert (weight[5:10, 5:10, 5:10] == 1).all()
    assert torch.equal(soft_edge(support, 0.0), support.float())
