"""Records in parts: joined when whole, looked after, summed up and described as if each were by itself."""

import json

import pytest
from cohort_tools import contents, manifest, plain_reports, records, tiny_config

from synthaug.cohort import description, generate, verify
from synthaug.cohort.records import PARTS, RECORDS, Records
from synthaug.cohort.store import open_store
from synthaug.cohort.tally import Tally

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture
def parts_of_four(monkeypatch):
    monkeypatch.setattr(Records, "part_cases", 4)


def record(index, files=True):
    path = f"images/{index}"
    lesions = [{"case": f"c{index}", "lesion": 0}] if files else []
    refused = [] if files else [{"reason": "no room"}]
    about = {path: {"sha256": "", "bytes": 3}} if files else {}
    own = {"index": index, "case": f"c{index}", "real": False, "asked": 1, "refused": refused, "lesions": lesions}
    return {**own, "files": about}, {path: b"abc"} if files else {}


def written(store, indices, total=11):
    kept = Records(store, total)
    for index in indices:
        kept.write(*record(index, files=index != 5))
    kept.join()
    return kept


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return open_store(tmp_path / "c" if request.param == "local" else f"memory://{tmp_path.name}")


def test_whole_parts_are_joined_and_the_rest_stays_by_itself(parts_of_four, store):
    kept = written(store, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10])
    assert [n for n in store.names(PARTS) if n.endswith(".jsonl")] == ["000000.jsonl", "000002.jsonl"]
    assert store.names(RECORDS) == ["000004.json", "000005.json", "000006.json"]
    assert [r["index"] for r in kept] == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert list(kept.missing()) == [7] and kept.done([3, 7, 8, 6]) == {3, 8, 6} and kept.count() >= 10
    assert kept.tally() == Tally.of(kept)
    assert (kept.tally().written, kept.tally().not_written) == (9, {"c5": "no room"})
    kept.write(*record(7))
    kept.join()
    assert store.names(RECORDS) == [] and list(kept.missing()) == []


def test_a_file_that_is_gone_is_missed_and_made_again(parts_of_four, tmp_path):
    store = open_store(tmp_path)
    kept = written(store, range(11))
    before = contents(tmp_path)
    store.remove(["images/2"])
    store.write("x", {"images/9": b"half"})
    assert list(kept.missing()) == [2, 9] and kept.tally().written == 8 == len([r for r in kept if r["files"]])
    for index in (2, 9):
        kept.write(*record(index))
    kept.join()
    assert contents(tmp_path) == before


def test_few_cases_are_never_joined(tmp_path):
    store = open_store(tmp_path)
    written(store, range(11))
    assert store.names(PARTS) == [] and len(store.names(RECORDS)) == 11


def test_another_process_may_join_at_any_moment(parts_of_four, tmp_path, monkeypatch):
    store = open_store(tmp_path)
    kept = written(store, [0, 1, 2], total=4)
    kept.write(*record(3))
    look = Records._loose

    def late(self):
        found = look(self)
        monkeypatch.setattr(Records, "_loose", look)
        Records(store, 5).join()
        Records(store, 4).join() if not store.names(PARTS) else None
        return found

    other = Records(store, 5)
    monkeypatch.setattr(Records, "_loose", late)
    assert [r["index"] for r in other] == [0, 1, 2, 3]
    assert store.names(RECORDS) == []


def test_a_cohort_in_parts_has_the_same_description(parts_of_four, tiny_hosts, tmp_path, monkeypatch):
    config = tiny_config(tiny_hosts, count=9, splits={"folds": 2})
    assert generate(config, tmp_path / "parts").complete
    monkeypatch.setattr(Records, "part_cases", 1000)
    assert generate(config, tmp_path / "single").complete
    visible = [
        {p: c for p, c in contents(tmp_path / name).items() if ".synthaug" not in p} for name in ("parts", "single")
    ]
    assert visible[0] == visible[1]
    monkeypatch.setattr(Records, "part_cases", 4)
    monkeypatch.setattr(Records, "_part", lambda *_: pytest.fail("a resume need not read the records"))
    assert generate(config, tmp_path / "parts").made == 0


def test_many_cases_are_listed_in_several_files(parts_of_four, tiny_hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(description, "MOST_IN_A_FILE", 4)
    config = tiny_config(tiny_hosts, count=9)
    assert generate(config, tmp_path / "c").complete
    assert sorted(p.name for p in (tmp_path / "c" / "manifest").iterdir()) == [f"00000{i}.jsonl" for i in range(3)]
    listed = [json.loads(x) for p in sorted((tmp_path / "c" / "cases").iterdir()) for x in p.read_text().splitlines()]
    monkeypatch.setattr(description, "MOST_IN_A_FILE", 100)
    assert generate(config, tmp_path / "d").complete
    assert listed == records(tmp_path / "d")
    found = verify(tmp_path / "c")
    assert found.sound and found.lesions == verify(tmp_path / "d").lesions
    assert found.lesions.count == len(manifest(tmp_path / "d")) and verify(tmp_path / "c", "synth_000007").rows
