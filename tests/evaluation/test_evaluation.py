"""Metrics against MONAI's and against hand-made masks, rows of cases, and tables with known answers."""

import csv
import itertools
import json
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner, Result

from synthaug import BRATS18, BRATS24
from synthaug.classes import single
from synthaug.cli.app import app
from synthaug.evaluation import (
    METRICS,
    Metric,
    default_regions,
    evaluate_case,
    format_table,
    mask_metrics,
    paired_differences,
    summarise,
    write_table,
)
from synthaug.evaluation.registry import shown_metrics


def blob(rng: np.random.Generator, shape=(20, 18, 16)) -> np.ndarray:
    field = gaussian_filter(rng.standard_normal(shape), 2)
    return field > np.quantile(field, 0.8)


# ----------------------------------------------------------------------------------------------- one mask


@given(seed=st.integers(0, 2**31), spacing=st.tuples(*[st.floats(0.4, 4)] * 3), tolerance=st.floats(0.1, 5))
@settings(max_examples=15, deadline=None)
def test_metrics_are_monais(seed, spacing, tolerance):
    rng = np.random.default_rng(seed)
    masks = blob(rng), blob(rng)
    got = mask_metrics(*masks, spacing, nsd_tolerance_mm=tolerance)
    pair = [torch.from_numpy(m)[None, None].float() for m in masks]
    options = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI about itself
        expected = {
            "dice": compute_dice(*pair),
            "iou": compute_iou(*pair),
            "hd95_mm": compute_hausdorff_distance(*pair, percentile=95, **options),
            "nsd": compute_surface_dice(*pair, [tolerance], **options),
            "assd_mm": compute_average_surface_distance(*pair, symmetric=True, **options),
        }
    for name, value in expected.items():
        assert got[name] == pytest.approx(float(value), rel=1e-4, abs=1e-5), name


def test_counts_done_by_hand():
    prediction, truth = np.zeros((2, 5, 5, 4), bool)
    truth[0, 0] = True  # 4 voxels
    prediction[0, 0, 1:], prediction[4, 4, :3] = True, True  # 3 of them, and 3 others
    got = mask_metrics(prediction, truth, surface=False)
    assert got["dice"] == pytest.approx(6 / 10)
    assert got["iou"] == pytest.approx(3 / 7)
    assert got["sensitivity"] == pytest.approx(3 / 4)
    assert got["precision"] == pytest.approx(3 / 6)
    assert got["specificity"] == pytest.approx(93 / 96)
    assert got["volumetric_similarity"] == pytest.approx(1 - 2 / 10)
    assert "hd95_mm" not in got


def test_surfaces_of_shifted_plates_are_in_mm():
    prediction, truth = np.zeros((2, 12, 8, 8), bool)
    truth[2], prediction[5] = True, True
    got = mask_metrics(prediction, truth, (1.5, 1, 1), nsd_tolerance_mm=4.4)
    assert (got["hd95_mm"], got["assd_mm"], got["nsd"]) == (4.5, 4.5, 0)
    assert mask_metrics(prediction, truth, (1.5, 1, 1), nsd_tolerance_mm=4.5)["nsd"] == 1


FULL, EMPTY = np.ones((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
PART = np.pad(np.ones((2, 2, 2), bool), 1)


@pytest.mark.parametrize(
    ("prediction", "truth", "overlap", "distance", "sensitivity", "precision", "specificity"),
    [
        (EMPTY, EMPTY, 1, 0, None, None, 1),
        (PART, EMPTY, 0, 374, None, 0, 56 / 64),
        (EMPTY, PART, 0, 374, 0, None, 1),
        (FULL, FULL, 1, 0, 1, 1, None),
    ],
)
def test_what_holds_where_a_mask_is_empty_or_full(
    prediction, truth, overlap, distance, sensitivity, precision, specificity
):
    got = mask_metrics(prediction, truth)
    assert {got[name] for name in ("dice", "iou", "nsd", "volumetric_similarity")} == {overlap}
    assert (got["hd95_mm"], got["assd_mm"]) == (distance, distance)
    assert (got["sensitivity"], got["precision"], got["specificity"]) == (sensitivity, precision, specificity)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, float("nan"))])
def test_a_bad_voxel_size(spacing):
    with pytest.raises(ValueError, match="spacing_mm: expected three numbers above 0"):
        mask_metrics(PART, PART, spacing)


# ----------------------------------------------------------------------------------------------- one case


def case() -> tuple[np.ndarray, np.ndarray]:
    """A truth of all classes, and a prediction that takes the enhancing part for oedema and invents some."""
    truth = np.zeros((40, 24, 24), np.int16)
    truth[4:16, 4:16, 4:16], truth[6:14, 6:14, 6:14], truth[8:12, 8:12, 8:12] = 2, 4, 1
    prediction = np.where(truth == 4, 2, truth)
    prediction[30:34, 4:8, 4:8] = 4
    return prediction, truth


def by_region(rows: list[dict], size: str = "all") -> dict[str, dict]:
    return {row["region"]: row for row in rows if row["size"] == size}


def test_regions_and_classes_of_a_case():
    rows = evaluate_case(*case(), "BRATS18", (2, 1, 1), case="c", group="p")
    table = by_region(rows)
    assert list(table) == ["WT", "TC", "ET", "NCR", "ED"]
    assert [table[name]["kind"] for name in table] == ["region"] * 3 + ["class"] * 2
    assert table["WT"]["dice"] == pytest.approx(2 * 1728 / (2 * 1728 + 64))
    assert table["TC"]["dice"] == pytest.approx(2 * 64 / (512 + 128))
    assert (table["ET"]["dice"], table["ET"]["sensitivity"], table["NCR"]["dice"]) == (0, 0, 1)
    assert table["ED"]["precision"] == pytest.approx(1216 / (1216 + 448))
    assert table["WT"]["truth_ml"] == pytest.approx(2 * 1.728)
    assert table["WT"]["predicted_ml"] == pytest.approx(2 * 1.792)
    assert all(row["case"] == "c" and row["group"] == "p" for row in rows)
    assert (table["WT"]["lesions"], table["WT"]["lesions_found"], table["WT"]["false_positives"]) == (1, 1, 1)
    json.dumps(rows, allow_nan=False)


def test_rows_have_the_registered_metrics_and_no_other_in_its_order():
    rows = evaluate_case(*case(), BRATS18)
    assert list(by_region(rows)["WT"]) == ["case", "group", "region", "kind", "size", *METRICS]
    by_size = [name for name, metric in METRICS.items() if metric.by_size]
    assert list(by_region(rows, "small")["WT"]) == ["case", "group", "region", "kind", "size", *by_size]


def test_a_perfect_prediction_is_the_best_in_the_direction_of_each_metric():
    perfect, poor = (by_region(evaluate_case(p, case()[1], BRATS18))["WT"] for p in case()[::-1])
    for name, metric in METRICS.items():
        if metric.higher_is_better is not None:
            assert perfect[name] >= poor[name] if metric.higher_is_better else perfect[name] <= poor[name], name


def test_a_metric_is_one_line(monkeypatch):
    """A line in the registry's tuple is enough for the rows and the tables."""
    line = Metric("hausdorff_mm", "Hausdorff", lambda pair: 7.0, higher_is_better=False, unit="mm", shown=True)
    monkeypatch.setattr("synthaug.evaluation.case.SURFACE", (line,))
    monkeypatch.setitem(METRICS, line.name, line)
    rows = evaluate_case(*case(), BRATS18)
    assert shown_metrics(rows[0])[-1] is line and line.heading == "Hausdorff, mm"
    assert next(r for r in summarise(rows) if r["metric"] == "hausdorff_mm")["mean"] == 7


def test_lesions_by_size():
    rows = evaluate_case(*case(), BRATS18)
    assert by_region(rows, "medium")["WT"] == {
        "case": "",
        "group": "",
        "region": "WT",
        "kind": "region",
        "size": "medium",
        "lesions": 1,
        "lesions_found": 1,
        "lesion_recall": 1.0,
        "lesion_dice": 1.0,
        "false_positives": 0,
    }
    small, large = by_region(rows, "small")["WT"], by_region(rows, "large")["WT"]
    assert (small["lesions"], small["false_positives"], small["lesion_recall"], small["lesion_dice"]) == (0, 1, None, 0)
    assert (large["lesions"], large["lesion_dice"]) == (0, None)


def test_quick_rows_for_validation_during_training():
    rows = evaluate_case(*case(), BRATS18, per_class=False, surface=False, lesionwise=False)
    assert [row["region"] for row in rows] == ["WT", "TC", "ET"]
    assert not {"hd95_mm", "lesion_dice"} & set(rows[0])


def test_tensors_and_own_regions():
    prediction, truth = (torch.from_numpy(x) for x in case())
    rows = evaluate_case(prediction, truth, BRATS18, regions={"core": ("NETC", "ET")}, per_class=False)
    assert by_region(rows)["core"]["dice"] == by_region(evaluate_case(*case(), BRATS18))["TC"]["dice"]


def test_regions_of_other_vocabularies():
    assert list(default_regions(BRATS24)) == ["WT", "TC", "ET"]
    assert default_regions(single()) == {}
    mask = (case()[1] > 0).astype(np.uint8)
    assert list(by_region(evaluate_case(mask, mask, single()))) == ["tumour"]
    labels = (case()[1] == 4).astype(np.uint8) + 1 * (case()[1] == 1)
    assert list(by_region(evaluate_case(labels, labels, {"a": 1, "b": 2}))) == ["all", "a", "b"]
    cavity = np.where(case()[1] == 4, 4, 0)
    rows = by_region(evaluate_case(cavity, cavity, BRATS24))
    assert rows["RC"]["truth_ml"] > 0 and rows["WT"]["truth_ml"] == 0


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda p: p.astype(float), {}, TypeError, "prediction: expected an integer label map, got float64"),
        (lambda p: p[:-1], {}, ValueError, "expected a prediction of the label's shape"),
        (lambda p: p[None], {}, ValueError, r"prediction: expected the shape \(X, Y, Z\)"),
        (lambda p: np.where(p == 4, 3, p), {}, ValueError, r"prediction: label values \[3\] are not in"),
        (lambda p: p, {"regions": {"X": ("YY",)}}, ValueError, "unknown class 'YY'"),
        (lambda p: p, {"regions": {"X": "ET"}}, ValueError, "region X: expected class names"),
        (lambda p: p, {"regions": {"ET": ("ET", "ED")}}, ValueError, "region ET: it has the name of a class"),
        (lambda p: p, {"regions": False, "per_class": False}, ValueError, "got neither"),
    ],
)
def test_bad_cases(change, options, error, message):
    prediction, truth = case()
    with pytest.raises(error, match=message):
        evaluate_case(change(prediction), truth, BRATS18, **options)


# ------------------------------------------------------------------------------------------------- tables


def scores(**cases: tuple[str, float | None]) -> list[dict]:
    return [{"case": c, "group": g, "region": "WT", "size": "all", "dice": v} for c, (g, v) in cases.items()]


def test_means_medians_and_what_is_undefined():
    (row,) = summarise(scores(a=("p", 0.2), b=("q", 0.4), c=("r", 0.9), d=("s", None)))
    assert (row["region"], row["size"], row["metric"], row["n"], row["groups"]) == ("WT", "all", "dice", 3, 3)
    assert (row["mean"], row["median"]) == (pytest.approx(0.5), pytest.approx(0.4))
    assert row["std"] == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1))
    assert 0.2 <= row["low"] < 0.5 < row["high"] <= 0.9


def test_the_interval_is_that_of_all_resamples_of_patients():
    """Three patients have 27 resamples; one of them has two cases, which stay together."""
    values = {"p": [0.1, 0.2], "q": [0.5], "r": [0.9]}
    rows = scores(**{f"{g}{i}": (g, v) for g, vs in values.items() for i, v in enumerate(vs)})
    (row,) = summarise(rows, resamples=40_000)
    means = [np.mean([v for g in draw for v in values[g]]) for draw in itertools.product(values, repeat=3)]
    assert (row["low"], row["high"]) == pytest.approx(np.quantile(means, [0.025, 0.975], method="inverted_cdf"))


def test_one_patient_has_no_interval():
    (row,) = summarise(scores(a=("p", 0.2), b=("p", 0.4)))
    assert (row["groups"], row["low"], row["high"]) == (1, None, None)


def test_the_seed_decides_and_other_groups_do_not():
    rows = scores(**{f"c{i}": (f"p{i}", i / 10) for i in range(8)})
    others = [row | {"region": "ET", "dice": 1 - row["dice"]} for row in rows]
    state = np.random.get_state()[1].copy()
    assert summarise(rows) == summarise(rows) == summarise(others + rows)[1:]
    assert (np.random.get_state()[1] == state).all()
    assert summarise(rows, seed=1, resamples=50) != summarise(rows, seed=2, resamples=50)


def test_sizes_and_cases_are_kept_apart():
    rows = evaluate_case(*case(), BRATS18, case="a") + evaluate_case(case()[1], case()[1], BRATS18, case="b")
    table = {(r["region"], r["size"], r["metric"]): r for r in summarise(rows)}
    assert table["WT", "all", "lesion_precision"]["mean"] == pytest.approx(0.75)
    assert table["WT", "medium", "lesion_recall"]["n"] == 2
    assert ("WT", "large", "lesion_recall") not in table
    assert ("WT", "medium", "dice") not in table


def test_paired_differences_take_out_how_hard_a_case_is():
    easy_and_hard = {f"c{i}": (f"p{i}", i / 10) for i in range(9)}
    better = {name: (group, value + 0.05) for name, (group, value) in easy_and_hard.items()}
    (row,) = paired_differences(scores(**better), scores(**easy_and_hard))
    assert (row["mean"], row["low"], row["high"]) == (pytest.approx(0.05), pytest.approx(0.05), pytest.approx(0.05))
    undefined = scores(**(easy_and_hard | {"c0": ("p0", None)}))
    assert paired_differences(scores(**better), undefined)[0]["n"] == 8


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="1 rows have no partner"):
        paired_differences(scores(a=("p", 1.0), b=("q", 1.0)), scores(a=("p", 1.0)))
    twice = [row | {"seed": seed} for seed in (0, 1) for row in scores(a=("p", 1.0))]
    with pytest.raises(ValueError, match="two rows have the same case, region, size"):
        paired_differences(twice, twice)
    table = paired_differences(twice, twice, match=("case", "region", "size", "seed"))
    assert [row["metric"] for row in table] == ["dice"] and table[0]["n"] == 2


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "at least one row"),
        (scores(a=("p", 1.0)), {"by": ("arm",)}, "a row has no 'arm'"),
        (scores(a=("p", 1.0)), {"metrics": ["nsd"]}, "no row has nsd; known are dice"),
        (scores(a=("p", 1.0)), {"level": 95}, r"level: expected a number in \(0, 1\)"),
    ],
)
def test_bad_tables(rows, options, message):
    with pytest.raises(ValueError, match=message):
        summarise(rows, **options)


def test_tables_are_written_and_shown(tmp_path):
    table = summarise(scores(a=("p", 0.25), b=("q", 0.75)))
    write_table(table, tmp_path / "new" / "t.csv")
    write_table(table, tmp_path / "t.json")
    with (tmp_path / "new" / "t.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["region"], row["metric"], float(row["mean"])) == ("WT", "dice", 0.5)
    assert json.loads((tmp_path / "t.json").read_text()) == table
    with pytest.raises(ValueError, match=r"ends in \.csv or \.json"):
        write_table(table, tmp_path / "t.txt")
    lines = format_table(table).splitlines()
    assert lines[0].split() == ["region", "dice"]
    assert lines[1].split() == ["WT", "0.5", "(0.5)", "[0.25,", "0.75]"]


# ---------------------------------------------------------------------------------------- a folder of predictions


@pytest.fixture
def predicted(tmp_path) -> tuple[Path, Path]:
    """Three labelled cases at 2 mm, the first predicted exactly, the second as in `case`, the third not at all."""
    prediction, truth = case()
    labels = {"Brats18_A_1": (truth, truth), "Brats18_B_1": (prediction, truth), "Brats18_C_1": (None, truth)}
    for name, (found, true) in labels.items():
        save(tmp_path / "cases" / name / f"{name}_seg.nii.gz", true)
        if found is not None:
            save(tmp_path / "found" / f"{name}.nii.gz", found)
    return tmp_path / "found", tmp_path / "cases"


def save(path: Path, labels: np.ndarray, spacing: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.diag([spacing] * 3 + [1.0])), path)


def command(*arguments) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_predictions_in_a_folder_are_scored(predicted, tmp_path):
    result = command(*predicted, "--out", tmp_path / "scores", "--partial")
    assert result.exit_code == 0, result.output
    assert "Brats18_A_1: Dice WT 1.000" in result.output and "not predicted: Brats18_C_1" in result.output
    assert "2 of 3 labelled cases; mean" in result.output
    assert command(*predicted).exit_code == 1
    assert "lower is better: hd95_mm, false_positives" in result.output
    with (tmp_path / "scores" / "rows.csv").open(encoding="utf-8") as file:
        rows = {(r["case"], r["region"]): r for r in csv.DictReader(file) if r["size"] == "all"}
    expected = by_region(evaluate_case(*case(), BRATS18, (2, 2, 2)))["TC"]
    assert float(rows["Brats18_B_1", "TC"]["hd95_mm"]) == expected["hd95_mm"]
    assert rows["Brats18_B_1", "TC"]["group"] == "B"
    with (tmp_path / "scores" / "summary.csv").open(encoding="utf-8") as file:
        means = {(r["region"], r["size"], r["metric"]): float(r["mean"]) for r in csv.DictReader(file)}
    assert means["TC", "all", "dice"] == pytest.approx((1 + expected["dice"]) / 2)


def test_predictions_that_do_not_fit_are_named(predicted):
    save(predicted[0] / "Brats18_B_1.nii.gz", case()[1], spacing=1.0)
    save(predicted[0] / "Brats18_C_1.nii.gz", case()[1] + 5)
    result = command(*predicted, "--no-surface")
    assert result.exit_code == 1
    assert "left out: Brats18_B_1: the affine of" in result.output
    assert "left out: Brats18_C_1: prediction: label values" in result.output
    assert "Brats18_A_1: Dice WT 1.000" in result.output


def test_a_folder_without_predictions(predicted, tmp_path):
    result = command(tmp_path / "none", predicted[1])
    assert result.exit_code == 2
    assert "expected predictions of the 3 labelled cases, such as Brats18_A_1.nii.gz; found none" in result.output
