"""Counters, rows, warnings and the state that a resumed run continues from."""

import json
import warnings

import pytest
import torch
from engine import done_rows, toy_bank, toy_batch, toy_insertion

from synthaug import LowInsertionRateWarning, Outcome, TumorInsertion
from synthaug.sizes import SizeClasses


def test_a_low_rate_warns_with_the_main_reason():
    image = torch.zeros(10, 4, 16, 16, 16)
    label = torch.zeros(10, 16, 16, 16, dtype=torch.int64)
    insert = toy_insertion(scale=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(9):
            insert(image, label)
    with pytest.warns(
        LowInsertionRateWarning, match=r"only 0 of 100 .* last 100 samples.*no host tissue.*\(100 times\)"
    ):
        insert(image, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        insert(image, label)


def test_the_window_forgets_what_went_well_before(monkeypatch):
    monkeypatch.setattr("synthaug.insertion.report.WINDOW_SAMPLES", 20)
    good = toy_batch(10, size=(24, 24, 24), labelled=False)
    empty = torch.zeros_like(good[0]), good[1]
    insert = toy_insertion(scale=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (good, good, empty):
            insert(*batch)
    with pytest.warns(LowInsertionRateWarning):
        insert(*empty)


def test_no_warning_when_most_is_done_or_nothing_was_asked(monkeypatch):
    monkeypatch.setattr("synthaug.insertion.report.WINDOW_SAMPLES", 20)
    image, label = toy_batch(10, size=(24, 24, 24), labelled=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({"scale": 0.4}, {"prob": 0.0}):
            insert = toy_insertion(**options)
            for _ in range(4):
                insert(image, label)


def test_rows_go_to_the_audit_file(tmp_path):
    path = tmp_path / "log" / "rows.jsonl"
    insert = toy_insertion(audit=path, second=1.0, scale=0.6)
    for step in range(3):
        insert(*toy_batch(2, seed=step))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    report = insert.report()
    assert len(rows) == report.asked == 12
    assert sum(row["outcome"] == "done" for row in rows) == report.done
    assert len({row["seed"] for row in rows}) == 12
    assert {(row["number"], row["order"]) for row in rows} == {(n, o) for n in range(6) for o in range(2)}


def test_report_in_words_and_as_values():
    insert = toy_insertion(diameter_mm=(8, 12))
    insert(*toy_batch(3))
    report = insert.report()
    text = str(report)
    assert "3 samples, 3 insertions asked, 3 done (100%)" in text and "ET:" in text and "median" in text
    assert 7 < report.diameter_mm["p10"] <= report.diameter_mm["median"] <= report.diameter_mm["max"] < 13
    assert json.loads(json.dumps(report.to_dict()))["done"] == 3


@pytest.mark.parametrize("options", [{}, {"class_mix": {"NCR": 0.3, "ED": 0.3, "ET": 0.4}}])
def test_a_run_continues_from_its_state(options):
    batches = [toy_batch(2, seed=step) for step in range(4)]
    whole = toy_insertion(**options, prob=0.8, second=0.5, scale=(0.4, 0.9))
    expected = [whole(*batch) for batch in batches]
    first = toy_insertion(**options, prob=0.8, second=0.5, scale=(0.4, 0.9))
    for batch in batches[:2]:
        first(*batch)
    state = json.loads(json.dumps(first.state_dict()))
    resumed = toy_insertion(**options, prob=0.8, second=0.5, scale=(0.4, 0.9))
    resumed.load_state_dict(state)
    for batch, (image, label) in zip(batches[2:], expected[2:], strict=True):
        got = resumed(*batch)
        assert torch.equal(got[0], image) and torch.equal(got[1], label)
    assert resumed.report() == whole.report()


def test_seeds_and_ranks_differ():
    batch = toy_batch(4)
    plans = [toy_insertion(seed=s, rank=r).plan(*batch).to_rows() for s, r in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert plans[0] == plans[3]
    seeds = [{row["seed"] for row in rows} for rows in plans]
    assert not seeds[0] & seeds[1] and not seeds[0] & seeds[2]


def test_expected_and_prob_may_be_changed():
    insert = toy_insertion(prob=0.5, second=0.4)
    assert insert.expected(100) == pytest.approx(70)
    insert.prob = 0.0
    assert insert.expected(100) == 0
    with pytest.raises(ValueError, match=r"prob: expected a probability in \[0, 1\], got 2"):
        insert.prob = 2


def test_every_outcome_has_words():
    assert len({o.reason for o in Outcome}) == len(Outcome)


def test_a_bank_may_be_given_as_a_path(tmp_path):
    toy_bank().save(tmp_path / "bank.safetensors")
    insert = TumorInsertion(tmp_path / "bank.safetensors", prob=1.0, scale=0.6)
    insert(*toy_batch(1))
    assert insert.report().done >= 1


def test_lesions_are_counted_per_class_and_size():
    insert = toy_insertion(prob=0.9, second=0.5, scale=(0.5, 1.0), lesions=toy_bank(size=14), clearance_mm=0.0)
    rows = []
    for seed in range(4):
        batch = toy_batch(4, seed=seed)
        plan = insert.plan(*batch)
        insert.apply(*batch, plan)
        rows += done_rows(plan)
    report = insert.report()
    assert report.sizes == SizeClasses().counts([row["diameter_mm"] for row in rows])
    assert report.sizes["small"] and report.sizes["medium"]
    for name in ("NCR", "ED", "ET"):
        having = [row["diameter_mm"] for row in rows if row["voxels"][name]]
        assert report.lesions[name] == SizeClasses().counts(having)
