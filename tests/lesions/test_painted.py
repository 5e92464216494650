"""Painted lesions: functions of their names, a pool that is one of the sample's number, and a budget that is kept."""

import copy
import gc
import json
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from engine import CHANNELS, done_rows, toy_bank, toy_batch, toy_gan, toy_insertion
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthaug import BRATS18, InsertionPlan, LesionBank, LesionShapes, PaintedLesions
from synthaug.adapters.workers import drawn
from synthaug.cli.app import app
from synthaug.host import HostSample
from synthaug.lesions.painted.budget import Budget, SmallBudgetWarning
from synthaug.lesions.painted.painter import LesionPainter
from synthaug.lesions.painted.recipes import Recipe
from synthaug.lesions.painted.threads import PaintingThreads, painted_by

SIZES = {"scale": (0.6, 0.9)}


def pool(count=5, generator="procedural", **options) -> PaintedLesions:
    return PaintedLesions(toy_bank(), generator, count, **(SIZES | options))


def content(painting) -> tuple:
    row = painting.row
    return row["name"], row["group"], row["mask"].numpy().tobytes(), row["intensities"].numpy().tobytes()


# ------------------------------------------------------------------------------------------------- the bank


@pytest.mark.parametrize("generator", ["procedural", toy_gan()])
def test_a_painting_is_a_function_of_its_name(generator):
    bank, swaps = toy_bank(), [("SNFH", "ET", 0.7), ("ET", "NETC", 0.7)]
    painter = LesionPainter(bank, generator, swaps=swaps, seed=3, **SIZES)
    first = [painter.paint(n) for n in range(6)]
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    together = [timed.painting for timed in painted_by(painter, range(6))]
    torch.set_num_threads(threads)
    other = LesionPainter(bank, generator, seed=99)
    assert [content(p) for p in first] == [content(p) for p in together]
    assert [content(p) for p in first[::-1]] == [content(other.repaint(p.row["name"])) for p in first[::-1]]
    assert len({p.row["name"] for p in first}) == 6 and any(" ED:ET+ET:NCR " in p.row["name"] for p in first)
    for painting in first:
        assert int((painting.mask > 0).sum()) == sum(painting.lesion.voxels) >= 27
        if "ED:ET" in painting.row["name"]:
            assert painting.lesion.voxels[BRATS18.index("ED")] == 0


def test_a_painted_bank_is_a_bank(tmp_path):
    bank = toy_bank()
    painted = bank.painted("procedural", 8, scale=0.7, seed=1)
    painted.save(tmp_path / "painted.safetensors")
    loaded = LesionBank.load(tmp_path / "painted.safetensors")
    assert loaded.checksum == painted.checksum and loaded.painting["generator"]["name"] == "procedural"
    assert loaded.painting["source"] == {"lesions": 4, "groups": 4, "crc32": bank.checksum}
    assert loaded.groups == bank.groups and loaded.of_groups(["patient-1"]).painting == loaded.painting
    assert bank.painting is None and bank.painted("procedural", 8, scale=0.7, seed=2).checksum != painted.checksum
    image, label = toy_batch()
    insert = toy_insertion(lesions=loaded, flip=0.0, rotate90=False)
    plan = insert.plan(image, label, groups=["patient-0", None])
    new_image, new_label = insert.apply(image, label, plan)
    (row, _) = done_rows(plan)
    assert row["scale"] == 1 and row["donor_group"] != "patient-0" and "x0.700" in row["lesion"]
    assert int((new_label != label).sum()) == sum(sum(r["voxels"].values()) for r in done_rows(plan))
    # deep inside, what was painted is what is there, in the host's units
    mask = loaded.mask(row["lesion"], image.device)
    z = loaded.intensities(row["lesion"], range(4), image.device)
    host = HostSample.of(image[0], label[0, 0])
    at = [c - n // 2 for c, n in zip(row["center_vox"], mask.shape, strict=True)]
    box = (0, slice(None), *(slice(a, a + n) for a, n in zip(at, mask.shape, strict=True)))
    inside = -torch.nn.functional.max_pool3d(-(mask > 0).float()[None], 5, 1, 2)[0] > 0
    expected = z * host.std[:, None, None, None] + host.mean[:, None, None, None]
    assert inside.any() and torch.allclose(new_image[box][:, inside], expected[:, inside].clamp(min=host.floor.min()))


def test_donors_take_turns_where_sizes_allow():
    names = [lesion.name for lesion in toy_bank().painted("procedural", 12, scale=(0.7, 0.9))]
    assert Counter(Recipe.parse(name).lesion for name in names) == dict.fromkeys([f"case-{i}/0" for i in range(4)], 3)
    mixed = LesionBank.from_arrays(
        [_ball("small", 5), _ball("large", 14)], BRATS18, CHANNELS
    )  # at 0.5, the small one has too few voxels
    painted = mixed.painted("procedural", 6, scale=(0.5, 0.5))
    assert {lesion.group for lesion in painted} == {"large"}


def _ball(name: str, diameter: int):
    axis = np.arange(32) - 16
    label = np.where(sum(a**2 for a in np.meshgrid(axis, axis, axis)) <= (diameter / 2) ** 2, 4, 0).astype(np.int16)
    image = np.random.default_rng(0).normal(100, 10, (4, 32, 32, 32)).astype(np.float32)
    return name, name, image, label, (1.0, 1.0, 1.0)


def test_diameters_and_voxel_sizes_are_those_asked_for():
    painted = toy_bank().painted("procedural", 6, diameter_mm=(7, 9), spacing_mm=(1, 1, 0.5))
    for lesion in painted:
        assert lesion.spacing_mm == (1, 1, 0.5) and 6 < (6 / np.pi * sum(lesion.voxels) / 2) ** (1 / 3) < 10


names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"), min_size=1)


@given(names, st.dictionaries(names, names, max_size=3), st.integers(1, 5000), st.integers(0, 2**63 - 1))
def test_names_say_the_whole_recipe(lesion, swaps, scale, seed):
    recipe = Recipe(lesion, scale / 1000, (1.0, 0.9375, 2.5), swaps, "brats-gan-01234567", seed)
    assert Recipe.parse(recipe.name) == recipe


def test_what_cannot_be_painted_is_refused_with_the_reason():
    bank = toy_bank()
    with pytest.raises(ValueError, match="PasteGenerator repeats its donors"):
        bank.painted("paste", 2)
    with pytest.raises(ValueError, match="knows the classes NCR, ED; the insertion has NCR, ED, ET"):
        bank.painted(toy_gan(classes=("NCR", "ED")), 2)
    with pytest.raises(ValueError, match="knows the channels flair; the insertion has flair, t1, t1ce, t2"):
        bank.painted(toy_gan(channels=("flair",)), 2)
    with pytest.raises(ValueError, match="all 4 donors have fewer than 27 voxels"):
        bank.painted("procedural", 2, scale=0.05)
    with pytest.raises(ValueError, match="give scale or diameter_mm"):
        bank.painted("procedural", 2, scale=0.5, diameter_mm=9)
    with pytest.raises(ValueError, match="spacing_mm: expected 3 values"):
        bank.painted("procedural", 2, spacing_mm=(1, 1))
    with pytest.raises(ValueError, match="count: expected values of at least 1"):
        bank.painted("procedural", 0)
    with pytest.raises(ValueError, match="refresh or budget, not both"):
        pool(refresh=0.1, budget=0.1)
    with pytest.raises(ValueError, match=r"above 0 and below 1, got 1\.5"):
        pool(budget=1.5)
    with pytest.raises(ValueError, match="got one painted by nobody"):
        pool(start=bank)
    with pytest.raises(ValueError, match=r"by procedural-\w+, got one painted by GANGenerator-"):
        pool(start=bank.painted(toy_gan(), 2, **SIZES))
    with pytest.raises(ValueError, match="expected a painted lesion"):
        pool().lesion("case-0/0")
    name = next(iter(pool(2).to_bank())).name
    with pytest.raises(ValueError, match="was painted by procedural-"):
        pool(1, toy_gan()).lesion(name)
    with pytest.raises(ValueError, match="masks only"):
        toy_insertion(lesions=LesionShapes())


# --------------------------------------------------------------------------------------------------- replay

REPLAY = """
import json, sys, torch
sys.path.insert(0, {tests!r})
from engine import toy_bank, toy_batch, toy_gan, toy_insertion
from synthaug import InsertionPlan, PaintedLesions
image, label = toy_batch()
for source, out in ((PaintedLesions(toy_bank(), toy_gan(), 3, seed=77), {pool!r}), ({bank!r}, {banks!r})):
    done = toy_insertion(lesions=source).apply(image, label, InsertionPlan.from_rows(json.loads({rows!r})))
    torch.save(done, out)
"""


def test_rows_repeat_bit_for_bit_in_a_new_process(tmp_path):
    source = pool(generator=toy_gan(), refresh=0.5, swaps=[("ED", "ET", 0.5)])
    insert, (image, label) = toy_insertion(lesions=source, seed=5), toy_batch()
    for _ in range(4):
        plan = insert.plan(image, label)
        expected = insert.apply(image, label, plan)
    source.to_bank().save(tmp_path / "painted.safetensors")
    insert(image, label)
    assert len(done_rows(plan)) == 2 and source.repainted == 4
    files = {name: str(tmp_path / f"{name}.pt") for name in ("pool", "banks")}
    script = REPLAY.format(
        tests=str(Path(__file__).parents[1]),
        bank=str(tmp_path / "painted.safetensors"),
        rows=json.dumps(plan.to_rows()),
        **files,
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    for file in files.values():
        again = torch.load(file)
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_a_lesion_that_left_the_pool_is_painted_again():
    source = pool(refresh=1.0)
    source.follow(0)
    first = source.to_bank()
    source.follow(1000)
    source.pool._late.clear()
    for lesion in first:
        assert source.lesion(lesion.name) == lesion
        assert torch.equal(source.mask(lesion.name, torch.device("cpu")), first.mask(lesion.name, torch.device("cpu")))
        values = [s.intensities(lesion.name, [1, 3], torch.device("cpu")) for s in (source, first)]
        assert torch.equal(*values)


def test_a_start_is_where_the_pool_begins():
    start = pool(3, seed=9).to_bank()
    source = pool(5, start=start, refresh=1.0)
    source.follow(0)
    names = [lesion.name for lesion in source.to_bank()]
    assert names[:3] == [lesion.name for lesion in start] and names[3:] == [x.name for x in pool(5).to_bank()][3:]
    source.follow(3)
    assert not {x.name for x in start} & {x.name for x in source.to_bank()}
    assert torch.equal(source.mask(names[0], torch.device("cpu")), start.mask(names[0], torch.device("cpu")))


# ------------------------------------------------------------------------------------------------ refreshing


def trained(source, batches=6, seed=4):
    insert, (image, label) = toy_insertion(lesions=source, seed=seed, second=0.5), toy_batch()
    rows = []
    for _ in range(batches):
        plan = insert.plan(image, label)
        result = insert.apply(image, label, plan)
        rows += plan.to_rows()
    return rows, result[0]


def test_the_pool_follows_from_the_samples_number_whatever_the_threads_timing(monkeypatch):
    rows, image = trained(pool(refresh=0.7))
    assert len({row["lesion"] for row in rows}) > 5
    paint, rng = LesionPainter.paint, np.random.default_rng(0)

    def slow(self, number):
        time.sleep(0.1 * rng.random())
        return paint(self, number)

    monkeypatch.setattr(LesionPainter, "paint", slow)
    source = pool(refresh=0.7)
    again, image_again = trained(source)
    assert again == rows and torch.equal(image, image_again) and source.pool.waited > 0
    # a batch is what its samples are one by one, and a number that is asked for again gives the same
    insert, (images, labels) = toy_insertion(lesions=source, seed=4, second=0.5), toy_batch()
    one_by_one = [
        {**row, "sample": n % 2}
        for n in range(12)
        for row in insert.recorded(images[n % 2 : n % 2 + 1], labels[n % 2 : n % 2 + 1])[2].to_rows()
    ]
    assert [row["lesion"] for row in one_by_one] == [row["lesion"] for row in rows]
    insert.number = 6
    assert [r["lesion"] for r in insert.plan(images, labels).to_rows()] == [
        r["lesion"] for r in rows if r["number"] in (6, 7)
    ]


def test_the_state_continues_elsewhere():
    image, label = toy_batch()
    first = toy_insertion(lesions=pool(refresh=0.5))
    for _ in range(5):
        first(image, label)
    state = json.loads(json.dumps(first.state_dict()))
    second = toy_insertion(lesions=pool(refresh=0.5))
    second.load_state_dict(state)
    assert [x.name for x in second.lesions.to_bank()] == [x.name for x in first.lesions.to_bank()]
    assert torch.equal(first(image, label)[0], second(image, label)[0])
    copies = [copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    expected = first(image, label)[0]
    assert all(torch.equal(other(image, label)[0], expected) for other in copies)


def test_a_failed_painting_raises_in_the_training(monkeypatch):
    paint = LesionPainter.paint

    def failing(self, number):
        if number > 5:
            raise ArithmeticError("no more paint")
        return paint(self, number)

    monkeypatch.setattr(LesionPainter, "paint", failing)
    source = pool(refresh=0.5)
    source.follow(0)
    source.follow(2)
    with pytest.raises(ArithmeticError, match="no more paint"):
        source.follow(4)


def test_threads_end_with_the_pool_and_leave_torchs_number_alone():
    before, threads = set(threading.enumerate()), torch.get_num_threads()
    torch.set_num_threads(2)
    source = pool(refresh=0.5)
    source.follow(4)
    (first,) = set(threading.enumerate()) - before
    fresh = []
    reader = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    reader.start()
    reader.join()
    assert torch.get_num_threads() == 2 and fresh == [2]
    torch.set_num_threads(threads)
    source.close()
    first.join(20)
    assert not first.is_alive()
    source.follow(20)
    (second,) = set(threading.enumerate()) - before
    del source
    gc.collect()
    second.join(20)
    assert not second.is_alive()


def test_a_changing_pool_is_refused_where_training_cannot_be_followed(monkeypatch):
    changing, still = (toy_insertion(lesions=pool(refresh=r)) for r in (0.5, None))
    image, label = toy_batch()
    with pytest.raises(RuntimeError, match="draws each sample's number at random"), drawn(changing, 12345):
        pass
    with drawn(still, 12345):
        still(image, label)
    monkeypatch.setattr("synthaug.lesions.painted.source.in_worker", lambda: True)
    still(image, label)
    with pytest.raises(RuntimeError, match="loader worker"):
        changing(image, label)


# ---------------------------------------------------------------------------------------------------- budget


def spend(budget, clock, steps, own, painting, step=1.0, pause=0.0) -> float:
    """Share of the time, pauses apart, that insertion and painting took over the steps."""
    paid = 0.0
    for n in range(steps):
        budget.step()
        budget.spend(own)
        paid += own
        while (price := budget.buy()) is not None:
            seconds = painting[n % len(painting)]
            budget.settle(seconds, price)
            paid += seconds
        clock[0] += step + (pause if n % 10 == 9 else 0)
    return paid / (steps * step)


@pytest.mark.parametrize("painting", [[0.05], [0.005], [0.01, 0.2, 0.04]])
def test_the_budget_is_spent_and_not_overspent(painting):
    clock = [0.0]
    budget = Budget(0.05, lambda: clock[0])
    budget.learn(painting[0])
    assert spend(budget, clock, 200, 0.01, painting) == pytest.approx(0.05, rel=0.25)


def test_pauses_buy_nothing():
    clock = [0.0]
    budget = Budget(0.05, lambda: clock[0])
    budget.learn(0.02)
    assert spend(budget, clock, 200, 0.01, [0.02], pause=60.0) == pytest.approx(0.05 * 1.2, rel=0.1)


def test_a_budget_below_the_insertions_own_cost_warns_once_and_buys_nothing():
    clock = [0.0]
    budget = Budget(0.01, lambda: clock[0])
    budget.learn(0.005)
    with pytest.warns(SmallBudgetWarning, match=r"takes 4.0% of the step time, more than the budget of 1.0%"):
        spend(budget, clock, 60, 0.04, [0.005])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spend(budget, clock, 60, 0.04, [0.005]) == pytest.approx(0.04)


def test_a_pool_with_a_budget_is_painted_anew_and_repeats_its_rows():
    source = pool(budget=0.9)
    source.follow(0)
    waited = source.waited_seconds
    insert, (image, label) = toy_insertion(lesions=source), toy_batch()
    deadline = time.monotonic() + 60
    while source.repainted < 3 and time.monotonic() < deadline:
        plan = insert.plan(image, label)
        expected = insert.apply(image, label, plan)
        time.sleep(0.2)
    assert source.repainted >= 3 and source.waited_seconds < waited + 0.01 and source.painting_seconds > 0
    other = toy_insertion(lesions=pool())
    assert torch.equal(other.apply(image, label, InsertionPlan.from_rows(plan.to_rows()))[0], expected[0])
    state = insert.state_dict()
    resumed = pool(budget=0.9)
    resumed.load_state_dict(state["lesions"])
    assert [x.name for x in resumed.to_bank()] == [x.name for x in source.to_bank()]


def test_paintings_come_in_the_order_in_which_they_were_asked():
    threads = PaintingThreads(LesionPainter(toy_bank(), "procedural", **SIZES))
    futures = [threads.submit(n) for n in range(4)]
    assert futures[3].result().seconds > 0 and all(f.done() for f in futures)
    threads.close()


# ---------------------------------------------------------------------------------------------- command line


def test_bank_paint(tmp_path):
    toy_bank().save(tmp_path / "bank.safetensors")

    def run(*words):
        return CliRunner().invoke(app, ["bank", *(str(word) for word in words)])

    out = tmp_path / "painted.safetensors"
    words = (
        "paint",
        tmp_path / "bank.safetensors",
        "--generator",
        "procedural",
        "--scale",
        0.6,
        0.9,
        "-n",
        6,
        "-o",
        out,
    )
    done = run(*words, "--swap", "SNFH:ET:1", "--seed", 4, "--spacing-mm", 1, 1, 1)
    assert done.exit_code == 0 and "6 lesions of" in done.output, done.output
    expected = toy_bank().painted("procedural", 6, swaps=[("ED", "ET", 1.0)], seed=4, **SIZES)
    assert LesionBank.load(out).checksum == expected.checksum
    assert "painted by procedural" in run("show", out).output
    for wrong, message in {("--generator", "paste"): "repeats its donors", ("--swap", "ED-ET"): "FROM:TO:PROB"}.items():
        refused = run(*words[:-2], "-o", tmp_path / "none", *wrong)
        assert refused.exit_code == 2 and message in refused.output and "Traceback" not in refused.output
    assert not (tmp_path / "none").exists()
