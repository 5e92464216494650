"""A run's report has the figures that the run left, the right cases, and says what is missing."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from engine import CHANNELS, toy_batch, toy_insertion
from PIL import Image
from typer.testing import CliRunner

from synthaug import BRATS18
from synthaug.cli.app import app
from synthaug.evaluation import evaluate_case
from synthaug.figures.slices import COLOURS, class_colours
from synthaug.training.artefacts import (
    keep_example,
    keep_validation,
    read_examples,
    read_rows,
    read_validation,
    record_rows,
)
from synthaug.training.report import write_run_report
from synthaug.training.report_pictures import steering_series, top_level, validation_series

SIZE = (30, 26, 20)


class Page(HTMLParser):
    """Texts, pictures with their words, and the tables' rows of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.pictures, self.slices, self.charts = "", {}, {}, []
        self.rows, self.tags, self.in_cell = [], set(), False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("role") == "img":
            self.charts.append(values["aria-label"])
        self.tags.add(tag)
        if tag == "img" and values.get("class") == "slice":
            self.slices.setdefault(values["alt"], []).append(values["src"])
        elif tag == "img":
            self.pictures.setdefault(values["alt"], []).append(values["src"])
        if tag == "tr":
            self.rows.append([])
        self.in_cell = self.in_cell or tag == "td"
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, *start: str) -> list[str]:
        return next(row for row in self.rows if tuple(row[: len(start)]) == start)


def pixels(source: str) -> np.ndarray:
    head, content = source.split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def tumour(wrong: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, truth and a prediction that misses so many layers of the tumour, in slices 5 to 12."""
    image = np.random.default_rng(0).uniform(90, 110, (4, *SIZE)).astype(np.float32)
    image[:, :2] = 0
    truth = np.zeros(SIZE, np.int16)
    truth[8:20, 8:18, 5:13], truth[11:17, 10:16, 7:11] = 2, 4
    image[0, truth > 0] += 80
    prediction = truth.copy()
    prediction[8 : 8 + wrong] = 0
    return image, truth, prediction


def validate(run: Path, step: int, quality: dict[str, int]) -> None:
    rows = []
    for case, wrong in quality.items():
        image, truth, prediction = tumour(wrong)
        rows += evaluate_case(prediction, truth, BRATS18, case=case, surface=False)
        keep_validation(run, case, image, truth, prediction)
    record_rows(run, step, rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """What a trainer leaves after two validations of six cases and some insertions."""
    run = tmp_path_factory.mktemp("runs") / "my-run"
    run.mkdir()
    config = {"seed": 0, "data": {"classes": "BRATS18", "channels": list(CHANNELS)}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    insert = toy_insertion(scale=(0.5, 0.9))
    metrics = [{"step": 0, "expected_insertions": 12.0}]
    for step in range(1, 5):
        image, label = toy_batch(2, seed=step)
        plan = insert.plan(image, label)
        after = insert.apply(image, label, plan)
        rows = [row for row in plan.to_rows() if row["sample"] == 0]
        keep_example(run, step, image[0], after[0][0], label[0, 0], after[1][0, 0], rows)
        counts = insert.report().to_dict()
        metrics.append({"step": step, "loss": 4.0 / step, "lr": 0.1, "seconds_per_step": 0.5, "insertion": counts})
    validate(run, 2, {f"case {i}": 6 for i in range(6)})
    validate(run, 4, {f"case {i}": i for i in range(6)})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return run


@pytest.fixture(scope="module")
def page(run) -> Page:
    result = CliRunner().invoke(app, ["report", str(run)])
    assert result.exit_code == 0, result.output
    assert str(run / "report.html") in result.output
    return Page(run / "report.html")


def test_the_page_needs_nothing_else(run, page):
    assert not {"script", "link", "iframe"} & page.tags
    assert not re.search(r"https?://|url\((?!#)|@import", (run / "report.html").read_text(encoding="utf-8"))


def test_scores_of_the_last_validation_with_intervals(run, page):
    last = [row for row in read_rows(run) if row["step"] == 4 and row["size"] == "all"]
    for region in ("WT", "ET"):
        mean = np.mean([row["dice"] for row in last if row["region"] == region])
        cell = page.row(region)[1]
        assert cell.startswith(f"{mean:.2f} [")
        assert f"{mean:.3f}validation Dice {region}" in page.text
    assert "Dicelesion-wise Dicelesion-wise recallfalse positives per case" in page.text  # heads of the columns
    assert "Lower is better: false positives per case." in page.text
    assert page.row("WT", "medium")[2:] == ["6", "6", "1.00", "0"]
    assert not [row for row in page.rows if row[:2] == ["WT", "large"]]


def test_the_best_and_the_worst_cases_are_shown(page):
    titles = re.findall(r"(Best|Worst): (case \d)", page.text)
    assert titles == [("Best", "case 0"), ("Best", "case 1"), ("Worst", "case 5"), ("Worst", "case 4")]
    assert "flair, axial slice 7" in page.pictures and "prediction, axial slice 7" in page.pictures


def test_of_two_cases_one_is_the_best_and_one_the_worst(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    validate(tmp_path, 1, {"good": 0, "bad": 6})
    page = Page(write_run_report(tmp_path))
    assert re.findall(r"(Best|Worst): (\w+?)axial", page.text) == [("Best", "good"), ("Worst", "bad")]
    assert "channel 1" in page.text  # no configuration that names them


def test_contours_are_drawn_on_truth_and_prediction_alone(page):
    words = ("flair", "t1ce", "truth", "prediction")
    colourful = [np.ptp(pixels(page.pictures[f"{w}, axial slice 7"][0]), axis=-1).max() > 60 for w in words]
    assert colourful == [False, False, True, True]


def test_insertions_are_counted_by_class_and_size(run, page):
    counts = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["insertion"]
    assert page.row("asked for")[1] == str(counts["asked"])
    assert page.row("insertions expected in the whole run")[1] == "12"
    for name in ("NCR", "ED", "ET"):
        row = next(row for row in page.rows if row[:1] == [name] and row[-1].endswith("%"))
        assert [int(cell) for cell in row[1:4]] == list(counts["lesions"][name].values())
        assert int(row[4].replace(",", "")) == counts["voxels"][name]
    assert [int(c) for c in page.row("any class")[1:4]] == list(counts["sizes"].values())


def test_examples_show_a_sample_before_and_after(run, page):
    examples = read_examples(run)
    assert [example.step for example in examples] == [1, 2, 3, 4]
    assert "Step 1lesion case-" in page.text
    shown = f"flair before, axial slice {examples[0].z}", f"flair after, axial slice {examples[0].z}"
    before, after = (pixels(page.pictures[alt][0]) for alt in shown)
    assert before.shape == after.shape and (before != after).any()


def test_slices_through_lesions_open_under_a_click(run, page):
    """Of each case shown its truth and its prediction, of each example its label, with the classes in their colours."""
    through = {f"axial slice {z}" for z in (6, 7, 8, 10, 11)}
    assert {words.split(", ")[1] for words in page.slices if not words.startswith("label")} == through
    assert len(page.slices["truth, axial slice 8"]) == len(page.slices["prediction, axial slice 8"]) == 4
    truth, best, worst = (
        pixels(page.slices[f"{word}, axial slice 8"][i]) for word, i in (("truth", 0), ("prediction", 0), ("truth", 2))
    )
    assert (truth == best).all() and np.ptp(truth, axis=-1).max() > 60 and truth.shape == worst.shape
    assert (pixels(page.slices["prediction, axial slice 8"][2]) != worst).any()
    assert sum(len(found) for words, found in page.slices.items() if words.startswith("label")) >= 4 * 3
    assert (run / "report.html").stat().st_size < 5_000_000


def test_files_of_before_have_no_slices_to_scroll_through(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    validate(tmp_path, 1, {"a": 0})
    file = tmp_path / "validation" / "a.npz"
    with np.load(file) as kept:
        np.savez(file, **{name: kept[name] for name in kept.files if not name.startswith("stack")})
    assert read_validation(tmp_path)["a"].stack is None
    page = Page(write_run_report(tmp_path))
    assert not page.slices and page.pictures["truth, axial slice 7"]


def test_a_page_elsewhere(run, tmp_path):
    assert write_run_report(run, tmp_path / "new" / "a.html") == tmp_path / "new" / "a.html"
    assert (tmp_path / "new" / "a.html").exists()


# ---------------------------------------------------------------------------------------------- what was kept


def test_a_validation_that_is_done_again_replaces_its_rows(tmp_path):
    for dice in (0.1, 0.7):
        record_rows(tmp_path, 5, [{"case": "a", "region": "WT", "size": "all", "dice": dice}])
    record_rows(tmp_path, 9, [{"case": "a", "region": "WT", "size": "all", "dice": 0.9}])
    assert [(row["step"], row["dice"]) for row in read_rows(tmp_path)] == [(5, 0.7), (9, 0.9)]
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write('{"step": 10, "case"')  # a kill in the middle of a line
    assert len(read_rows(tmp_path)) == 2


def test_the_slices_with_all_classes_and_with_most_errors_are_kept(tmp_path):
    image, truth, prediction = tumour()
    prediction[4:28, 4:24, 15] = 1
    keep_validation(tmp_path, "a/b c", torch.from_numpy(image), torch.from_numpy(truth), prediction, (1, 1, 2))
    kept = read_validation(tmp_path)["a/b c"]
    assert (kept.z, kept.spacing_mm) == ((7, 15), (1, 1, 2))
    assert np.array_equal(kept.prediction[-1], prediction[..., 15])
    assert np.array_equal(kept.label[0], truth[..., 7])
    assert kept.image[0] == pytest.approx(image[..., 7], abs=0.1)
    assert not kept.tissue[:, :2].any() and kept.tissue[:, 3:].all()
    stack = kept.stack
    assert stack.z == (7, 8, 10, 12, 13) and stack.image.shape == (5, 4, *SIZE[:2])
    assert np.array_equal(stack.labels[0, 1], truth[..., 8]) and np.array_equal(stack.labels[1, 1], prediction[..., 8])
    assert (stack.image.min(), stack.image.max()) == (0, 255) and not stack.tissue[:, :2].any()


def test_a_case_without_tumour_has_its_middle_slice(tmp_path):
    image, truth, _ = tumour()
    keep_validation(tmp_path, "a", image, truth * 0, truth * 0)
    assert read_validation(tmp_path)["a"].z == (10,)


def test_what_was_inserted_is_not_shown_too_bright(tmp_path):
    image, label, _ = tumour()
    before = np.where(label > 0, image / 2, image)
    assert keep_example(tmp_path, 1, before, image * 3, label * 0, label, []) is True
    (example,) = read_examples(tmp_path)
    assert (example.levels[:, 1] > 300).all() and (example.levels[:, 0] < 100).all()


def test_a_sample_without_insertion_is_not_kept(tmp_path):
    image, label, _ = tumour()
    assert keep_example(tmp_path, 1, image, image, label, label, []) is False
    assert read_examples(tmp_path) == []


def test_slices_that_do_not_fit(tmp_path):
    image, truth, _ = tumour()
    with pytest.raises(ValueError, match=r"expected an image \(C, X, Y, Z\)"):
        keep_validation(tmp_path, "a", image, truth, truth[:-1])


# ------------------------------------------------------------------------------------------------ what is missing


def test_a_run_of_which_only_the_log_is_there(tmp_path):
    rows = [{"step": s, "critic": 1.0 / s, "style": 2.0, "validation": {"dice": {"WT": s / 10}}} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(write_run_report(tmp_path))
    for words in ("This run inserted nothing", "No rows of a validation", "No slices of validation", "No samples with"):
        assert words in page.text
    assert "0.300validation Dice WT" in page.text
    assert (page.charts, page.pictures) == (["curves over the steps"], {})


def test_curves_of_other_trainers_and_of_steering():
    rows = [
        {"step": 1, "critic": 2.0, "seconds_per_step": 1.0, "prob": 0.1},
        {"step": 2, "critic": 1.0, "prob": 0.2, "adaptive": {"weights": {"class ET": 1.5}}},
    ]
    assert top_level([{k: v for k, v in row.items() if k != "prob"} for row in rows]) == {
        "critic": ([1, 2], [2.0, 1.0])
    }
    assert steering_series(rows) == {"prob": ([1, 2], [0.1, 0.2]), "class ET": ([2], [1.5])}
    scores = [
        {"step": 1, "case": c, "region": r, "kind": k, "size": "all", "dice": d}
        for c, r, k, d in (("a", "WT", "region", 0.2), ("b", "WT", "region", 0.6), ("a", "NCR", "class", 0.9))
    ]
    assert validation_series(rows, scores, "dice") == {"WT": ([1], [pytest.approx(0.4)])}


@pytest.mark.parametrize("make", [False, True])
def test_no_folder_of_a_run(tmp_path, make):
    folder = tmp_path / "run"
    if make:
        folder.mkdir()
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 2
    assert "expected the folder of a run, with rows in metrics.jsonl" in result.output
    assert not (folder / "report.html").exists()


def test_without_matplotlib_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "synthaug\[demo\]"'):
        write_run_report(run)


# --------------------------------------------------------------------------------------------- shared pieces


def test_classes_have_colours_of_their_own():
    colours = class_colours(("core", "ET", "rim", "NCR"))
    assert len(set(colours.values())) == 4
    assert (colours["ET"], colours["NCR"]) == (COLOURS["ET"], COLOURS["NCR"])
    assert len(class_colours([str(i) for i in range(20)])) == 20
