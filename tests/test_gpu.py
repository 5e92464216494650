"""What only a device shows: no waits, read-back behind queued work, late errors, bf16, streams, agreement with the CPU.

Each test runs on the CPU too, where it must hold as well, so that it is tried before a GPU is at hand.
"""

from collections import ChainMap
from contextlib import contextmanager, nullcontext

import pytest
import torch
from engine import GENERATORS, OPTIONS, crops, toy_bank, toy_batch, toy_diffusion, toy_gan, toy_insertion

from synthaug import InsertionPlan, LesionShapes
from synthaug.transfers import Readback

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")],
)
on_each_device = pytest.mark.parametrize("device", ["cpu", GPU])
FOUND_ON_DEVICE = {"center_vox", "outcome", "reason", "voxels", "diameter_mm", "tissue"}


def batch_on(device, samples=2, **options):
    return tuple(x.to(device) for x in toy_batch(samples, **options))


@contextmanager
def no_waits(device):
    """PyTorch raises where the host would wait for the device."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def keep_busy(device):
    """Half a second of work for a GPU."""
    if device == "cuda":
        torch.cuda._sleep(10**9)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


class SecondAsking(Readback):
    """On the CPU: a copy that is not there when it is first asked for."""

    asked = False

    def arrived(self, wait=False):
        there, self.asked = self.asked or wait, True
        return there


@pytest.fixture
def late(device, monkeypatch):
    """Read-backs that take their time, on the CPU as well."""
    if device == "cpu":
        monkeypatch.setattr("synthaug.insertion.faults.Readback", SecondAsking)


# ------------------------------------------------------------------------------------------------- waits


@on_each_device
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("options", [("second", "swaps", "bent", "halo"), ("mix", "hard edge")], ids=" ".join)
def test_plan_and_apply_do_not_wait(device, generator, options):
    image, label = batch_on(device, 1)
    host = torch.ones_like(label)
    insert = toy_insertion(*GENERATORS[generator](), **dict(ChainMap(*(OPTIONS[name] for name in options))))
    insert(image, label)  # weights go to the device, libraries choose their algorithms
    insert.number = 0
    with no_waits(device):
        plan = insert.plan(image, label, groups=["x"], host_stats=(100.0, 15.0))
        insert.apply(image, label, plan)
        insert(image, label, host=lambda sample: host[sample], prior=host)
    assert insert.report().done > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_the_mode_refuses_to_wait():
    with no_waits("cuda"), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones((), device="cuda").item()


@on_each_device
def test_a_value_is_read_behind_the_work_that_is_queued(device):
    value = torch.arange(3, device=device)
    synchronize(device)
    keep_busy(device)
    reading = Readback(value)
    value.zero_()
    assert reading.arrived() == (device == "cpu")
    assert reading.arrived(wait=True)
    assert reading.numpy().tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------------- late errors


def faulty(device):
    image, label = batch_on(device, labelled=False)
    image[1, 0, 5, 5, 5] = float("nan")
    return image, label


@on_each_device
@pytest.mark.usefixtures("late")
def test_nan_on_the_device_is_raised_by_a_later_call(device):
    insert, good, bad = toy_insertion(), batch_on(device, labelled=False), faulty(device)
    insert(*good)  # what is slow the first time
    synchronize(device)
    keep_busy(device)
    insert.plan(*good)
    _, new_label = insert(*bad)
    assert torch.equal(new_label[1], bad[1][1]), "the sample at fault is left alone"
    with pytest.raises(ValueError, match=r"NaN or infinity in samples \[1\] \(batch 2;"):
        for _ in range(4):
            synchronize(device)
            insert.plan(*good)
    assert insert.report().refused == {"invalid voxels in the batch": 1}, "it is raised once"


@on_each_device
@pytest.mark.usefixtures("late")
def test_nan_on_the_device_is_raised_by_the_report(device):
    insert, good, bad = toy_insertion(prob=0.0), batch_on(device), faulty(device)
    insert.plan(*good)  # what is slow the first time
    synchronize(device)
    keep_busy(device)
    insert(*bad)
    with pytest.raises(ValueError, match=r"NaN or infinity in samples \[1\] \(batch 1;"):
        insert.report()
    insert(*good)
    assert insert.report().samples == 4


# ------------------------------------------------------------------------------------------------- precision, streams


@on_each_device
def test_batches_in_bf16(device):
    image, label = batch_on(device, dtype=torch.bfloat16)
    insert = toy_insertion()
    new_image, new_label = insert(image, label)
    changed = (new_label != label).expand_as(image)
    assert new_image.dtype == torch.bfloat16 and new_image.isfinite().all()
    assert torch.equal(new_image[~changed], image[~changed]) and not torch.equal(new_image, image)
    assert insert.report().done == 2


@on_each_device
@pytest.mark.parametrize("toy", [toy_gan, toy_diffusion])
def test_painting_in_bf16_is_close_to_fp32(device, toy):
    context, mask = (x.to(device) for x in crops())
    exact = toy(precision="fp32").generate(context, mask, [1, 2])
    rounded = toy(precision="bf16").generate(context, mask, [1, 2])
    assert rounded.dtype == torch.float32
    difference = (exact - rounded).abs()
    assert 0 < difference.mean() < 0.02 and difference.max() < 0.5


@on_each_device
@pytest.mark.parametrize("generator", GENERATORS)
def test_a_side_stream_gives_what_the_default_one_gives(device, generator):
    batch = batch_on(device)
    expected = toy_insertion(*GENERATORS[generator]())(*batch)
    insert = toy_insertion(*GENERATORS[generator]())
    side = torch.cuda.Stream() if device == "cuda" else None
    if side is not None:
        side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side) if side is not None else nullcontext():
        keep_busy(device)
        found = insert(*batch)
    if side is not None:
        torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-2)
    assert insert.report().done == 2


# ------------------------------------------------------------------------------------------------- plans


@on_each_device
@pytest.mark.parametrize("generator", GENERATORS)
def test_what_the_host_decides_does_not_depend_on_the_device(device, generator):
    plans = []
    for where in ("cpu", device):
        insert = toy_insertion(*GENERATORS[generator](), second=0.5)
        plans.append(insert.plan(*batch_on(where, 4, labelled=False)).to_rows())
    host_part = [[{k: v for k, v in row.items() if k not in FOUND_ON_DEVICE} for row in rows] for rows in plans]
    assert host_part[0] == host_part[1]
    outcomes = [sorted(row["outcome"] for row in rows) for rows in plans]
    assert outcomes[0] == outcomes[1] and "done" in outcomes[0]
    for here, there in zip(*plans, strict=True):
        for name, values in here["tissue"].items():
            assert there["tissue"][name] == pytest.approx(values, rel=1e-4), name  # sums are added in another order


@on_each_device
@pytest.mark.parametrize("generator", GENERATORS)
def test_rows_repeat_on_the_device_bit_for_bit(device, generator):
    batch = batch_on(device)
    insert = toy_insertion(*GENERATORS[generator](), second=1.0)
    plan = insert.plan(*batch)
    expected = insert.apply(*batch, plan)
    found = toy_insertion(*GENERATORS[generator]()).apply(*batch, InsertionPlan.from_rows(plan.to_rows()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(found[1], batch[1])


@on_each_device
def test_rows_of_the_cpu_are_repeated_on_the_device(device):
    batch = batch_on("cpu")
    insert = toy_insertion(scale=0.7)
    plan = insert.plan(*batch)
    image, label = insert.apply(*batch, plan)
    rows = InsertionPlan.from_rows(plan.to_rows())
    new_image, new_label = (x.cpu() for x in toy_insertion().apply(*batch_on(device), rows))
    lesion = label != batch[1]
    alike = new_label == label
    assert (~alike).sum() <= 0.01 * lesion.sum()
    alike = alike.expand_as(image)
    torch.testing.assert_close(new_image[alike], image[alike], rtol=1e-3, atol=0.1)


ONE_BY_ONE = {
    "paste": lambda: ("paste", toy_bank()),
    "procedural": lambda: ("procedural", LesionShapes(diameter_mm=(8, 14))),
    "gan": lambda: (toy_gan(batched=False), LesionShapes(diameter_mm=(8, 14))),
    "diffusion": lambda: (toy_diffusion(batched=False), LesionShapes(diameter_mm=(8, 14))),
}


@on_each_device
@pytest.mark.parametrize("generator", ONE_BY_ONE)
def test_a_batch_gives_what_its_samples_give(device, generator):
    image, label = batch_on(device, 3)
    insert = toy_insertion(*ONE_BY_ONE[generator]())
    plan = insert.plan(image, label)
    new_image, new_label = insert.apply(image, label, plan)
    for b in range(3):
        alone = toy_insertion(*ONE_BY_ONE[generator]())
        one_image, one_label = alone.apply(image[b : b + 1], label[b : b + 1], plan.select(b))
        assert torch.equal(one_image[0], new_image[b]) and torch.equal(one_label[0], new_label[b])
