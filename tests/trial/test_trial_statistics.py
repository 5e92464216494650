"""Intervals, looks and recommendations of trials: known answers, and an alpha that is never over-spent."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthaug.trial.advice import LEAVE, UNDECIDED, USE, advise, further_pairs, headline
from synthaug.trial.looks import looks_of, take_look
from synthaug.trial.statistics import (
    Interval,
    difference_table,
    endpoint_rows,
    holm,
    interval,
    paired,
    patient_means,
    spent,
)


def row(arm, case, dice, region="WT", rotation=0, seed=0, kind="region", **more):
    head = {"arm": arm, "rotation": rotation, "seed": seed, "case": case, "group": case[0], "region": region}
    return head | {"kind": kind, "size": "all", "dice": dice} | more


# --------------------------------------------------------------------------------------------------------- looks


def test_spending_is_that_of_lan_and_demets():
    # Lan and DeMets' table for O'Brien and Fleming's kind at alpha 0.05: z of 4.3326 at a quarter of the information
    assert spent(0.25, 0.05) == pytest.approx(0.000089, abs=1e-6)
    assert spent(0.5, 0.05) == pytest.approx(0.00557, abs=1e-5)
    assert spent(0.75, 0.05) == pytest.approx(0.02363, abs=1e-5)
    assert spent(1, 0.05) == pytest.approx(0.05) and spent(2, 0.05) == pytest.approx(0.05) and spent(0, 0.05) == 0


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 12), min_size=1, max_size=15),
    alpha=st.floats(0.001, 0.3),
)
def test_alpha_is_never_over_spent(tmp_path_factory, numbers, alpha):
    out = tmp_path_factory.mktemp("looks")
    levels = {}
    for count in numbers:
        units = tuple((r, 0) for r in range(count))
        look = take_look(out, units, 12, alpha)
        assert look.level >= 0 and levels.setdefault(units, look.level) == look.level
    assert sum(levels.values()) <= alpha * (1 + 1e-9)
    assert sum(look.level for look in looks_of(out)) == pytest.approx(max(spent(n / 12, alpha) for n in numbers))


def test_other_pairs_that_are_no_more_have_nothing_to_spend(tmp_path):
    assert take_look(tmp_path, [(0, 0), (1, 0)], 4, 0.05).level > 0
    assert take_look(tmp_path, [(0, 0), (0, 1)], 4, 0.05).level == 0
    assert len(looks_of(tmp_path)) == 2


# ----------------------------------------------------------------------------------------------------- intervals


def test_patients_are_means_over_seeds_rotations_and_cases():
    ours = [row("a", "p1", 0.6), row("a", "p1", 0.8, seed=1), row("a", "p2", 0.5, rotation=1), row("a", "q1", 0.9)]
    theirs = [r | {"arm": "none", "dice": 0.5} for r in ours]
    found = patient_means(endpoint_rows(paired(ours, theirs), None))
    assert found == pytest.approx({"p": (0.1 + 0.3 + 0.0) / 3, "q": 0.4})


def test_the_endpoint_is_all_regions_or_those_given():
    values = {"WT": 0.2, "ET": 0.4, "ED": 0.9}
    ours = [row("a", "p1", v, name, kind="class" if name == "ED" else "region") for name, v in values.items()]
    joined = paired(ours, [r | {"dice": 0.0} for r in ours])
    assert patient_means(endpoint_rows(joined, None)) == pytest.approx({"p": 0.3})
    assert patient_means(endpoint_rows(joined, ["ED"])) == pytest.approx({"p": 0.9})
    with pytest.raises(ValueError, match="endpoint: expected some of WT, ET, ED, got TC"):
        endpoint_rows(joined, ["TC"])


def test_rows_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="1 have no partner"):
        paired([row("a", "p1", 0.5), row("a", "q1", 0.5)], [row("none", "p1", 0.5)])


def test_undefined_values_make_no_difference():
    ours = [row("a", "p1", 0.5, lesion_recall=None), row("a", "q1", 0.7, lesion_recall=1.0)]
    theirs = [row("none", "p1", 0.4, lesion_recall=1.0), row("none", "q1", 0.4, lesion_recall=0.5)]
    table = {r["metric"]: r for r in difference_table(paired(ours, theirs))}
    assert table["dice_difference"]["mean"] == pytest.approx(0.2) and table["dice_difference"]["n"] == 2
    assert table["lesion_recall_difference"]["mean"] == 0.5 and table["lesion_recall_difference"]["n"] == 1


def test_few_patients_that_agree_prove_nothing_at_a_strict_level():
    assert interval([0.1, 0.12, 0.09], 0.999).low < 0 < interval([0.1, 0.12, 0.09], 0.95).low
    alone = interval([0.1], 0.95)
    assert alone.mean == 0.1 and math.isinf(alone.low) and math.isinf(alone.high)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [interval(random.normal(0.1, 0.2, 6), 0.9) for _ in range(200)]
    assert np.mean([f.low <= 0.1 <= f.high for f in found]) > 0.85


def test_holm_gives_the_second_arm_more_only_where_the_first_is_clear():
    clear, vague = [0.1, 0.11, 0.12, 0.1, 0.09], [0.1, -0.2, 0.15, 0.05, 0.02]
    both = holm({"vague": vague, "clear": clear}, 0.05, 2)
    assert [*both] == ["vague", "clear"]
    assert both["clear"] == interval(clear, 1 - 0.025) and both["vague"] == interval(vague, 1 - 0.05)
    assert holm({"vague": vague}, 0.05, 2)["vague"] == interval(vague, 1 - 0.025)


# ----------------------------------------------------------------------------------------------- recommendations


@pytest.mark.parametrize(
    ("limits", "harmed", "verdict", "words"),
    [
        ((0.01, 0.06), [], USE, "use home: it gains"),
        ((0.01, 0.06), ["TC"], UNDECIDED, "but TC loses"),
        ((-0.01, 0.06), [], UNDECIDED, "3 more"),
        ((-0.01, 0.009), [], LEAVE, "a gain of 0.01 is ruled out"),
        ((0.001, 0.009), [], LEAVE, "a gain of 0.01 is ruled out"),
        ((-0.06, -0.01), [], LEAVE, "it loses"),
        ((-math.inf, math.inf), [], UNDECIDED, "3 more"),
    ],
)
def test_recommendations(limits, harmed, verdict, words):
    advice = advise("home", Interval(sum(limits) / 2, *limits), harmed, 0.01, "3 more")
    assert advice.verdict == verdict and words in advice.words


def test_the_headline_names_the_best_arm_or_says_leave_it_off():
    found = {"a": Interval(0.03, 0.01, 0.05), "b": Interval(0.05, 0.02, 0.08), "c": Interval(-0.1, -0.2, -0.05)}
    advices = {arm: advise(arm, f, [], 0.01, "more") for arm, f in found.items()}
    assert headline(advices, found).startswith("Use b: it gains")
    assert headline({"c": advices["c"]}, found).startswith("Leave it off: c: it loses")
    open_ = advise("d", Interval(0.0, -0.1, 0.1), [], 0.01, "more")
    assert headline({"c": advices["c"], "d": open_}, found).startswith("Undecided: ")


def differences(patients, pairs, between, within, mean=0.02):
    random = np.random.default_rng(0)
    own = random.normal(0, between, patients)
    values = mean + own[:, None] + random.normal(0, within, (patients, pairs))
    return {(0, s, f"{p}"): (f"{p}", float(values[p, s])) for p in range(patients) for s in range(pairs)}


def test_more_pairs_are_asked_for_where_they_would_help():
    assert "more patients" in further_pairs(differences(6, 4, 0.2, 0.01), 4, 0.01, 0.05)
    noisy = further_pairs(differences(12, 4, 0.0, 0.2), 4, 0.01, 0.05)
    assert int(noisy.split()[4]) > 4
    assert "one patient" in further_pairs({(0, 0, "a"): ("a", 0.1)}, 1, 0.01, 0.05)
