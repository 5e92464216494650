"""What is measured on hand-made cases, how alike distributions are, and whether the advice fits and can be used."""

import io
import json
import math
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from synthaug import BRATS18, LesionBank, TumorInsertion, get_classes
from synthaug.classes import Classes
from synthaug.cli.app import app
from synthaug.config import read_config
from synthaug.imbalance import FILES, Measurements, compare_all, measure_folder, run_imbalance, suggest
from synthaug.imbalance.measure import MeasuredLesion
from synthaug.imbalance.separability import compare
from synthaug.imbalance.suggestion import chained_shares, tempered
from synthaug.training.segmentation_config import SegmentationConfig

ROOT = Path(__file__).parents[2]

LEVELS = {0: 100.0, 1: 60.0, 2: 140.0, 4: 220.0}


def write_case(folder: Path, name: str, label: np.ndarray, spacing: float = 1.0, seed: int = 0) -> None:
    """A case of BraTS 2018 in which each class has a level of its own on both channels, with noise of 10."""
    rng = np.random.default_rng(seed)
    affine = np.diag([spacing] * 3 + [1.0])
    (folder / name).mkdir(parents=True)
    for channel in ("flair", "t1ce"):
        image = np.vectorize(LEVELS.get)(label) + 10 * rng.standard_normal(label.shape)
        image[:3] = 0
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / name / f"{name}_{channel}.nii.gz")
    nib.save(nib.Nifti1Image(label.astype(np.int16), affine), folder / name / f"{name}_seg.nii.gz")


def cubes(*placed: tuple[int, int, int]) -> np.ndarray:
    """A label with cubes, each (class value, first voxel, side)."""
    label = np.zeros((32, 32, 32), np.int16)
    for value, start, side in placed:
        label[start : start + side, start : start + side, start : start + side] = value
    return label


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three cases: nested cubes; two lesions of one patient at 2 mm, one of them a speck; a case without tumour."""
    folder = tmp_path_factory.mktemp("cases")
    write_case(folder, "Brats18_A_1", cubes((2, 6, 12), (4, 8, 6), (1, 9, 3)))
    write_case(folder, "Brats18_B_1", cubes((2, 6, 8), (4, 8, 4), (2, 28, 2)), spacing=2.0, seed=1)
    write_case(folder, "Brats18_B_2", cubes(), seed=2)
    return folder


@pytest.fixture(scope="module")
def measured(folder) -> Measurements:
    return measure_folder(folder, BRATS18, ("flair", "t1ce"))


# ---------------------------------------------------------------------------------------------- measured


def test_volumes_are_in_voxels_and_ml(measured):
    assert measured.voxels.tolist() == [27, 1728 - 216 + 512 - 64 + 8, 216 - 27 + 64]
    expected = [[0.027, 1.512, 0.189], [0, 0.456 * 8, 0.064 * 8], [0, 0, 0]]
    np.testing.assert_allclose(measured.ml, expected)
    assert measured.voxel_mm3.tolist() == [1, 8, 1]
    ncr, ed, et = 0.027, 1.512 + 3.648, 0.189 + 0.512
    assert measured.shares == pytest.approx({"NCR": ncr / 5.888, "ED": ed / 5.888, "ET": et / 5.888})
    assert measured.ratio == pytest.approx(ed / ncr)
    assert (measured.present, measured.cases_with) == (("ED", "ET", "NCR"), {"NCR": 1, "ED": 2, "ET": 2})
    assert measured.host_ml[0] == pytest.approx((29 * 32 * 32 - 1728) / 1000, rel=0.01)


def test_lesions_of_the_tumour_and_of_its_classes(measured):
    assert [(x.case, x.group, x.voxels) for x in measured.lesions] == [
        ("Brats18_A_1", "A", 1728),
        ("Brats18_B_1", "B", 512),
    ]
    assert measured.lesions[1].diameter_mm == pytest.approx((6 * 512 * 8 / math.pi) ** (1 / 3))
    assert measured.lesions[0].parts_ml == pytest.approx((0.027, 1.512, 0.189))
    assert [x.voxels for x in measured.parts["ET"]] == [189, 64]
    assert measured.specks == {"all": 1, "NCR": 0, "ED": 1, "ET": 0}


def test_what_cannot_be_used_is_said(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_case(tmp_path, "Brats18_C_1", cubes((4, 6, 8)))
    (tmp_path / "Brats18_C_1" / "Brats18_C_1_t1ce.nii.gz").write_bytes(b"damaged")
    write_case(tmp_path, "Brats18_D_1", cubes((4, 6, 8)))
    labels = nib.load(tmp_path / "Brats18_D_1" / "Brats18_D_1_seg.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(labels.dataobj) // 4 * 3, labels.affine), labels.get_filename())
    measured = measure_folder(tmp_path, BRATS18, ("flair", "t1ce"))
    assert len(measured.cases) == 3
    assert "Brats18_C_1" in measured.left_out[0]
    assert "Brats18_D_1: label values [3] are not in BRATS18" in measured.left_out[1]


def test_a_folder_without_a_tumour(tmp_path):
    write_case(tmp_path, "Brats18_A_1", cubes())
    with pytest.raises(ValueError, match="1 labelled cases, none with a label other than 0"):
        measure_folder(tmp_path, BRATS18, ("flair", "t1ce"))


def test_the_drawn_voxels_follow_from_the_seed(folder, measured):
    again = measure_folder(folder, BRATS18, ("flair", "t1ce"))
    other = measure_folder(folder, BRATS18, ("flair", "t1ce"), seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(again.samples["ED"], measured.samples["ED"], strict=True))
    assert not np.array_equal(other.samples["host"][0], measured.samples["host"][0])


# ------------------------------------------------------------------------------------------- separability


def test_overlap_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    got = compare(rng.standard_normal(100_000), 1 + rng.standard_normal(100_000))
    assert got.auc == pytest.approx(0.7602, abs=0.005)  # Phi(1 / sqrt 2)
    assert got.overlap == pytest.approx(0.6171, abs=0.01)  # 2 Phi(-1 / 2)
    assert got.fisher == pytest.approx(0.5, abs=0.02)


def test_the_same_and_constant_distributions_are_not_told_apart():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(50_000)
    assert compare(values[::2], values[1::2]).auc == pytest.approx(0.5, abs=0.01)
    constant = compare(np.zeros(9), np.zeros(7))
    assert (constant.auc, constant.overlap, constant.fisher) == (0.5, 1, 0)


def test_channels_together_tell_what_none_tells_alone():
    rng = np.random.default_rng(0)
    common = 3 * rng.standard_normal((2, 20_000))
    a = np.stack((common[0], common[0] + 0.5 * rng.standard_normal(20_000)), 1)
    b = np.stack((common[1], common[1] + 2 + 0.5 * rng.standard_normal(20_000)), 1)
    (pair,) = compare_all({"a": a, "b": b, "none": np.zeros((0, 2))}, ("t1", "t2"))
    assert max(pair.by_channel[c].auc for c in ("t1", "t2")) < 0.7
    assert (pair.auc > 0.99, pair.words, pair.best_channel) == (True, "well", "t2")


# ------------------------------------------------------------------------------------------------- advice


def made(shares: dict[str, float], classes=BRATS18, diameters=(40, 50, 60), patients=12, levels=None) -> Measurements:
    """What would be measured of lesions with these diameters, of which each case has one."""
    rng = np.random.default_rng(0)
    levels = levels or {name: 3.0 * k for k, name in enumerate(classes.names)}
    samples = {n: [level + rng.standard_normal((500, 1))] for n, level in levels.items()}
    volumes = [math.pi / 6 * d**3 / 1000 for d in diameters]
    values = np.array([shares.get(name, 0) for name in classes.names])
    lesions = [
        MeasuredLesion(f"c{i}", f"p{i}", int(1000 * v), v, d)
        for i, (v, d) in enumerate(zip(volumes, diameters, strict=True))
    ]
    return Measurements(
        classes,
        ("t1",),
        27,
        cases={f"c{i}": f"p{i}" for i in range(max(patients, len(diameters)))},
        ml=np.array(volumes)[:, None] * values / values.sum(),
        host_ml=np.full(len(volumes), 1200.0),
        lesions=lesions,
        samples=samples,
    )


def advice(measured: Measurements):
    return suggest(
        measured, compare_all({n: np.concatenate(s) for n, s in measured.samples.items()}, measured.channels)
    )


def test_gliomas_led_by_oedema_get_the_swaps_of_the_paper():
    shares = {"NCR": 0.1, "ED": 0.7, "ET": 0.2}
    config = advice(made(shares)).config
    (first, second) = config["swaps"]
    assert (first[:2], second[:2], config["swap_draw"]) == (["ED", "ET"], ["ET", "NCR"], "joint")
    after, target = chained_shares(shares, first[2]), tempered(shares)
    assert sum(after.values()) == pytest.approx(1)
    for prob in (first[2] - 0.05, first[2] + 0.05):
        others = chained_shares(shares, prob)
        assert sum(abs(after[n] - target[n]) for n in shares) <= sum(abs(others[n] - target[n]) for n in shares)


@pytest.mark.parametrize(
    ("classes", "shares"),
    [(BRATS18, {"NCR": 0.5, "ED": 0.1, "ET": 0.4}), (Classes("x", {"core": 1, "rim": 2}), {"core": 0.9, "rim": 0.1})],
)
def test_other_data_get_a_class_mix_of_square_roots(classes, shares):
    suggestion = advice(made(shares, classes))
    assert suggestion.config["class_mix"] == pytest.approx(tempered(shares), abs=0.011)
    assert sum(suggestion.config["class_mix"].values()) == pytest.approx(1)
    assert "swaps" not in suggestion.config


def test_balanced_classes_are_left_alone():
    suggestion = advice(made({"NCR": 0.3, "ED": 0.4, "ET": 0.3}))
    assert not {"swaps", "class_mix"} & set(suggestion.config)
    assert "near to balanced" in " ".join(suggestion.notes)


def test_classes_that_look_alike_are_not_renamed():
    alike = made({"NCR": 0.1, "ED": 0.7, "ET": 0.2}, levels={"NCR": 0.0, "ED": 4.0, "ET": 4.2})
    suggestion = advice(alike)
    assert not {"swaps", "class_mix"} & set(suggestion.config)
    assert "hardly tells apart ED from ET" in " ".join(suggestion.notes)


def test_one_class_has_nothing_to_swap():
    suggestion = advice(made({"tumour": 1.0}, Classes("one", {"tumour": 1})))
    assert not {"swaps", "class_mix"} & set(suggestion.config)


def test_large_lesions_are_scaled_down_to_what_is_measurable():
    suggestion = advice(made({"NCR": 1, "ED": 1, "ET": 1}, diameters=(45, 50, 55)))
    assert suggestion.config["scale"] == [0.2, 0.8]
    assert suggestion.diameters_mm.min() >= 9 and suggestion.diameters_mm.max() <= 44
    small = advice(made({"NCR": 1, "ED": 1, "ET": 1}, diameters=(6, 9, 12)))
    assert small.config["scale"] == [0.7, 1.3]


def test_the_scale_keeps_half_of_the_lesions_above_the_floor():
    measured = made({"NCR": 1, "ED": 1, "ET": 1}, diameters=(45, 50, 55))
    measured.lesions = [
        MeasuredLesion(x.case, x.group, 700, x.ml, x.diameter_mm) for x in measured.lesions
    ]  # thick slices
    low, _ = advice(measured).config["scale"]
    assert 700 * low**3 >= 27 > 700 * (low - 0.1) ** 3


def test_many_patients_get_fewer_insertions():
    few, many = (made({"NCR": 1, "ED": 1, "ET": 1}, patients=n) for n in (12, 300))
    assert (advice(few).config["prob"], advice(many).config["prob"]) == (0.6, 0.4)


def test_without_a_donor_shapes_are_taken():
    measured = made({"NCR": 1, "ED": 1, "ET": 1})
    measured.lesions = []
    assert advice(measured).config == {"lesions": "shapes", "generator": "procedural"}


# -------------------------------------------------------------------------------------------------- files


def loaded(suggestion_file: Path, tmp_path: Path) -> SegmentationConfig:
    """The tiny configuration with the suggestion in place of its insertion, as a user would paste it."""
    tiny = (ROOT / "configs" / "segmentation_tiny.yaml").read_text(encoding="utf-8")
    rest = re.sub(r"^insertion:.*?(?=^\w|\Z)", "", tiny, flags=re.M | re.S)
    (tmp_path / "config.yaml").write_text(rest + "\n" + suggestion_file.read_text(encoding="utf-8"))
    return read_config(tmp_path / "config.yaml", SegmentationConfig)


def test_the_folder_of_the_report(folder, tmp_path):
    result = CliRunner().invoke(app, ["imbalance", str(folder), "--out", str(tmp_path), "--channels", "flair,t1ce"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    assert "imbalance ratio of the classes: 191.1 (ED > ET > NCR)" in result.output
    figures = json.loads((tmp_path / "imbalance.json").read_text())
    assert figures["classes"][2] == {
        "class": "ET",
        "voxels": 253,
        "ml": 0.701,
        "share": round(0.701 / 5.888, 4),
        "cases": 2,
        "lesions": 2,
        "specks": 0,
        "median_mm": round(np.median([(6 * v / math.pi) ** (1 / 3) for v in (189, 512)]), 2),
    }
    assert [(row["size"], row["whole"], row["ET"]) for row in figures["sizes"]] == [
        ("small", 0, 2),
        ("medium", 2, 0),
        ("large", 0, 0),
    ]
    page = (tmp_path / "imbalance.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|url\((?!#)", page)
    assert "Suggested insertion" in page and "191.1 : 1" in page
    assert np.asarray(Image.open(io.BytesIO((tmp_path / "imbalance.png").read_bytes()))).std() > 10


def test_the_suggestion_is_an_insertion_section(folder, tmp_path):
    run_imbalance(folder, tmp_path, channels=("flair", "t1ce"))
    config = loaded(tmp_path / "insertion.yaml", tmp_path).insertion
    written = yaml.safe_load((tmp_path / "insertion.yaml").read_text())["insertion"]
    assert {"swaps", "scale", "prob", "second"} <= set(written)
    assert (config.prob, list(config.scale)) == (written["prob"], written["scale"])
    assert [list(swap) for swap in config.swaps] == written["swaps"]
    bank = LesionBank.from_folder(folder, BRATS18, ("flair", "t1ce"))
    arguments = {k: v for k, v in written.items() if k != "lesions"}
    TumorInsertion(bank, channels=("flair", "t1ce"), **arguments)


@pytest.mark.parametrize("kind", ["class_mix", "shapes", "plain"])
def test_suggestions_of_every_kind_can_be_loaded(kind, tmp_path):
    measured = made({"NCR": 0.5, "ED": 0.1, "ET": 0.4} if kind == "class_mix" else {"NCR": 1, "ED": 1, "ET": 1})
    if kind == "shapes":
        measured.lesions = []
    suggestion = advice(measured)
    (tmp_path / "insertion.yaml").write_text(suggestion.yaml())
    config = loaded(tmp_path / "insertion.yaml", tmp_path).insertion
    assert config.class_mix == suggestion.config.get("class_mix")
    assert config.lesions == suggestion.config["lesions"]


def test_bad_folders_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, words in (
        ([str(tmp_path / "none")], "expected a folder of cases"),
        ([str(tmp_path), "--out", str(tmp_path / "file")], "out: expected a folder, got the file"),
        ([str(tmp_path), "--classes", "tumour=x"], "expected NAME=VALUE"),
    ):
        result = CliRunner().invoke(app, ["imbalance", *arguments])
        assert result.exit_code == 2
        assert words in result.output


def test_classes_may_be_named_on_the_command_line():
    assert dict(get_classes("core=1, rim=3").values) == {"core": 1, "rim": 3}
    with pytest.raises(ValueError, match="share the value 1"):
        get_classes("core=1,rim=1")


@pytest.mark.slow
@pytest.mark.real_data
def test_real_gliomas(real_data, tmp_path):
    text = run_imbalance(real_data / "brats", tmp_path)
    figures = json.loads((tmp_path / "imbalance.json").read_text())
    shares = {row["class"]: row["share"] for row in figures["classes"]}
    assert shares["ED"] > shares["NCR"] > shares["ET"]
    best = {(p["first"], p["second"]): p["channels"] for p in figures["pairs"]}
    assert max(("flair", "t1", "t1ce", "t2"), key=lambda c: best["NCR", "ET"][c]["auc"]) == "t1ce"
    assert max(("flair", "t1", "t1ce", "t2"), key=lambda c: best["host", "ED"][c]["auc"]) == "flair"
    assert loaded(tmp_path / "insertion.yaml", tmp_path).insertion.swaps[0][:2] == ("ED", "ET")
    assert "ET is missing, or below 2% of the tumour, in 2 of 12 cases" in text
