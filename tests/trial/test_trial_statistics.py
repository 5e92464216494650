"""Intervals, looks and words of a trial."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthaug.trial.looks import read_looks, take_look
from synthaug.trial.recommendation import judge, recommendation
from synthaug.trial.statistics import Estimate, estimate, holm, spent


def cells(values, turns=1):
    return {(f"p{i}", r): float(v) for i, v in enumerate(values) for r in range(turns)}


def test_the_error_over_patients_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(0.1, 0.2, 12)
    found = estimate(cells(values), clustered=False, resamples=20_000)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / 12**0.5, rel=0.03)
    assert (found.freedom, found.patients) == (11, 12)


def test_an_effect_of_the_training_set_widens_the_interval():
    rng = np.random.default_rng(1)
    turns = rng.normal(0, 0.2, 6)
    table = {(f"p{i}", r): turns[r] + rng.normal(0, 0.05) for i in range(10) for r in range(6)}
    alone, both = (estimate(table, clustered) for clustered in (False, True))
    assert both.error > 3 * alone.error
    assert both.error == pytest.approx(turns.std(ddof=1) / 6**0.5, rel=0.3)
    assert both.freedom == 5


def test_one_patient_has_no_interval():
    found = estimate(cells([0.2]), clustered=False)
    assert found.interval(0.05) == (-np.inf, np.inf) and found.p_value == 1.0
    with pytest.raises(ValueError, match="at least one"):
        estimate({}, clustered=False)


def test_intervals_of_shares_stay_within_their_range():
    wide = Estimate(0.4, 0.5, 1, 2)
    assert wide.interval(0.05) == (-1.0, 1.0) and wide.half_width(0.05) == pytest.approx(6.35, abs=0.01)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        low, high = estimate(cells(rng.normal(0.05, 0.1, 8)), False, resamples=400).interval(0.1)
        hits += low < 0.05 < high
    assert 0.85 < hits / 300 < 0.95


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_looks_never_spend_more_than_alpha(pairs, alpha):
    total, before = 0.0, 0.0
    for n in sorted(pairs):
        after = max(before, spent(n / 40, alpha))
        total, before = total + after - before, after
    assert 0 <= total <= alpha * (1 + 1e-9)
    assert spent(1.0, alpha) == pytest.approx(alpha)


def test_many_looks_find_a_difference_no_more_often_than_one():
    rng, found = np.random.default_rng(3), 0
    for _ in range(400):
        sums, before = np.cumsum(rng.normal(size=20)), 0.0
        for n in (5, 10, 15, 20):
            now = spent(n / 20, 0.1)
            level, before = now - before, now
            if Estimate(sums[n - 1] / n, n**-0.5, 10_000, n).p_value < level:
                found += 1
                break
    assert found / 400 < 0.14


def test_looks_are_written_down_and_the_same_one_is_not_taken_twice(tmp_path):
    assert take_look(tmp_path, 0, 8, 2, 0.05) is None
    first = take_look(tmp_path, 4, 8, 2, 0.05)
    assert take_look(tmp_path, 4, 8, 2, 0.05) == first
    assert take_look(tmp_path, 6, 8, 2, 0.05) is None
    last = take_look(tmp_path, 8, 8, 2, 0.05)
    assert read_looks(tmp_path) == [first, last]
    assert first.alpha + last.alpha == pytest.approx(0.05) and last.spent == pytest.approx(0.05)


@given(st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1), min_size=1))
def test_holm_rejects_no_arm_after_one_that_stays(p_values):
    parts = holm(p_values, 0.05)
    assert min(parts.values()) == pytest.approx(0.05 / len(p_values))
    kept = [p for name, p in p_values.items() if p >= parts[name]]
    assert all(p_values[name] <= min(kept, default=1) for name in p_values if p_values[name] < parts[name])


def told(endpoint, regions=(), worthwhile=0.01, final=True):
    arms = {name: Estimate(mean, error, 11, 12) for name, (mean, error) in endpoint.items()}
    each = {name: {r: Estimate(m, e, 11, 12) for r, m, e in regions} for name in arms}
    return recommendation(judge(arms, each, 0.05, worthwhile, 12, final), "none")


def test_recommendations_in_words():
    assert told({"home": (0.05, 0.01)}).startswith("Use home: +0.050 [+0.028, +0.072]: ahead")
    assert told({"home": (-0.05, 0.01)}).startswith("Leave it off: home, -0.050")
    assert "ET lies behind" in told({"home": (0.05, 0.01)}, [("WT", 0.1, 0.01), ("ET", -0.05, 0.01)])
    assert told({"home": (0.0, 0.001)}).startswith("Leave it off") and "0.01 is excluded" in told({"home": (0, 0.001)})
    assert told({"home": (-0.01, 0.02)}).startswith("Leave it off")
    assert told({"home": (-0.01, 0.02)}, final=False).startswith("Undecided, stay with none")


def test_how_many_more_pairs_shrink_the_interval_to_its_mean():
    # 2.2 standard errors of .02 are .044, 1.1 times the mean: 1.21 times the pairs
    assert "about 3 more pairs" in told({"home": (0.04, 0.02)})
    assert "more pairs are needed" in told({"home": (0.04, float("nan"))})


def test_the_best_of_the_arms_that_hold_is_named():
    assert told({"a": (0.05, 0.01), "b": (0.08, 0.01)}).startswith("Use b")
    # alone it would hold; of four arms it does not
    assert told({"a": (0.05, 0.021)}).startswith("Use a")
    assert told({"a": (0.05, 0.021), "b": (0, 0.02), "c": (0, 0.02), "d": (0, 0.02)}).startswith("Undecided")
