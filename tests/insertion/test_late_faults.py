"""On an accelerator the verdict over a batch's values comes late; none gets lost, whatever comes meanwhile."""

import pytest
import torch
from engine import toy_batch, toy_insertion

from synthaug import Report
from synthaug.transfers import Readback

NAN = float("nan")


class Slow(Readback):
    """A copy that is on its way until it is let go, as one from a busy accelerator is; who waits gets it."""

    started: list["Slow"]

    def __init__(self, tensor):
        super().__init__(tensor)
        self.there = False
        Slow.started.append(self)

    def arrived(self, wait: bool = False) -> bool:
        self.there |= wait
        return self.there


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(Slow, "started", [], raising=False)
    monkeypatch.setattr("synthaug.insertion.faults.Readback", Slow)


def let_go():
    Slow.started[-1].there = True


def batch(samples=1, at_fault=None, value=NAN):
    image, label = toy_batch(samples, size=(12, 12, 12), labelled=False)
    if at_fault is not None:
        image[at_fault, 0, 5, 5, 5] = value
    return image, label


def test_a_fault_behind_a_verdict_on_its_way_is_raised_later(slow):
    insert = toy_insertion(prob=0.0)
    insert.plan(*batch(2))
    insert.plan(*batch(3, at_fault=2))
    insert.plan(*batch(1))
    let_go()
    insert.plan(*batch(1))  # what was on its way was good; now the three behind it are
    let_go()
    with pytest.raises(ValueError, match=r"NaN or infinity in samples \[2\] \(batch 1; its samples .* left alone\)"):
        insert.plan(*batch(1))
    assert isinstance(insert.report(), Report), "nothing is raised twice"


def test_the_report_raises_what_is_left(slow):
    insert = toy_insertion(prob=0.0)
    for at_fault in (None, 0, None):
        insert.plan(*batch(2, at_fault))
    with pytest.raises(ValueError, match=r"samples \[0\] \(batch 1;"):
        insert.report()
    assert isinstance(insert.report(), Report)


def test_the_first_is_named_and_later_ones_are_counted(slow):
    insert = toy_insertion(prob=0.0)
    unknown = batch(4)
    unknown[1][3, 0, 1, 1, 1] = 3
    for given in (batch(2), batch(1), unknown, batch(2), batch(2, at_fault=1), batch(3, at_fault=0)):
        insert.plan(*given)
    with pytest.raises(ValueError, match=r"samples \[3\].*\(batch 2;.*; later batches at fault: 2\)"):
        insert.report()


def test_faults_on_both_sides_of_a_read_back_are_raised_one_after_the_other(slow):
    insert = toy_insertion(prob=0.0)
    insert(*batch(2, at_fault=0))
    insert(*batch(2, at_fault=1))
    let_go()
    with pytest.raises(ValueError, match=r"samples \[0\] \(batch 0;"):
        insert(*batch(2))
    with pytest.raises(ValueError, match=r"samples \[1\] \(batch 1;"):
        insert.report()
    insert(*batch(2))
    assert insert.report().samples == 6, "those whose call raised another's fault were not looked at"


def test_samples_at_fault_are_refused_meanwhile(slow):
    insert = toy_insertion(diameter_mm=8)
    image, label = toy_batch(2, labelled=False)
    image[0, 0, 9, 9, 9] = NAN
    new_image, new_label = insert(image, label)
    assert torch.equal(new_label[0], label[0]) and not torch.equal(new_label[1], label[1])
    assert torch.equal(new_image[0].nan_to_num(), image[0].nan_to_num())
    with pytest.raises(ValueError, match=r"samples \[0\] \(batch 0;"):
        insert.report()
    assert insert.report().refused == {"invalid voxels in the batch": 1}


def test_on_the_cpu_a_fault_is_raised_at_once_and_once():
    insert = toy_insertion(prob=0.0)
    insert.plan(*batch(2))
    with pytest.raises(ValueError, match=r"NaN or infinity in samples \[1\]$"):
        insert.plan(*batch(2, at_fault=1))
    insert.plan(*batch(1))
    assert isinstance(insert.report(), Report)
