"""A plan is a record: it does not change, it may be asked for twice, it is used once, and it knows its batch."""

import dataclasses
import json
import pickle

import pytest
import torch
from engine import GENERATORS, toy_batch, toy_insertion

from synthaug import InsertionPlan, Outcome
from synthaug.transfers import Readback

MIX = {"NCR": 0.3, "ED": 0.3, "ET": 0.4}


def test_a_plan_cannot_be_changed_and_keeps_nothing_but_its_rows():
    image, label = toy_batch(2)
    insert = toy_insertion()
    plan = insert.plan(image, label)
    rows = plan.to_rows()
    insert.apply(image, label, plan)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.samples = 3
    assert plan.to_rows() == rows and len(pickle.dumps(plan)) < 10_000


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("options", [{"second": 0.5}, {"class_mix": MIX, "second": 0.5}], ids=["plain", "mix"])
def test_to_plan_is_to_ask(generator, options):
    batch = toy_batch(2)
    insert = toy_insertion(*GENERATORS[generator](), **options)
    insert(*batch)
    state = insert.state_dict()
    first, again = insert.plan(*batch), insert.plan(*batch)
    assert first.to_rows() == again.to_rows() and first.mix_voxels == again.mix_voxels
    assert insert.state_dict() == state and insert.report().samples == 2


@pytest.mark.parametrize("options", [{}, {"class_mix": MIX}], ids=["plain", "mix"])
def test_plan_and_apply_do_what_a_call_does(options):
    by_call, by_hand, recorded = (toy_insertion(**options, prob=0.8, second=0.5, scale=(0.4, 0.9)) for _ in range(3))
    for seed in range(4):
        batch = toy_batch(2, seed=seed)
        expected = by_call(*batch)
        for _ in range(2):  # the second question changes nothing
            plan = by_hand.plan(*batch)
        *found, same = recorded.recorded(*batch)
        assert same.to_rows() == plan.to_rows()
        for got in (by_hand.apply(*batch, plan), found):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert by_call.state_dict() == by_hand.state_dict() == recorded.state_dict()


def test_a_plan_is_used_once_and_repeated_without_being_counted():
    batch = toy_batch(2)
    insert = toy_insertion(class_mix=MIX)
    old = insert.plan(*batch)
    first = insert.apply(*batch, old)
    insert(*batch)
    state = insert.state_dict()
    assert (insert.number, insert.report().samples, insert.report().asked) == (4, 4, 4)
    for repetition in (old, InsertionPlan.from_rows(old.to_rows()), pickle.loads(pickle.dumps(old)), old.select(0)):
        if repetition.samples == 2:
            assert all(torch.equal(a, b) for a, b in zip(insert.apply(*batch, repetition), first, strict=True))
        else:
            insert.apply(*(x[:1] for x in batch), repetition)
        assert insert.state_dict() == state
    fresh = toy_insertion()
    fresh.apply(*batch, InsertionPlan.from_rows(old.to_rows()))
    assert (fresh.number, fresh.report().samples) == (0, 0), "rows are a repetition wherever they are applied"


def test_a_sample_that_gets_nothing_is_seen_all_the_same():
    batch = toy_batch(3)
    insert = toy_insertion(prob=0.0)
    plan = insert.plan(*batch)
    assert len(plan) == 0 and insert.number == 0
    insert.apply(*batch, plan)
    assert (insert.number, insert.report().samples, insert.report().asked) == (3, 3, 0)


def test_rows_tell_the_tissue_that_a_lesion_was_written_with():
    image, label = toy_batch(2, labelled=False)
    image[1] = 7.0  # no tissue
    insert = toy_insertion()
    rows = json.loads(json.dumps(insert.plan(image, label).to_rows(), allow_nan=False))
    tissue = image[0, :, :, :, 3:]
    assert rows[0]["tissue"]["mean"] == pytest.approx(tissue.mean((1, 2, 3)).tolist(), rel=0.01)
    assert rows[0]["tissue"]["std"] == pytest.approx(tissue.std((1, 2, 3)).tolist(), rel=0.02)
    assert rows[0]["tissue"]["floor"] == pytest.approx(tissue.amin((1, 2, 3)).tolist())
    assert rows[1]["outcome"] == "no_tissue" and rows[1]["tissue"]["floor"] == [None] * 4
    plan = InsertionPlan.from_rows(rows)
    assert plan.to_rows() == rows
    insert.apply(image, label, plan)


def test_tissue_of_zeros_is_tissue():
    label = torch.zeros(1, 24, 24, 24, dtype=torch.int64)
    image, host = torch.zeros(1, 4, 24, 24, 24), torch.ones(1, 24, 24, 24)
    insert = toy_insertion(scale=0.5)
    plan = insert.plan(image, label, host=host)
    expected = insert.apply(image, label, plan, host=host)
    found = insert.apply(image, label, InsertionPlan.from_rows(plan.to_rows()), host=host)
    assert expected[1].any() and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_rows_of_version_1_are_applied_without_a_comparison():
    image, label = toy_batch(2)
    insert = toy_insertion()
    plan = insert.plan(image, label)
    rows = [{k: v for k, v in row.items() if k != "tissue"} | {"version": 1} for row in plan.to_rows()]
    old = InsertionPlan.from_rows(rows)
    assert [row["version"] for row in old.to_rows()] == [1, 1]
    for got, expected in zip(insert.apply(image, label, old), insert.apply(image, label, plan), strict=True):
        assert torch.equal(got, expected)
    insert.apply(image + 5, label, old)
    with pytest.raises(ValueError, match="row 1: version is 1, but 5 in row 0: not one batch"):
        InsertionPlan.from_rows([plan.to_rows()[0], rows[1]])
    with pytest.raises(ValueError, match="row 0 of an insertion plan lacks tissue"):
        InsertionPlan.from_rows([rows[0] | {"version": 2}])


# ------------------------------------------------------------------------------------------- another batch


def brighter(image, by=50.0):
    other = image.clone()
    other[1, 2] += by
    return other


def test_a_batch_of_other_tissue_is_refused_with_what_differs():
    image, label = toy_batch(2, labelled=False)
    insert = toy_insertion()
    plan = insert.plan(image, label)
    expected = r"other host tissue: sample 1, t1ce: expected mean [\d.]+, got [\d.]+; sample 1, t1ce: expected lowest"
    with pytest.raises(ValueError, match=expected):
        insert.apply(brighter(image), label, plan)
    with pytest.raises(ValueError, match=r"sample 0, flair: expected mean .*; .* and 21 more$"):
        insert.apply(image * 2, label, plan)
    assert insert.report().samples == 0 and insert.number == 0, "what is refused is not counted"
    with pytest.raises(ValueError, match="made for 4 channels, got 1"):
        toy_insertion("procedural", channels=("t1",)).apply(image[:, :1], label, plan)


def test_labels_that_came_in_between_are_other_tissue():
    image, label = toy_batch(1, labelled=False)
    image[:, :, :20] += 100
    insert = toy_insertion()
    plan = insert.plan(image, label)
    label[:, :, :20] = 2
    with pytest.raises(ValueError, match="other host tissue"):
        insert.apply(image, label, plan)


class Late(Readback):
    """A verdict that is on its way until somebody waits for it, as from a busy accelerator."""

    def arrived(self, wait=False):
        return wait


def test_on_an_accelerator_the_sample_is_left_alone_and_the_error_comes_late(monkeypatch):
    monkeypatch.setattr("synthaug.insertion.faults.Readback", Late)
    image, label = toy_batch(2, labelled=False)
    insert = toy_insertion()
    plan, other = insert.plan(image, label), brighter(image)
    expected = insert.apply(image, label, plan)
    insert.number = 0
    new_image, new_label = insert.apply(other, label, plan)
    assert torch.equal(new_image[1], other[1]) and torch.equal(new_label[1], label[1])
    assert torch.equal(new_image[0], expected[0][0]) and torch.equal(new_label[0], expected[1][0])
    with pytest.raises(ValueError, match=r"sample 1, t1ce: .* \(batch 1; its samples at fault were left alone\)$"):
        insert.report()
    report = insert.report()
    assert report.refused == {Outcome.OTHER_BATCH.reason: 1} and report.done == 3
    assert sum(report.voxels.values()) == int((expected[1] != 0).sum() + (new_label != 0).sum())
