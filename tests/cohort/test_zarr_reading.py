"""Cohorts in OME-Zarr read by our own readers: the same cases, voxels and losses as from files, and clear errors."""

import json
import shutil
import sys
from types import SimpleNamespace

import fsspec
import nibabel as nib
import numpy as np
import pytest
import segmentation_runs
from cohort_tools import NNUNET_VALUES, tiny_config
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.cohort import generate
from synthaug.data import CaseError, find_cases, load_case, write_phantom_dataset
from synthaug.data.dataset import find_dataset
from synthaug.data.nifti import nifti_bytes, nifti_of, read_stored
from synthaug.data.writing import write_case
from synthaug.remote import local_folder
from synthaug.trial.folder import bytes_of
from synthaug.view.shown import channel_file, find_shown, is_compressed

pytest.importorskip("zarr", reason="the extra zarr is not installed")
clean_process, folder, run = segmentation_runs.clean_process, segmentation_runs.folder, segmentation_runs.run

CHANNELS = ("flair", "t1", "t1ce", "t2")
SCALINGS = {
    "unscaled": dict.fromkeys(CHANNELS, None),
    "scaled": dict.fromkeys(CHANNELS, (0.37, -12.5)),
    "mixed": dict.fromkeys(CHANNELS, None) | {"t2": (0.1, 3.0)},
}


@pytest.fixture(scope="module", params=SCALINGS)
def cohorts(request, tmp_path_factory):
    """Three synthetic and two real cases on an oblique grid, in files, in OME-Zarr and in OME-Zarr of float16."""
    place = tmp_path_factory.mktemp(request.param)
    oblique_hosts(place / "hosts", SCALINGS[request.param])
    config = tiny_config(place / "hosts", count=3, include_real=True)
    half = {"layout": "zarr", "packing": config.packing.model_copy(update={"dtype": "float16", "chunk_vox": 16})}
    changes = {"files": {"layout": "nnunet"}, "zarr": {"layout": "zarr"}, "float16": half}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthaug.cohort.production.write_cohort_report", lambda store, *_: store.write("r", {}))
        for name, change in changes.items():
            assert generate(config.model_copy(update=change), place / name).complete
    return SimpleNamespace(**{name: place / name for name in changes}, name=request.param)


def oblique_hosts(folder, scalings):
    """Two phantoms, one without a tumour, whose axes are oblique and whose voxels are no cubes."""
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([0.9, 1.0, 1.1])
    affine = nib.affines.from_matvec(turn.astype(np.float32), [-31.25, 17.3, 4.1])
    for case in write_phantom_dataset(folder, count=2, seed=5, size=(40, 40, 40), tumour_free=1):
        for name, path in {**case.images, "seg": case.label}.items():
            stored = read_stored(case.name, path, 1)
            stored.header.set_sform(affine, 1)
            stored.header.set_qform(None, 0)
            path.write_bytes(nifti_bytes(stored.header, stored.raw, 1, scalings.get(name)))


def pairs(first, second):
    found = [find_cases(folder) for folder in (first, second)]
    assert [(c.name, c.group, tuple(c.images)) for c in found[0]] == [
        (c.name, c.group, tuple(c.images)) for c in found[1]
    ]
    return zip(*found, strict=True)


def as_nnunet(label):
    return np.vectorize(NNUNET_VALUES.get)(label)


def test_cases_have_the_voxels_and_places_of_those_in_files(cohorts):
    read = 0
    for in_files, packed in pairs(cohorts.files, cohorts.zarr):
        a, b = (load_case(case, CHANNELS) for case in (in_files, packed))
        assert np.array_equal(a.image, b.image) and a.image.dtype == b.image.dtype
        assert np.array_equal(as_nnunet(b.label), a.label) and np.array_equal(a.affine, b.affine)
        assert a.spacing_mm == b.spacing_mm
        read += 1
    assert read == 5
    files, packed = (find_dataset(folder) for folder in (cohorts.files, cohorts.zarr))
    assert files.channels == packed.channels and packed.classes.values == {"NCR": 1, "ED": 2, "ET": 4}
    assert files.classes.values == {name: NNUNET_VALUES[value] for name, value in packed.classes.values.items()}


def test_float16_is_within_its_rounding(cohorts):
    for in_files, packed in pairs(cohorts.files, cohorts.float16):
        a, b = (load_case(case, CHANNELS) for case in (in_files, packed))
        assert np.array_equal(a.image.astype(np.float16), b.image) and np.array_equal(a.label, as_nnunet(b.label))
        assert np.array_equal(a.affine, b.affine) and a.spacing_mm == b.spacing_mm
        assert not np.array_equal(a.image, b.image) or cohorts.name == "unscaled"


def test_one_channel_is_read_without_the_others(cohorts, tmp_path):
    shutil.copytree(cohorts.zarr / "synth_000000.ome.zarr", tmp_path / "synth_000000.ome.zarr")
    for number in (0, 1, 3):
        shutil.rmtree(tmp_path / "synth_000000.ome.zarr" / "0" / "c" / str(number))
    (case,) = find_cases(tmp_path / "synth_000000.ome.zarr")
    expected = load_case(find_cases(cohorts.files)[-3], ("t1ce",))
    assert np.array_equal(load_case(case, ("t1ce",)).image, expected.image)
    with pytest.raises(CaseError, match=r"synth_000000: half-written, no .*0/c/3/0/0/0"):
        load_case(case, ("t2",))


def test_cases_go_on_to_files_with_their_places(cohorts, tmp_path):
    case, same = find_cases(cohorts.zarr)[-1], find_cases(cohorts.files)[-1]
    volume = load_case(case, CHANNELS)
    files = write_case(case, {"t1": volume.image[1]}, volume.label, tmp_path / case.name)
    assert [path.name for path in files] == [f"synth_000002_{c}.nii.gz" for c in (*case.images, "seg")]
    (again,) = find_cases(tmp_path)
    expected, written = load_case(same, CHANNELS), load_case(again, CHANNELS)
    assert np.array_equal(written.image, expected.image) and np.array_equal(written.affine, expected.affine)
    shown = find_shown(cohorts.zarr / case.name).cases[0]
    served = nifti_of(channel_file(shown, "t2"))
    assert np.allclose(served.get_fdata(), expected.image[3], atol=1e-4) and not is_compressed(shown, "t2")
    assert bytes_of(case) > bytes_of(again)


@pytest.mark.parametrize("cohorts", ["scaled"], indirect=True)
def test_a_cohort_is_listed_and_inserted_into_again(cohorts, tmp_path):
    shutil.copytree(cohorts.zarr / "synth_000001.ome.zarr", tmp_path / "one" / "synth_000001.ome.zarr")
    said = CliRunner().invoke(app, ["inspect", str(tmp_path / "one")])
    assert said.exit_code == 0 and "40 x 40 x 40 voxels of 0.9 x 1 x 1.1 mm" in said.output
    outs = {}
    for name in ("files", "zarr"):
        config = tiny_config(getattr(cohorts, name), count=1, seed=9)
        assert generate(config, tmp_path / name).complete
        outs[name] = load_case(find_cases(tmp_path / name)[0], CHANNELS)
    assert np.array_equal(outs["files"].image, outs["zarr"].image)
    assert np.array_equal(outs["files"].label, outs["zarr"].label)


@pytest.mark.parametrize("cohorts", ["unscaled"], indirect=True)
def test_a_cohort_in_a_store_is_fetched_whole(cohorts, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").put(f"{cohorts.zarr}/", "/zarr-bucket/c/", recursive=True)
    for near, fetched in pairs(cohorts.zarr, local_folder("memory://zarr-bucket/c")):
        assert np.array_equal(load_case(near, CHANNELS).image, load_case(fetched, CHANNELS).image)


@pytest.mark.parametrize("cohorts", ["scaled"], indirect=True)
def test_a_training_has_the_losses_of_one_from_files(cohorts, run):
    rows = {}
    for name, layout in (("files", "nnunet"), ("zarr", "zarr"), ("float16", "zarr")):
        data = {"folder": getattr(cohorts, name), "layout": layout, "channels": list(CHANNELS)}
        given = [f"data.{key}={value}" for key, value in data.items()]
        rows[name] = run(*given, "data.validation=[synth_000002]", "insertion=null", out=name)
    losses = {name: [row["loss"] for row in found if "loss" in row] for name, found in rows.items()}
    assert len(losses["zarr"]) >= segmentation_runs.TINY["optimizer"]["steps"] / segmentation_runs.TINY["log_every"]
    assert losses["zarr"] == losses["files"]
    assert losses["float16"] == pytest.approx(losses["files"], rel=0.01)


def damaged(place, change):
    """Change what a file of JSON says; `change` gets its content."""
    content = json.loads(place.read_text())
    change(content)
    place.write_text(json.dumps(content))


def older(content):
    content["attributes"]["ome"]["version"] = "0.4"


def foreign(content):
    del content["attributes"]["synthaug"]


def zarr_2(content):
    content["zarr_format"] = 2


@pytest.mark.parametrize("cohorts", ["unscaled"], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda case: (case / "zarr.json").unlink(), r"synth_000001.ome.zarr: half-written, no zarr.json"),
        (lambda case: shutil.rmtree(case / "labels"), r"half-written, no labels/tumour/zarr.json"),
        (lambda case: (case / "zarr.json").write_text("{"), r"zarr.json: damaged"),
        (lambda case: (case / "zarr.json").rename(case / ".zattrs"), r"expected OME-Zarr 0.5, got a version before"),
        (lambda case: damaged(case / "zarr.json", older), r"expected OME-Zarr 0.5, got version 0.4"),
        (lambda case: damaged(case / "zarr.json", zarr_2), r"expected a group of Zarr 3, got group of Zarr 2"),
        (lambda case: damaged(case / "zarr.json", foreign), r"expected a case of a cohort, with synthaug.affine"),
    ],
)
def test_a_folder_that_is_no_whole_case_is_named(cohorts, tmp_path, change, message):
    shutil.copytree(cohorts.zarr, tmp_path / "c")
    change(tmp_path / "c" / "synth_000001.ome.zarr")
    with pytest.raises(ValueError, match=message):
        find_cases(tmp_path / "c")


@pytest.mark.parametrize("cohorts", ["unscaled"], indirect=True)
@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("labels/tumour/0/c/0/0/0", lambda file: file.unlink(), r"half-written, no .*labels/tumour/0/c/0/0/0"),
        ("0/c/0/0/0/0", lambda file: file.write_bytes(file.read_bytes()[:-100]), r"cannot read .*0/flair as OME-Zarr"),
        ("0/zarr.json", lambda file: file.unlink(), r"cannot read .*0/flair as OME-Zarr"),
    ],
)
def test_an_object_that_is_missing_or_cut_off_is_named(cohorts, tmp_path, place, change, message):
    shutil.copytree(cohorts.zarr, tmp_path / "c")
    change(tmp_path / "c" / "synth_000001.ome.zarr" / place)
    case = next(c for c in find_cases(tmp_path / "c") if c.name == "synth_000001")
    with pytest.raises(CaseError, match=message):
        load_case(case, ("flair",))


@pytest.mark.parametrize("cohorts", ["unscaled"], indirect=True)
def test_a_label_without_a_lesion_has_its_object_too(cohorts):
    real = [case for case in find_cases(cohorts.zarr) if not case.name.startswith("synth")]
    empty = [case for case in real if not load_case(case, ("t1",)).label.any()]
    assert len(real) == 2 and len(empty) == 1


def test_cases_are_valid_by_a_library_of_the_specification(cohorts, tmp_path):
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs, of the extra test, is not installed")
    places = sorted([*cohorts.zarr.glob("*.ome.zarr"), *cohorts.float16.glob("*.ome.zarr")])
    for place in [*places, *(case / "labels" / "tumour" for case in places)]:
        assert yaozarrs.validate_zarr_store(str(place)).ome_version() == "0.5"
    assert len(places) == 10
    shutil.copytree(places[0], tmp_path / "x.ome.zarr")
    damaged(tmp_path / "x.ome.zarr" / "zarr.json", lambda c: c["attributes"]["ome"]["multiscales"][0]["axes"].pop())
    with pytest.raises(ValueError, match="axes"):
        yaozarrs.validate_zarr_store(str(tmp_path / "x.ome.zarr"))


@pytest.mark.parametrize("cohorts", ["unscaled"], indirect=True)
def test_without_zarr_the_extra_is_named(cohorts, monkeypatch):
    case = find_cases(cohorts.zarr)[0]
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ModuleNotFoundError, match=r"synthaug\[zarr\]"):
        load_case(case, ("t1",))


def test_values_beyond_float16_fail_their_case(tmp_path):
    oblique_hosts(tmp_path / "hosts", dict.fromkeys(CHANNELS, (500.0, 0.0)))
    config = tiny_config(tmp_path / "hosts", count=1, layout="zarr")
    half = config.packing.model_copy(update={"dtype": "float16"})
    summary = generate(config.model_copy(update={"packing": half}), tmp_path / "c")
    assert "float16 cannot hold" in summary.failed["synth_000000"]
