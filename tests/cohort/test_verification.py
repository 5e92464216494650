"""Verification of cohorts: the same findings however much is read at a time, in memory that does not grow."""

import hashlib
import json
import shutil
import tracemalloc

import numpy as np
import pytest
from cohort_tools import plain_reports, tiny_config

from synthaug.cohort import generate, store, verification, verify
from synthaug.cohort.lesion_totals import LesionTotals
from synthaug.cohort.summary_lines import describe_cohort

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture(scope="module", params=["brats", "webdataset"])
def cohort(request, tiny_hosts, tmp_path_factory):
    config = tiny_config(tiny_hosts, count=6, layout=request.param)
    config = config.model_copy(update={"packing": config.packing.model_copy(update={"shard_cases": 2})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthaug.cohort.production.write_cohort_report", lambda store, *_: store.write("r", {}))
        assert generate(config, tmp_path_factory.mktemp(request.param) / "c").complete
    return tmp_path_factory.getbasetemp() / f"{request.param}0" / "c"


@pytest.fixture(params=[1, 3, 10**6])
def at_a_time(request, monkeypatch):
    monkeypatch.setattr(verification, "COMPARED_AT_A_TIME", request.param)
    monkeypatch.setattr(verification, "NAMES_AT_A_TIME", request.param)
    monkeypatch.setattr(store, "PIECE_BYTES", request.param)


def test_findings_do_not_depend_on_what_is_read_at_a_time(cohort, tmp_path, at_a_time):
    assert verify(cohort).sound
    damaged = tmp_path / "c"
    shutil.copytree(cohort, damaged)
    more, *files = sorted(p for p in damaged.rglob("*") if p.suffix in (".gz", ".tar"))
    files[0].unlink()
    content = bytearray(files[1].read_bytes())
    content[len(content) // 3] ^= 1
    files[1].write_bytes(content)
    for name in ("a", "sub/b", "sub/deep/c.nii.gz"):
        place = damaged / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    found = verify(damaged)
    assert found.extra == ["a", "sub/b", "sub/deep/c.nii.gz"] and found.missing and found.altered
    place = files[0].relative_to(damaged).as_posix()
    assert all(path.startswith(place) for path in found.missing) and not found.sound
    assert all(path.startswith(files[1].relative_to(damaged).as_posix()) for path in found.altered)
    assert more.relative_to(damaged).as_posix() not in " ".join(found.missing + found.altered)


def test_totals_are_those_of_all_rows(cohort):
    rows = [json.loads(line) for line in (cohort / "manifest.jsonl").read_text().splitlines()]
    sizes, totals = [row["diameter_mm"] for row in rows], verify(cohort).lesions
    assert totals.count == len(rows) and totals.median_mm == np.median(sizes)
    assert LesionTotals.of(rows[:-1]).median_mm == np.median(sizes[:-1])
    assert totals.class_ml == {name: sum(row["class_ml"][name] for row in rows) for name in rows[0]["class_ml"]}


def listed_cohort(folder, count):
    """A cohort of so many cases, each a file of one byte and two lesions, as its manifest says."""
    folder.mkdir()
    sha256 = hashlib.sha256(b"x").hexdigest()
    lesion = {"class_ml": {"tumour": 1.0}, "plan": {"rows": [0.125] * 100}}
    for index in range(count):
        (folder / f"{index:06d}.nii").write_bytes(b"x")
    cases = [{"case": f"{i:06d}", "files": {f"{i:06d}.nii": {"sha256": sha256, "bytes": 1}}} for i in range(count)]
    rows = [lesion | {"case": f"{i // 2:06d}", "diameter_mm": 5 + i % 20} for i in range(2 * count)]
    files = {}
    for name, listed in (("cases.jsonl", cases), ("manifest.jsonl", rows)):
        content = "".join(json.dumps(row) + "\n" for row in listed).encode()
        (folder / name).write_bytes(content)
        files[name] = hashlib.sha256(content).hexdigest()
    summary = {
        "written": count,
        "asked": count,
        "layout": "brats",
        "lesions_asked": 2 * count,
        "real": 0,
        "refused": {},
    }
    about = {"generator": {"name": "none", "sha256": None}, "config_sha256": "0" * 64, "versions": {"synthaug": "0"}}
    (folder / "cohort.json").write_text(json.dumps(summary | about | {"files": files}))


def peak(folder):
    tracemalloc.start()
    try:
        found = verify(folder)
        lines = describe_cohort(found)
        return tracemalloc.get_traced_memory()[1], found, lines
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "COMPARED_AT_A_TIME", 20)
    monkeypatch.setattr(verification, "NAMES_AT_A_TIME", 100)
    monkeypatch.setattr(store, "PIECE_BYTES", 10_000)
    for count in (200, 3000):
        listed_cohort(tmp_path / str(count), count)
    verify(tmp_path / "200")  # what is imported and kept at the first time
    few, many = (peak(tmp_path / str(count)) for count in (200, 3000))
    assert many[1].sound and many[1].checked == 3002 and many[1].lesions.count == 6000
    assert many[2][0] == "3000 of 3000 synthetic cases in the layout brats, 6000 of 6000 lesions, 0 real cases beside"
    assert many[0] < 1.3 * few[0] + 50_000
    (tmp_path / "3000" / "more").write_bytes(b"")
    with_more = peak(tmp_path / "3000")
    assert with_more[1].extra == ["more"] and with_more[0] < 1.3 * few[0] + 50_000
