"""The demo: its report tells what happened, looks the right way round, and is loud when nothing was inserted."""

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
from engine import toy_insertion
from PIL import Image

import synthaug.demo as demo
from synthaug import LesionBank
from synthaug.demo.brains import Brain, demo_brains
from synthaug.demo.examples import _example
from synthaug.demo.loop import CHANNELS, make_insertion
from synthaug.demo.pictures import COLUMNS, panels

STEPS = 3


@pytest.fixture(scope="module")
def brains() -> tuple[list[Brain], list[Brain]]:
    return demo_brains(0, simple=True)


@pytest.fixture
def made_brains(brains, monkeypatch):
    """Spare the test the time to make the phantoms again."""
    monkeypatch.setattr(demo, "demo_brains", lambda seed, simple: brains)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, brains) -> Path:
    """The files of one demo."""
    out = tmp_path_factory.mktemp("demo") / "not" / "there"
    random_states = torch.get_rng_state(), np.random.get_state()[1].copy()
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "demo_brains", lambda seed, simple: brains)
        assert demo.run_demo(out, simple=True, steps=STEPS) == out / "report.html"
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert (np.random.get_state()[1] == random_states[1]).all()
    assert torch.get_num_threads() == threads
    return out


class Page(HTMLParser):
    """Picture sources, tags and the cells of all table rows of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.pictures, self.charts, self.tags, self.rows, self.texts = [], [], [], [], []
        self.in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if ("role", "img") in attrs:
            self.charts.append(dict(attrs)["aria-label"])
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, data):
        self.texts.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data

    def value(self, name: str) -> str:
        """The second cell of the row whose first cell begins with `name`."""
        return next(row[1] for row in self.rows if len(row) == 2 and row[0].startswith(name))


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pixels(attrs: dict) -> np.ndarray:
    head, content = attrs["src"].split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content, validate=True))).convert("RGB"))


def test_the_report_has_the_counts_of_the_rows(folder):
    page, rows = Page(folder / "report.html"), rows_of(folder / "insertions.jsonl")
    done = [row for row in rows if row["outcome"] == "done"]
    assert len(done) >= 1
    assert int(page.value("samples seen")) == 2 * STEPS
    assert int(page.value("insertions asked for")) == len(rows)
    assert int(page.value("done")) == len(done)
    assert int(page.value("refused")) == len(rows) - len(done)
    for name in ("NCR", "ED", "ET"):
        assert int(page.value(name).replace(",", "")) == sum(row["voxels"][name] for row in done)
    assert page.value("diameter, largest") == f"{max(row['diameter_mm'] for row in done):.1f} mm"
    listed = [row for row in page.rows if len(row) == 7]
    assert [row[-1] for row in listed] == [row["reason"] for row in rows]


def test_the_examples_are_those_of_the_rows(folder):
    text = " ".join(Page(folder / "report.html").texts)
    done = [row for row in rows_of(folder / "examples.jsonl") if row["outcome"] == "done"]
    assert len(done) == 8
    for row in done:
        assert f"diameter {row['diameter_mm']:.1f} mm" in text
        assert f"centre at voxel {row['center_vox']}" in text
    swapped = [row for row in done if row["swaps"]]
    assert [row["swaps"] for row in swapped] == [{"ED": "ET", "ET": "NCR"}]
    assert swapped[0]["voxels"]["ED"] == 0


def test_the_pictures_decode_and_show_a_change(folder):
    page = Page(folder / "report.html")
    gallery, slices = [], []
    for attrs in page.pictures:
        if attrs.get("class") == "slice":
            slices.append(pixels(attrs))
        else:
            gallery.append(pixels(attrs))
    assert page.charts == ["loss over the training steps"] and "mean of the last 1" in " ".join(page.texts)
    assert len(slices) >= 8 * 3 and sum(np.ptp(picture.astype(int), axis=-1).max() > 40 for picture in slices) >= 8 * 3
    assert len(gallery) % len(COLUMNS) == 0 and len(gallery) >= 7 * len(COLUMNS)
    for start in range(0, len(gallery), len(COLUMNS)):
        row = gallery[start : start + len(COLUMNS)]
        assert {picture.shape for picture in row} == {row[0].shape}
        assert (row[0] != row[1]).any() and (row[2] != row[3]).any()
        colourful = [np.ptp(picture.astype(int), axis=-1).max() > 60 for picture in row]
        assert colourful == [False, False, False, False, True, True]


def test_the_page_needs_nothing_else(folder):
    page, text = Page(folder / "report.html"), (folder / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert len(text) < 5_000_000


def test_the_bank_opens_and_hosts_never_get_their_own_lesion(folder):
    bank = LesionBank.load(folder / "bank.safetensors")
    assert bank.groups == {"donor-1", "donor-2", "host-3"}
    assert all(row["donor_group"] != row["host_group"] for row in rows_of(folder / "insertions.jsonl"))


def test_a_second_run_replaces_its_own_files_only(folder, made_brains):
    before = {name: (folder / name).read_bytes() for name in demo.FILES}
    (folder / "mine.txt").write_text("mine")
    (folder / "insertions.jsonl").write_text("old\n")
    demo.run_demo(folder, simple=True, steps=STEPS)
    assert {path.name for path in folder.iterdir()} == {*demo.FILES, "mine.txt"}
    assert (folder / "mine.txt").read_text() == "mine"
    for name in ("insertions.jsonl", "examples.jsonl"):
        assert (folder / name).read_bytes() == before[name]


@pytest.mark.parametrize(
    ("options", "reason"), [({"prob": 0.0}, "none was asked for"), ({"min_voxels": 10**6}, "below the volume floor")]
)
def test_a_demo_that_inserted_nothing_raises_and_leaves_the_old_files(
    folder, made_brains, monkeypatch, options, reason
):
    def nothing(bank, audit, seed):
        insert = make_insertion(bank, audit, seed)
        return type(insert)(bank, channels=CHANNELS, seed=seed, audit=audit, **options)

    monkeypatch.setattr(demo, "make_insertion", nothing)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RuntimeError, match=f"no tumour in 2 training steps.*{reason}"):
        demo.run_demo(folder, simple=True, steps=2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_example_that_is_refused_raises(brains):
    with pytest.raises(RuntimeError, match="could not insert 'a title' into host-1 in 4 tries: below the volume floor"):
        _example("a title", "", toy_insertion(min_voxels=10**6), brains[1][0])


@pytest.mark.parametrize(("x", "y", "half"), [(8, 30, (0, 0)), (32, 30, (0, 1)), (8, 10, (1, 0))])
def test_pictures_have_the_left_on_the_left_and_the_front_above(x, y, half):
    before = np.random.default_rng(0).uniform(90, 110, (4, 40, 40, 12)).astype(np.float32)
    after, label = before.copy(), np.zeros((40, 40, 12), np.int16)
    place = (slice(x - 3, x + 3), slice(y - 3, y + 3), slice(4, 6))
    label[place], after[(slice(None), *place)] = 2, 160
    pictures, z = panels(before, after, np.zeros_like(label), label)
    assert z in (4, 5)
    for png in pictures[4:]:
        picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        rows, columns = np.nonzero(np.ptp(picture, axis=-1) > 60)
        assert (rows.mean() > picture.shape[0] / 2, columns.mean() > picture.shape[1] / 2) == half


def test_without_nilearn_the_brains_are_formulas_and_it_says_so(tmp_path, monkeypatch, capsys):
    asked = []

    def fill(folder, seed, simple, steps, say):
        asked.append(simple)
        for name in demo.FILES:
            (folder / name).write_text("")

    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setattr(demo, "_fill", fill)
    demo.run_demo(tmp_path)
    assert asked == [True]
    assert "nilearn is not installed" in capsys.readouterr().out


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "synthaug\[demo\]"'):
        demo.run_demo(tmp_path / "out", simple=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"), [({"steps": 0}, "steps: expected at least 1"), ({"seed": -1}, "seed: expected at least 0")]
)
def test_bad_numbers(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        demo.run_demo(tmp_path / "out", simple=True, **options)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ValueError, match="expected a folder"):
        demo.run_demo(tmp_path / "out", simple=True)
