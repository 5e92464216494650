"""Cohorts of phantoms: four layouts, exact outside the lesions, the same in any number of goes and processes."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from cohort_tools import NNUNET_VALUES, assert_exact_outside, cohort_config, contents, manifest, plain_reports, records
from typer.testing import CliRunner

from synthaug import BRATS18, InsertionPlan, LesionBank, TumorInsertion
from synthaug.channels import BRATS_CHANNELS
from synthaug.cli.app import app
from synthaug.cohort import generate, verify
from synthaug.cohort.hosts import find_hosts, host_number, read_host
from synthaug.cohort.records import Records
from synthaug.cohort.store import open_store
from synthaug.config import ConfigError
from synthaug.data import find_cases

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture(scope="module")
def bank(phantom_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    LesionBank.from_folder(phantom_folder, BRATS18).save(path)
    return path


@pytest.fixture(scope="module")
def reference(phantom_folder, bank, tmp_path_factory):
    """A cohort made in one go by one process, with everything in it that a cohort can have."""
    out = tmp_path_factory.mktemp("reference") / "cohort"
    config = everything(phantom_folder, bank)
    assert generate(config, out).complete
    return out


def everything(cases, bank):
    return cohort_config(cases, bank, layout="nnunet", splits={"folds": 2}, lesions={"per_case": (1, 2)})


@pytest.mark.parametrize("layout", ["msd", "bids", "brats"])
def test_layouts_are_read_back_and_exact_outside_the_lesions(phantom_folder, bank, tmp_path, layout):
    summary = generate(cohort_config(phantom_folder, bank, layout=layout), tmp_path / "c")
    assert summary.complete and summary.made == 4
    assert len(find_cases(tmp_path / "c")) == 4
    assert assert_exact_outside(tmp_path / "c", phantom_folder) == 4
    assert verify(tmp_path / "c").sound


def test_nnunet_numbers_its_labels_one_after_the_other(reference, phantom_folder):
    assert assert_exact_outside(reference, phantom_folder, NNUNET_VALUES) >= 4
    dataset = json.loads((reference / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    assert dataset["numTraining"] == 4 and list(dataset["channel_names"].values()) == ["flair", "t1", "t1ce", "t2"]


def test_monai_reads_the_decathlon_list(phantom_folder, bank, tmp_path):
    from monai.data import load_decathlon_datalist

    generate(cohort_config(phantom_folder, bank, layout="msd", count=2), tmp_path / "c")
    pairs = load_decathlon_datalist(tmp_path / "c" / "dataset.json", is_segmentation=True)
    assert len(pairs) == 2 and all(Path(pair[side]).is_file() for pair in pairs for side in ("image", "label"))


def test_the_manifest_says_how_to_make_a_lesion_again(phantom_folder, bank, tmp_path):
    config = cohort_config(phantom_folder, bank, classes="BRATS18", channels=BRATS_CHANNELS)
    generate(config, tmp_path / "c")
    cases = {case.name: case for case in find_hosts(config)}
    for row in manifest(tmp_path / "c"):
        host = read_host(cases[row["host"]], config)
        engine = TumorInsertion(bank, min_voxels=8)
        plan = InsertionPlan.from_rows([row["plan"]])
        image, label = engine.apply(host.image, host.label, plan, host=host.tissue)
        changed = label != host.label
        assert int(changed.sum()) == sum(row["voxels"].values())
        written = find_cases(tmp_path / "c" / row["case"])[0]
        again = read_host(written, config)
        box = tuple(slice(*ends) for ends in row["box"])
        assert again.stored.volume.label[box].sum() == label.sum()
        stored = again.stored.files[written.images["t1"]].raw[box]
        assert np.array_equal(stored, np.rint(image[0, 1].numpy()).astype(stored.dtype))
        assert row["donor_group"] != row["host_group"] and row["donor_case"] == row["donor"].split("/")[0]
        assert row["config_sha256"] and row["versions"]["synthaug"] and row["volume_ml"] > 0


def test_hosts_take_turns_whatever_the_number_of_cases():
    drawn = [host_number(5, index, 6) for index in range(18)]
    assert all(sorted(drawn[i : i + 6]) == list(range(6)) for i in (0, 6, 12))
    assert drawn[:6] != drawn[6:12]


def test_a_finished_cohort_is_left_alone_and_another_configuration_is_refused(reference, phantom_folder, bank):
    times = {p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file()}
    config = everything(phantom_folder, bank)
    summary = generate(config.model_copy(update={"workers": 1}), reference)
    assert summary.complete and summary.made == 0
    assert {p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file()} == times
    with pytest.raises(ConfigError, match=r"config.seed was 3 and is 4"):
        generate(config.model_copy(update={"seed": 4}), reference)
    assert {p: p.stat().st_mtime_ns for p in reference.rglob("*") if p.is_file()} == times


class Killed(BaseException):
    """What no step of a case can catch."""


@pytest.mark.parametrize("moment", [1, 4, 8, 17, 27])
def test_whatever_was_renamed_last_the_continued_cohort_is_the_same(
    reference, phantom_folder, bank, tmp_path, monkeypatch, moment
):
    calls, rename = [], Path.replace

    def renamed(self, target):
        calls.append(target)
        if len(calls) > moment:
            raise Killed
        return rename(self, target)

    config = everything(phantom_folder, bank)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", renamed)
        generate(config, tmp_path / "c")
    assert generate(config, tmp_path / "c").complete
    assert contents(tmp_path / "c") == contents(reference)


def command(config_file: Path, out: Path, processes: int) -> list[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "-m"]
    return [*start, "synthaug.cohort", "--config", str(config_file), "--out", str(out)]


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_continued_by_any_number_of_processes(reference, phantom_folder, bank, tmp_path, processes):
    config, out = everything(phantom_folder, bank), tmp_path / "c"
    (tmp_path / "cohort.yaml").write_text(config.model_dump_json())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    words = command(tmp_path / "cohort.yaml", out, processes)
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not list((out / ".synthaug" / "records").glob("*.json")):
            time.sleep(0.005)
        ranks = psutil.Process(run.pid).children(recursive=True)
        for process in (*ranks, run):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(ranks, timeout=60)  # one that is not gone yet holds the lock, and rightly
    assert not (out / "cohort.json").exists()
    assert generate(config, out).complete
    assert contents(out) == contents(reference)


@pytest.mark.slow
def test_two_processes_make_the_same_bytes(reference, phantom_folder, bank, tmp_path):
    config, out = everything(phantom_folder, bank), tmp_path / "c"
    (tmp_path / "cohort.yaml").write_text(config.model_dump_json())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(command(tmp_path / "cohort.yaml", out, 2), env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert contents(out) == contents(reference)


def test_real_cases_beside_and_folds_with_all_names(phantom_folder, bank, tmp_path):
    config = cohort_config(phantom_folder, bank, include_real=True, splits={"folds": 2})
    assert generate(config, tmp_path / "c").complete
    names = {case.name for case in find_cases(tmp_path / "c")}
    assert len(names) == 8
    for case in find_cases(phantom_folder):
        copied = next(c for c in find_cases(tmp_path / "c") if c.name == case.name)
        for path, copy in zip(case.images.values(), copied.images.values(), strict=True):
            assert gzip.decompress(path.read_bytes()) == gzip.decompress(copy.read_bytes())
    for fold in json.loads((tmp_path / "c" / "splits_final.json").read_text()):
        assert set(fold["train"]) | set(fold["val"]) <= names


@pytest.mark.parametrize("by", ["class", "size"])
def test_balanced_sets_have_a_table_of_labels(phantom_folder, tmp_path, by):
    sizes = {"small": (8, 11), "large": (13, 17)}
    balance = {"per_class": 2, "by": by, "sizes_mm": sizes}
    lesions = {"scale": None, "retries": 60, "shapes": {"diameter_mm": (10, 16)}}
    hosts = {"tumour": "free"}
    config = cohort_config(phantom_folder, None, count=None, balance=balance, lesions=lesions, hosts=hosts)
    summary = generate(config, tmp_path / "c")
    assert summary.complete, summary
    with (tmp_path / "c" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = BRATS18.names if by == "class" else tuple(sizes)
    assert sorted(row["label"] for row in rows) == sorted(2 * kinds)
    for row in rows:
        if by == "class":
            assert row["dominant_class"] == row["label"]
        else:
            assert sizes[row["label"]][0] <= float(row["diameter_mm"]) <= sizes[row["label"]][1]


def test_tumour_free_hosts_only(phantom_folder, bank, tmp_path):
    generate(cohort_config(phantom_folder, bank, hosts={"tumour": "free"}, count=2), tmp_path / "c")
    assert {row["host"] for row in manifest(tmp_path / "c")} == {"Phantom_003_1"}


def test_a_case_without_room_is_refused_and_in_the_report(phantom_folder, bank, tmp_path):
    config = cohort_config(phantom_folder, bank, count=2, lesions={"scale": 20.0, "retries": 2})
    summary = generate(config, tmp_path / "c")
    assert not summary.complete and len(summary.refused) == 2 and not summary.failed
    assert manifest(tmp_path / "c") == [] and verify(tmp_path / "c").sound
    assert [len(record["refused"]) for record in records(tmp_path / "c")] == [3, 3]
    assert "larger than the patch" in (tmp_path / "c" / "report.html").read_text()
    assert generate(config, tmp_path / "c").made == 0


def test_the_command_and_inspect(phantom_folder, bank, tmp_path):
    out = tmp_path / "c"
    words = ["cohort", "--cases", phantom_folder, "--bank", bank, "--count", 2, "--layout", "brats", "--out", out]
    words += ["--scale", 0.4, 0.6, "--swap", "SNFH:ET:1", "--seed", 7, "lesions.min_voxels=8"]
    made = CliRunner().invoke(app, [str(w) for w in words])
    assert made.exit_code == 0, made.output
    assert {tuple(row["swaps"].items()) for row in manifest(out)} == {(("ED", "ET"),)}
    seen = CliRunner().invoke(app, ["inspect", str(out)])
    assert seen.exit_code == 0 and "2 of 2 synthetic cases" in seen.output
    one = CliRunner().invoke(app, ["inspect", str(out / "synth_000001")])
    assert one.exit_code == 0 and "ED became ET" in one.output
    other = CliRunner().invoke(app, ["inspect", str(phantom_folder)])
    assert other.exit_code == 0 and "Phantom_003_1" in other.output and "label: empty" in other.output


def test_inspect_names_what_is_not_as_the_manifest_says(phantom_folder, bank, tmp_path):
    out = tmp_path / "c"
    generate(cohort_config(phantom_folder, bank, count=2), out)
    altered, missing = (out / "synth_000001" / f"synth_000001_{c}.nii.gz" for c in ("t1", "t2"))
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    missing.unlink()
    (out / "synth_000001" / "more.nii.gz").write_bytes(b"")
    result = CliRunner().invoke(app, ["inspect", str(out)])
    assert result.exit_code == 1
    for word, file in (("altered", altered.name), ("missing", missing.name), ("extra", "more.nii.gz")):
        assert f"{word}: synth_000001/{file}" in result.output
    found = verify(out)
    assert (len(found.altered), len(found.missing), len(found.extra)) == (1, 1, 1)


def test_a_cohort_without_a_case_is_not_sound(phantom_folder, bank, tmp_path):
    config = cohort_config(phantom_folder, bank, count=1, lesions={"min_voxels": 10**6, "retries": 0})
    assert generate(config, tmp_path / "c").written == 0
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "c")])
    assert result.exit_code == 1 and "no case could be written" in result.output


def test_a_deleted_file_is_made_again(reference, phantom_folder, bank, tmp_path):
    config = everything(phantom_folder, bank)
    generate(config, tmp_path / "c")
    (tmp_path / "c" / "labelsTr" / "synth_000002.nii.gz").unlink()
    assert generate(config, tmp_path / "c").made == 1
    assert contents(tmp_path / "c") == contents(reference)


def test_nothing_global_is_changed(phantom_folder, bank, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    generate(cohort_config(phantom_folder, bank, count=1), tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_records_of_other_cases_are_not_counted(tmp_path):
    store = open_store(tmp_path / "c")
    Records(store, 8).write({"index": 7, "files": {}}, {})
    assert not list(Records(store, 5)) and [record["index"] for record in Records(store, 8)] == [7]
