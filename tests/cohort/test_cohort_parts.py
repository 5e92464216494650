"""Parts of the making of cohorts: folds without leaks, the gate, stored values, the pipeline."""

import json
import threading
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from cohort_tools import assert_exact_outside, cohort_config, contents, manifest, plain_reports
from engine import toy_bank, toy_gan
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer

from synthaug import BRATS18, LesionBank, LesionSampler, LesionShapes
from synthaug.cohort import generate
from synthaug.cohort.case_insertion import dominated
from synthaug.cohort.config import CohortConfig, GateConfig
from synthaug.cohort.encoding import Items, json_bytes, json_pieces, table_bytes, table_pieces
from synthaug.cohort.gate import Gate, border_jump
from synthaug.cohort.hosts import read_host
from synthaug.cohort.layouts import make_layout
from synthaug.cohort.pipeline import Failure, overlapped
from synthaug.cohort.segmenter import load_segmenter
from synthaug.cohort.splits import LeakProof, made_folds, read_folds
from synthaug.config import ConfigError
from synthaug.data import Case, find_cases
from synthaug.data.nifti import nifti_bytes, read_stored
from synthaug.segmentation.model import ModelConfig, save_model
from synthaug.segmentation.networks import named_tensors

MODEL = {
    "channels": ("t1", "t2"),
    "classes_name": "BRATS18",
    "classes": {"NCR": 1, "ED": 2, "ET": 4},
    "regions": {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
    "region_outputs": False,
    "network": {"name": "DynUNet", "filters": (4, 8, 8), "strides": (1, 2, 2), "deep_supervision": 0},
    "patch_size": (32, 32, 32),
    "spacing_mm": None,
    "inference": {"overlap": 0.25, "windows": 1, "mirror": ()},
    "postprocessing": {},
}

# ---------------------------------------------------------------------------------------------------- folds


plain_report = pytest.fixture(autouse=True)(plain_reports)


def record(name, host, donors):
    return {"case": name, "host_group": host, "lesions": [{"donor_group": d} for d in donors]}


def as_written(value):
    return json.loads(b"".join(json_pieces(value)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_patient_is_ever_in_a_synthetic_case_and_validated(data):
    patients = [f"p{i}" for i in range(data.draw(st.integers(3, 9)))]
    cases = {f"{p}-{visit}": p for p in patients for visit in range(data.draw(st.integers(1, 3)))}
    folds = made_folds(cases, data.draw(st.integers(2, 3)), data.draw(st.integers(0, 99)))
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(cases)
    one = st.sampled_from(patients)
    made = [
        record(f"s{i}", data.draw(one), data.draw(st.lists(st.none() | one, min_size=1, max_size=3)))
        for i in range(data.draw(st.integers(0, 8)))
    ]
    result = as_written(LeakProof(folds, cases, str, "refuse").with_cases(made))
    for before, after in zip(folds, result, strict=True):
        assert after["val"] == before["val"] and after["train"][: len(before["train"])] == before["train"]
        validated = {cases[name] for name in after["val"]}
        for row in made:
            own = {row["host_group"], *(x["donor_group"] for x in row["lesions"])}
            assert (row["case"] in after["train"]) == (not own & validated)


def test_folds_that_leak_or_are_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="fold 0 trains on and validates patient a"):
        LeakProof([{"train": ["a-1"], "val": ["a-2"]}], {"a-1": "a", "a-2": "a"}, str, "refuse")
    with pytest.raises(ConfigError, match="at least 3 patients"):
        made_folds({"a": "a", "b": "b"}, 3, 0)
    (tmp_path / "s.json").write_text('{"train": []}')
    with pytest.raises(ConfigError, match="expected a list"):
        read_folds(tmp_path / "s.json")


def test_strangers_need_to_be_told(tmp_path):
    folds = [{"train": ["a"], "val": ["b"]}]
    with pytest.raises(ConfigError, match="do not mention 1 of the hosts: c"):
        LeakProof(folds, {}, str, "refuse").check(["a", "c"], "hosts")
    splits = LeakProof(folds, {}, str, "train")
    splits.check(["a", "c"], "hosts")
    assert as_written(splits.with_cases([record("s", "c", ["a"])]))[0]["train"] == ["a", "s"]


def test_given_folds_are_kept_and_joined(phantom_folder, tmp_path):
    LesionBank.from_folder(phantom_folder, BRATS18).save(tmp_path / "bank.safetensors")
    names = [case.name for case in find_cases(phantom_folder)]
    folds = [{"train": names[1:], "val": names[:1]}, {"train": names[:1], "val": names[1:]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    splits = {"folds": tmp_path / "splits_final.json"}
    config = cohort_config(phantom_folder, tmp_path / "bank.safetensors", splits=splits)
    generate(config, tmp_path / "c")
    made = json.loads((tmp_path / "c" / "splits_final.json").read_text())
    assert [fold["val"] for fold in made] == [fold["val"] for fold in folds]
    free = {row["case"] for row in manifest(tmp_path / "c") if names[0] not in (row["host"], row["donor_case"])}
    assert set(made[0]["train"]) == {*names[1:], *free}
    assert made[1]["train"] == names[:1]  # every host is trained on in one fold at most, and no donor is its own host


# ----------------------------------------------------------------------------------------------------- gate


@pytest.fixture(scope="module")
def inserted(phantom_folder):
    """A host with a lesion of the bank's own looks, and a function that measures a changed one."""
    bank = LesionBank.from_folder(phantom_folder, BRATS18)
    config = CohortConfig(
        cases=phantom_folder, layout="brats", count=1, classes="BRATS18", channels=("flair", "t1", "t1ce", "t2")
    )
    host = read_host(find_cases(phantom_folder)[-1], config)
    donor = max(bank, key=lambda lesion: sum(lesion.voxels))
    mask = bank.mask(donor.name, torch.device("cpu"))
    z = bank.intensities(donor.name, range(4), torch.device("cpu"))
    place = tuple(slice(2, 2 + n) for n in mask.shape)
    box = [min(n, v) for n, v in zip(mask.shape, host.image.shape[2:], strict=True)]
    assert list(mask.shape) == box
    label = host.label[0].clone()
    values = torch.tensor([0, *BRATS18.values.values()], dtype=label.dtype)
    label[place] = values[mask.long()]
    mean, std = (torch.tensor(v).reshape(-1, 1, 1, 1) for v in (host.mean, host.std))

    def image(change=lambda z: z):
        out = host.image[0].clone()
        out[(slice(None), *place)] = torch.where(mask > 0, change(z) * std + mean, out[(slice(None), *place)])
        return out

    return bank, host, image, label, label != host.label[0]


def test_the_gate_knows_the_banks_own_lesions_from_strange_ones(inserted):
    bank, host, image, label, lesion = inserted
    gate = Gate(GateConfig(deviation=4, border_jump=20), bank, BRATS18, bank.channels)
    measured, reason = gate.look(host, image(), label, lesion)
    assert reason is None and measured["deviation"] < 3 and measured["border_jump"] < 20
    brighter, reason = gate.look(host, image(lambda z: z + 40), label, lesion)
    assert brighter["deviation"] > measured["deviation"] + 2 and "unlike the bank" in reason
    only_border = Gate(GateConfig(deviation=None, border_jump=20), bank, BRATS18, bank.channels)
    measured, reason = only_border.look(host, image(lambda z: z + 300), label, lesion)
    assert set(measured) == {"border_jump"} and "border" in reason


@pytest.mark.parametrize(("finds", "passes"), [(True, True), (False, False)])
def test_the_gate_asks_a_segmenter(inserted, finds, passes):
    bank, host, image, label, lesion = inserted
    seen = []

    def segmenter(z):
        seen.append(z)
        whole = torch.zeros(1, 4, *z.shape[2:])
        whole[:, 1 if finds else 0] = 1
        return whole

    config = GateConfig(deviation=None, border_jump=None, agreement=0.05)
    gate = Gate(config, bank, BRATS18, bank.channels, segmenter)
    measured, reason = gate.look(host, image(), label, lesion)
    assert (reason is None) == passes and (measured["agreement"] > 0.05) == passes
    assert all(n % 32 == 0 for n in seen[0].shape[2:]) and seen[0].shape[:2] == (1, 4)


def test_a_gate_without_what_it_needs_is_refused():
    for config, lesions, word in (
        (GateConfig(), LesionShapes(), "expected lesions.bank"),
        (GateConfig(agreement=0.5), toy_bank(), "go together"),
    ):
        with pytest.raises(ConfigError, match=word):
            Gate(config, lesions, BRATS18, ("flair", "t1", "t1ce", "t2"))


def test_refusals_of_the_gate_are_tried_again_and_in_the_report(phantom_folder, tmp_path):
    LesionBank.from_folder(phantom_folder, BRATS18).save(tmp_path / "bank.safetensors")
    answers = []

    def segmenter(z):
        """Agrees with every second lesion."""
        answers.append(len(answers) % 2)
        out = torch.zeros(1, 4, *z.shape[2:])
        out[:, 3 * answers[-1]] = 1
        return out

    gate = {"deviation": None, "border_jump": None, "agreement": 0.0001}
    config = cohort_config(phantom_folder, tmp_path / "bank.safetensors", count=2, gate=gate)
    assert generate(config, tmp_path / "c", segmenter=segmenter).complete
    rows = manifest(tmp_path / "c")
    assert all(row["attempt"] > 0 and row["quality"]["agreement"] > 0 for row in rows)
    summary = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert summary["refused"]["gate: the segmenter does not agree"] == 2
    assert "the segmenter does not agree" in (tmp_path / "c" / "report.html").read_text()


def test_a_trained_model_is_loaded_as_a_segmenter(tmp_path):
    config = ModelConfig.model_validate(MODEL)
    network = config.make_network()
    save_model(tmp_path / "model", config, named_tensors(network))
    z = torch.randn(1, 2, 48, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = load_segmenter(tmp_path, ("t1", "t2"))(z)
    assert logits.shape == (1, 2, 48, 32, 32)
    windows = SlidingWindowInferer((32, 32, 32), 1, 0.25, mode="gaussian")
    expected = windows(z, network.eval()).argmax(1) > 0
    assert ((logits.argmax(1) > 0) == expected).float().mean() > 0.99
    with pytest.raises(ConfigError, match="was trained on t1, t2; the cohort has t2, t1"):
        load_segmenter(tmp_path, ("t2", "t1"))
    with pytest.raises(ConfigError, match="no trained model"):
        load_segmenter(tmp_path / "none", ("t1", "t2"))


def test_border_jump_is_the_mean_step_across_the_border():
    z = torch.zeros(2, 6, 6, 6)
    lesion = torch.zeros(6, 6, 6, dtype=torch.bool)
    lesion[2:4, 2:4, 2:4] = True
    z[0, lesion] = 3.0
    assert border_jump(z, lesion) == pytest.approx(1.5)


# --------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "float32", "float64"])
@pytest.mark.parametrize("slope", [(1.0, 0.0), (0.5, -3.0)])
@pytest.mark.parametrize("layout", ["brats", "msd"])
def test_stored_values_headers_and_scale_factors_are_kept(tmp_path, dtype, slope, layout):
    shape, affine = (20, 21, 22), np.diag([1.0, 1.1, 2.0, 1.0])
    rng = np.random.default_rng(0)
    files = {}
    for name in ("t1", "t2"):
        raw = rng.integers(1, 200, shape).astype(dtype)
        header = nib.Nifti1Header(endianness=">" if dtype == ">i2" else "<")
        header.set_data_dtype(dtype)
        header["descrip"] = b"scanner 7"
        image = nib.Nifti1Image(raw, affine, header)
        image.header.set_slope_inter(*slope)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept"))
        files[name] = tmp_path / f"x_{name}.nii.gz"
        nib.save(image, files[name])
    config = CohortConfig(cases=tmp_path, layout=layout, count=1, classes="BRATS18", channels=("t1", "t2"))
    host = read_host(Case("x", "x", files, None), config)
    new = host.image[0].numpy().copy()
    new[:, 5:8, 5:8, 5:8] = 1e6 if dtype == "uint8" else 70.3
    label = np.zeros(shape, np.int16)
    label[5:8, 5:8, 5:8] = 4
    made = make_layout(config).case_files("y", host, new, label)
    for path, content in made.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for number, name in enumerate(("t1", "t2")):
        before = read_stored("x", files[name], 1)
        path = tmp_path / make_layout(config).image_paths("y")[number if layout == "brats" else 0]
        after = read_stored("y", path, 1 if layout == "brats" else 2)
        raw = after.raw if layout == "brats" else after.raw[..., number]
        assert raw.dtype == before.raw.dtype and (after.slope, after.inter) == slope
        assert np.array_equal(raw[label == 0], before.raw[label == 0])
        limit = np.iinfo(np.uint8).max if dtype == "uint8" else (70.3 - slope[1]) / slope[0]
        assert np.abs(raw[label != 0].astype(float) - limit).max() <= 0.51
        assert after.header["descrip"] == b"scanner 7" and after.header.extensions[0].get_content() == b"kept"
        if layout == "brats":
            assert after.header.binaryblock == before.header.binaryblock


def test_the_same_voxels_are_the_same_bytes_at_any_time(monkeypatch):
    header, raw = nib.Nifti1Header(), np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    first = nifti_bytes(header, raw)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert nifti_bytes(header, raw) == first
    assert np.array_equal(nib.Nifti1Image.from_bytes(nifti_bytes(header, raw, None)).dataobj, raw)


# ------------------------------------------------------------------------------------------------- pipeline


def test_steps_overlap_and_results_come_in_order():
    reading, writing = threading.Event(), threading.Event()

    def read(item):
        if item == 1:
            reading.set()
        return item

    def work(item, found):
        if item == 0:
            assert reading.wait(10), "the next item is read while this one is worked on"
        if item == 1:
            assert writing.wait(10), "the last item is written while this one is worked on"
        return found * 10

    def write(item, made):
        if item == 0:
            writing.set()
        return made + 1

    assert list(overlapped(range(4), read, work, write, 2)) == [(0, 1), (1, 11), (2, 21), (3, 31)]


def test_a_failure_is_of_its_item_alone_and_few_are_in_memory():
    alive, most = set(), []

    def read(item):
        alive.add(item)
        most.append(len(alive))
        return item

    def work(item, found):
        if item == 3:
            alive.discard(item)
            raise ValueError("no")
        return found

    def write(item, made):
        alive.discard(item)
        if item == 5:
            raise OSError("full")

    results = dict(overlapped(range(30), read, work, write, 2))
    assert {i for i, r in results.items() if isinstance(r, Failure)} == {3, 5}
    assert max(most) <= 6
    with pytest.raises(RuntimeError, match="a fault"):
        list(overlapped(range(3), read, lambda *_: raise_fault(), write, 2))


def raise_fault():
    raise RuntimeError("a fault")


def test_a_trained_generator_paints_and_its_weights_are_in_the_manifest(phantom_folder, tmp_path):
    gan, other = toy_gan(), toy_gan(seed=1)
    config = cohort_config(phantom_folder, None, count=1, lesions={"scale": None, "diameter_mm": (10, 12)})
    assert generate(config, tmp_path / "a", generator=gan).complete
    assert generate(config, tmp_path / "b", generator=other).complete
    (first,), (second,) = manifest(tmp_path / "a"), manifest(tmp_path / "b")
    assert first["generator"]["name"] == "GANGenerator" and len(first["generator"]["sha256"]) == 64
    assert first["generator"]["sha256"] != second["generator"]["sha256"]
    with pytest.raises(ConfigError, match=r"generator.sha256 was"):
        generate(config, tmp_path / "a", generator=other)
    with pytest.raises(ConfigError, match="generator: unexpected steps"):
        generate(config.model_copy(update={"generator_options": {"steps": 2}}), tmp_path / "c", generator=gan)


# ------------------------------------------------------------------------------------------- sampled masks


def test_masks_are_sampled_and_come_out_the_same_in_any_number_of_goes(tiny_hosts, tmp_path):
    LesionSampler.fit(toy_bank(5)).save(tmp_path / "sampler.safetensors")
    lesions = {"scale": None, "diameter_mm": (6, 9)}
    config = cohort_config(tiny_hosts, tmp_path / "sampler.safetensors", lesions=lesions, generator="procedural")
    assert generate(config, tmp_path / "whole").complete
    assert generate(config, tmp_path / "parts", shard="1/2").made == 2
    assert generate(config, tmp_path / "parts").complete
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    rows = manifest(tmp_path / "whole")
    assert all(row["donor"].startswith("sampled:") and row["donor_group"] is None for row in rows)
    assert assert_exact_outside(tmp_path / "whole", tiny_hosts) == 4
    with pytest.raises(ConfigError, match="paste needs a bank's lesions, got a sampler of masks"):
        generate(config.model_copy(update={"generator": "paste"}), tmp_path / "pasted")


def test_a_sampler_is_asked_for_the_class_of_a_balanced_set():
    sampler = LesionSampler.fit(toy_bank(5))
    for number, name in enumerate(BRATS18.names):
        voxels = dominated(sampler, name, BRATS18).lesion("sampled:7").voxels
        assert voxels[number] == max(voxels)


# ------------------------------------------------------------------------------------------ piece by piece


@pytest.mark.parametrize("values", [[], ["a"], ["a", {"b": [1, 2], "c": {}}, [], None, 'quote " and é']])
def test_json_in_pieces_is_json(values):
    whole = {"first": values, "deeper": [{"x": values, "y": 1.5}], "last": True}
    lazy = {
        "first": Items(lambda: iter(values)),
        "deeper": [{"x": Items(lambda: iter(values)), "y": 1.5}],
        "last": True,
    }
    assert b"".join(json_pieces(lazy)) == json_bytes(whole)


def test_a_table_in_pieces_is_a_table():
    rows = [(1, "a,b"), (2, None)]
    assert b"".join(table_pieces(("n", "text"), iter(rows))) == table_bytes(("n", "text"), rows)
