"""The hot path never asks the device for a value: no item, no boolean indexing, no copy to the host."""

import pytest
import torch
from engine import GENERATORS, OPTIONS, toy_batch, toy_insertion
from waits import NoWait


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("options", OPTIONS)
def test_plan_and_apply_do_not_wait(generator, options):
    image, label = toy_batch(2, (36, 34, 32))
    insert = toy_insertion(*GENERATORS[generator](), **OPTIONS[options])
    with NoWait() as mode:
        plan = insert.plan(image, label, groups=["patient-0", "x"])
        insert.apply(image, label, plan)
        insert(image, label, host=torch.ones_like(label), prior=torch.ones_like(label))
    assert "aten::index_copy_" in mode.seen, "the mode saw no insertion at all"
    assert insert.report().done > 0


def test_the_mode_itself_refuses():
    with NoWait(), pytest.raises(AssertionError, match="wait"):
        torch.ones(3)[torch.ones(3) > 0]
    with NoWait(), pytest.raises(AssertionError, match="wait"):
        torch.ones(()).item()
