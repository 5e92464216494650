"""Cohorts under faults: the case is named, the rest goes on, the exit code says so, the manifest is never wrong."""

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort_tools import cohort_config, contents, manifest, plain_reports, records
from typer.testing import CliRunner

from synthaug import BRATS18, LesionBank
from synthaug.cli.app import app
from synthaug.cohort import generate, verify
from synthaug.config import ConfigError
from synthaug.data import find_cases, write_phantom_dataset

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture(scope="module")
def bank(phantom_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    LesionBank.from_folder(phantom_folder, BRATS18).save(path)
    return path


@pytest.fixture
def hosts(tmp_path):
    """Two hosts without tumours."""
    folder = tmp_path / "hosts"
    write_phantom_dataset(folder, count=2, seed=40, size=(48, 48, 48), tumour_free=2)
    return folder


def damage(folder, fault):
    """Do something to the first host; returns its name and a word of the message."""
    case = find_cases(folder)[0]
    t2 = case.images["t2"]
    if fault == "unreadable":
        t2.write_bytes(t2.read_bytes()[:100])
        return case.name, "cannot read"
    if fault == "missing modality":
        t2.unlink()
        return case.name, "no file for t2"
    if fault == "other labels":
        nib.save(nib.Nifti1Image(np.full((48, 48, 48), 9, np.int16), nib.load(t2).affine), case.label)
        return case.name, "label: expected 0 and the values of BRATS18"
    voxels = np.asarray(nib.load(t2).dataobj)
    nib.save(nib.Nifti1Image(np.stack([voxels, voxels], -1), nib.load(t2).affine), t2)
    return case.name, "expected (X, Y, Z)"


@pytest.mark.parametrize("fault", ["unreadable", "missing modality", "other labels", "another channel count"])
def test_a_bad_host_is_named_and_the_others_go_on(hosts, bank, tmp_path, fault):
    good = contents_of_sound_cohort(hosts, bank, tmp_path / "good")
    backup = {p: p.read_bytes() for p in hosts.rglob("*.nii.gz")}
    name, word = damage(hosts, fault)
    out = tmp_path / "c"
    words = ["cohort", "--cases", hosts, "--bank", bank, "--count", 4, "--layout", "brats", "--out", out, "--seed", 3]
    words += ["--scale", 0.4, 0.6, "lesions.min_voxels=8"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 1, result.output
    assert name in result.output and word in result.output
    assert len(records(out)) == 2 and {row["host"] for row in manifest(out)} == {find_cases(hosts)[1].name}
    assert verify(out).sound
    for path, content in backup.items():
        path.write_bytes(content)
    assert CliRunner().invoke(app, [str(w) for w in words]).exit_code == 0
    assert contents(out) == good


def contents_of_sound_cohort(hosts, bank, out):
    assert generate(cohort_config(hosts, bank), out).complete
    return contents(out)


def test_a_full_disk_leaves_nothing_of_the_case(hosts, bank, tmp_path, monkeypatch):
    sync = os.fsync

    def full(descriptor):
        if "/case1-" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    out, config = tmp_path / "c", cohort_config(hosts, bank)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        summary = generate(config, out)
    assert list(summary.failed) == ["synth_000001"] and "No space left" in summary.failed["synth_000001"]
    assert summary.written == 3 and not summary.complete
    assert not (out / "synth_000001").exists() and not list((out / ".synthaug" / "unfinished").iterdir())
    assert {row["case"] for row in manifest(out)} == {"synth_000000", "synth_000002", "synth_000003"}
    assert verify(out).sound
    assert generate(config, out).complete
    assert contents(out) == contents_of_sound_cohort(hosts, bank, tmp_path / "good")


def test_a_disk_that_is_full_at_the_end_leaves_no_half_description(hosts, bank, tmp_path, monkeypatch):
    sync = os.fsync

    def full(descriptor):
        if "/description-" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    out, config = tmp_path / "c", cohort_config(hosts, bank, count=2)
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match=r"2 cases are done.*No space left"):
        patch.setattr(os, "fsync", full)
        generate(config, out)
    assert not (out / "manifest.jsonl").exists() and not (out / "cohort.json").exists()
    with pytest.raises(ValueError, match="not finished, 2 cases are done"):
        verify(out)
    assert generate(config, out).complete and verify(out).sound


def test_nothing_is_begun_where_nothing_can_be_written(hosts, bank, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        generate(cohort_config(hosts, bank), tmp_path / "file" / "c")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder_is_named(hosts, bank, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match=r"locked.*cannot be written to"):
        generate(cohort_config(hosts, bank), tmp_path / "locked" / "c")


def test_a_folder_with_something_else_is_left_alone(hosts, bank, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else than a cohort"):
        generate(cohort_config(hosts, bank), tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lesions": {"bank": "damaged"}}, "damaged"),
        ({"lesions": {"bank": "missing"}}, "no such file"),
        ({"generator": "unknown"}, "generator"),
        ({"channels": ("t1", "ct")}, "ct"),
        ({"hosts": {"only": ("nobody",)}}, "nobody"),
        ({"hosts": {"tumour": "with"}}, "no host is left"),
        ({"layout": "bids", "channels": ("ct",)}, "BIDS has no"),
        ({"splits": {"folds": 2}}, "splits.outside=train"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(hosts, bank, tmp_path, change, message):
    (tmp_path / "damaged").write_bytes(bank.read_bytes()[:-100])
    if "bank" in change.get("lesions", {}):
        change = {"lesions": {"bank": tmp_path / change["lesions"]["bank"]}}
        bank = None
    with pytest.raises(ConfigError, match=message):
        generate(cohort_config(hosts, bank, **change), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_donors_of_unknown_patients_are_refused_unless_told(hosts, bank, tmp_path):
    known = LesionBank.load(bank)
    header = known._header | {"groups": [None] * len(known)}
    LesionBank(header, known._tensors).save(tmp_path / "unknown.safetensors")
    config = cohort_config(hosts, tmp_path / "unknown.safetensors", count=1)
    with pytest.raises(ConfigError, match="unknown_groups=allow"):
        generate(config, tmp_path / "c")
    allowed = cohort_config(hosts, tmp_path / "unknown.safetensors", count=1, lesions={"unknown_groups": "allow"})
    assert generate(allowed, tmp_path / "c").complete
    assert manifest(tmp_path / "c")[0]["donor_group"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": None}, "count or balance"),
        ({"balance": {"per_class": 2}}, "count or balance"),
        ({"count": None, "balance": {"per_class": 2}}, "hosts.tumour=free"),
        ({"lesions": {"per_case": (3, 2)}}, "per_case"),
        ({"lesions": {"colour": 1}}, "colour"),
        ({"prefix": "a/b"}, "prefix"),
    ],
)
def test_configurations_that_contradict_themselves(hosts, bank, values, message):
    with pytest.raises(ValueError, match=message):
        cohort_config(hosts, bank, **values)
