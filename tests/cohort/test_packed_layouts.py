"""Archives and OME-Zarr: read back by their own libraries, the same voxels as in files, after kills too."""

import json
import tarfile

import numpy as np
import pytest
from cohort_tools import contents, manifest, plain_reports, records, tiny_config

from synthaug.cohort import generate, verify
from synthaug.cohort.records import Records
from synthaug.cohort.store import LocalStore
from synthaug.data import find_cases, load_case
from synthaug.data.nifti import nifti_of
from synthaug.data.writing import write_case
from synthaug.trial.folder import bytes_of
from synthaug.view.shown import channel_file, find_shown

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture(scope="module")
def config(tiny_hosts):
    return tiny_config(tiny_hosts, count=7, include_real=True)


@pytest.fixture(scope="module")
def files(config, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthaug.cohort.production.write_cohort_report", lambda store, *_: store.write("r", {}))
        out = tmp_path_factory.mktemp("files") / "c"
        assert generate(config, out).complete
    return out


@pytest.fixture(scope="module")
def archives(config, tmp_path_factory):
    """Seven synthetic and two real cases, four to an archive, with their report."""
    out = tmp_path_factory.mktemp("archives") / "c"
    packed = config.model_copy(update={"layout": "webdataset"})
    packed = packed.model_copy(update={"packing": packed.packing.model_copy(update={"shard_cases": 4})})
    assert generate(packed, out).complete
    return packed, out


def test_archives_hold_what_files_hold(archives, files, tiny_hosts):
    _, out = archives
    assert sorted(p.name for p in (out / "shards").iterdir()) == [
        "index.json",
        *(f"synth-00000{i}.tar" for i in range(3)),
    ]
    assert not list(out.glob(".synthaug/loose/*")) and not list(out.glob(".synthaug/records/*"))
    single = {case.name: case for case in find_cases(files)}
    packed = {case.name: case for case in find_cases(out)}
    assert packed.keys() == single.keys() and len(packed) == 9
    for name, case in packed.items():
        a, b = (load_case(c, ("flair", "t1", "t1ce", "t2")) for c in (case, single[name]))
        assert (
            np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label) and np.array_equal(a.affine, b.affine)
        )
    assert assert_exact_outside_of_archives(out, tiny_hosts) == 7
    assert [row["plan"] for row in manifest(out)] == [row["plan"] for row in manifest(files)]
    found = verify(out)
    assert found.sound and found.checked > 9 * 6
    assert b"<img" in (out / "report.html").read_bytes()


def assert_exact_outside_of_archives(out, hosts):
    synthetic = [record for record in records(out) if not record["real"]]
    host_of, case_of = ({c.name: c for c in find_cases(folder)} for folder in (hosts, out))
    for record in synthetic:
        new, old = load_case(case_of[record["case"]], ("t1",)), load_case(host_of[record["host"]], ("t1",))
        lesion = new.label != old.label
        assert lesion.any() and np.array_equal(new.image[0][~lesion], old.image[0][~lesion])
    return len(synthetic)


def test_cases_in_archives_are_shown_weighed_and_written_on(archives, files, tmp_path):
    case = find_shown(archives[1] / "synth_000003").cases[0]
    same = next(c for c in find_cases(files) if c.name == "synth_000003")
    assert channel_file(case, "t1") == same.images["t1"].read_bytes()
    size = (archives[1] / "shards" / "synth-000000.tar").stat().st_size
    assert bytes_of(case) == 5 * size
    volume = load_case(case, ("t1",))
    write_case(case, {}, volume.label, tmp_path / case.name)
    (again,) = find_cases(tmp_path)
    assert again.name == case.name and again.label.name == "synth_000003_seg.nii.gz"
    assert np.array_equal(load_case(again, ("t1",)).image, volume.image)


def test_the_webdataset_library_reads_the_archives(archives):
    wds = pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    _, out = archives
    samples = list(wds.WebDataset([str(p) for p in sorted((out / "shards").glob("*.tar"))], shardshuffle=False))
    assert [s["__key__"] for s in samples[:5]] == [f"synth_{i:06d}" for i in range(5)] and len(samples) == 9
    label = nifti_of(samples[0]["seg.nii.gz"])
    case = find_cases(out)[-7]
    assert case.name == "synth_000000"
    assert np.array_equal(np.asarray(label.dataobj), load_case(case, ("t1",)).label)
    assert json.loads(samples[0]["json"])["host"].startswith("Phantom")
    index = json.loads((out / "shards" / "index.json").read_text())
    sizes = {p.name: p.stat().st_size for p in (out / "shards").glob("*.tar")}
    assert {s["url"]: s["filesize"] for s in index["shardlist"]} == sizes
    assert [s["nsamples"] for s in index["shardlist"]] == [4, 4, 1]


class Killed(BaseException):
    """What no step of a case can catch."""


@pytest.mark.parametrize("moment", [3, 11, 14, 17])
def test_archives_are_the_same_after_a_kill_at_any_step(archives, tmp_path, monkeypatch, moment):
    packed, out = archives
    calls, write = [], LocalStore.write

    def killed(self, name, given):
        calls.append(name)
        if len(calls) > moment:
            raise Killed
        write(self, name, given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LocalStore, "write", killed)
        generate(packed, tmp_path / "c")
    assert generate(packed, tmp_path / "c", shard="0/1").complete
    assert contents(tmp_path / "c") == contents(out)


def test_a_deleted_archive_is_made_again(archives, tmp_path):
    packed, out = archives
    generate(packed, tmp_path / "c")
    (tmp_path / "c" / "shards" / "synth-000001.tar").unlink()
    assert generate(packed, tmp_path / "c").made == 4
    assert contents(tmp_path / "c") == contents(out)


def test_a_kill_while_records_are_tidied_up_leaves_nothing_behind(archives, tmp_path, monkeypatch):
    packed, out = archives

    def killed(self, indices):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Records, "_forget", killed)
        generate(packed, tmp_path / "c")
    assert generate(packed, tmp_path / "c").complete
    assert contents(tmp_path / "c") == contents(out)


def test_a_case_that_fails_holds_its_archive_back_until_it_is_made(archives, tmp_path, monkeypatch):
    packed, out = archives
    write = LocalStore.write

    def full(self, name, given):
        if name == "case1":
            raise OSError("no space left")
        write(self, name, given)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "write", full)
        summary = generate(packed, tmp_path / "c")
    assert list(summary.failed) == ["synth_000001"] and not summary.complete and not summary.left
    assert verify(tmp_path / "c").sound and len(records(tmp_path / "c")) == 5
    assert generate(packed, tmp_path / "c").made == 1
    assert contents(tmp_path / "c") == contents(out)


@pytest.mark.parametrize("dtype", ["source", "float16"])
def test_zarr_reads_the_images_back(config, files, tmp_path, dtype):
    zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")
    few = config.model_copy(update={"layout": "zarr", "count": 2, "include_real": False})
    few = few.model_copy(update={"packing": few.packing.model_copy(update={"dtype": dtype, "chunk_vox": 32})})
    assert generate(few, tmp_path / "c").complete and verify(tmp_path / "c").sound
    case = zarr.open_group(str(tmp_path / "c" / "synth_000001.ome.zarr"), mode="r")
    ome, (axes, scale) = case.attrs["ome"], axes_and_scale(case.attrs["ome"])
    assert (ome["version"], axes, scale) == ("0.5", "czyx", [1.0, 1.0, 1.0, 1.0])
    assert case["0"].shape == (4, 40, 40, 40) and case["0"].chunks == (1, 32, 32, 32)
    single = next(c for c in find_cases(files) if c.name == "synth_000001")
    volume = load_case(single, ("flair", "t1", "t1ce", "t2"))
    expected = volume.image if dtype == "source" else volume.image.astype(np.float16)
    assert case["0"].dtype == ("int16" if dtype == "source" else "float16")
    assert np.array_equal(case["0"][:].transpose(0, 3, 2, 1), expected)
    label = case["labels/tumour"]
    assert axes_and_scale(label.attrs["ome"])[0] == "zyx" and case["labels"].attrs["ome"]["labels"] == ["tumour"]
    assert np.array_equal(label["0"][:].transpose(2, 1, 0), volume.label)
    assert {x["class"] for x in label.attrs["ome"]["image-label"]["properties"]} == {"NCR", "ED", "ET"}
    assert case.attrs["synthaug"]["affine"] == volume.affine.tolist()


def axes_and_scale(ome):
    (scales,) = ome["multiscales"]
    (transformation,) = scales["datasets"][0]["coordinateTransformations"]
    return "".join(axis["name"] for axis in scales["axes"]), transformation["scale"]


def test_the_report_shows_cases_in_zarr(config, tmp_path):
    pytest.importorskip("zarr", reason="the extra zarr is not installed")
    few = config.model_copy(update={"layout": "zarr", "count": 1, "include_real": False})
    assert generate(few, tmp_path / "c").complete
    assert b"<img" in (tmp_path / "c" / "report.html").read_bytes()


def test_a_damaged_archive_is_named(archives, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "synth-000000.tar").write_bytes(b"x" * 2000)
    with pytest.raises(OSError, match="no tar archive"):
        find_cases(tmp_path)
    with tarfile.open(archives[1] / "shards" / "synth-000000.tar") as archive:
        assert len(archive.getmembers()) == 4 * 6
