"""Locks: a second launch is refused or joins, a dead one's place is taken, and no lock is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest
from cohort_tools import contents, plain_reports, tiny_config

from synthaug.cohort import generate, locks
from synthaug.cohort.engines import Share
from synthaug.cohort.locks import DEAD_AFTER_S, LOCKS, Launch, Locks
from synthaug.cohort.store import open_store
from synthaug.config import ConfigError

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "c")


def write(store, launch):
    store.write("lock", {launch.path: json.dumps(asdict(launch)).encode()})


def living(**changes):
    """A launch of the process that started this one, which lives as long."""
    parent = os.getppid()
    process = locks.psutil.Process(parent)
    here = Launch.of_this_process(None, False)
    return replace(here, pid=parent, started=process.create_time(), since=here.since - 60, **changes)


def test_a_second_launch_is_refused_and_told_who_is_there(store):
    first = living()
    write(store, first)
    words = rf"process {first.pid} on .*, since 20\d\d-.* UTC.*--join"
    with pytest.raises(ConfigError, match=words), Locks(store).held():
        pass
    assert store.names(LOCKS) == [f"{first.id}.json"]


def test_one_that_joins_works_beside(store):
    write(store, living())
    with Locks(store).held(join=True) as me:
        assert [other.pid for other in Locks(store).others(me)] == [os.getppid()]
    assert len(store.names(LOCKS)) == 1


def test_shards_of_one_division_work_beside_each_other_and_nothing_else_does(store):
    write(store, living(shard=(0, 2)))
    with Locks(store).held(shard=(1, 2)):
        pass
    for other in ((0, 2), (1, 3), None):
        with pytest.raises(ConfigError, match="shard 0/2"), Locks(store).held(shard=other):
            pass


@pytest.mark.parametrize("what", ["no such process", "another process of that number"])
def test_a_dead_launch_of_this_machine_is_taken_over_at_once(store, what):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    here = living()
    gone = replace(here, pid=process.pid) if what == "no such process" else replace(here, started=here.started - 100)
    write(store, gone)
    with Locks(store).held() as me:
        assert store.names(LOCKS) == [f"{me.id}.json"]
    assert store.names(LOCKS) == []


def test_a_launch_elsewhere_is_dead_when_it_was_silent_for_long(store):
    elsewhere = replace(living(), host="elsewhere", sign=time.time() - DEAD_AFTER_S + 20)
    write(store, elsewhere)
    with pytest.raises(ConfigError, match=r"on elsewhere.*sign of life is 1\d\d s old"), Locks(store).held():
        pass
    write(store, replace(elsewhere, sign=time.time() - DEAD_AFTER_S - 1))
    with Locks(store).held():
        pass


def test_signs_of_life_are_given_while_it_works(store, monkeypatch):
    monkeypatch.setattr(locks, "SIGN_EVERY_S", 0.02)
    with Locks(store).held() as me:
        deadline = time.time() + 10
        while json.loads(store.read(me.path))["sign"] <= me.sign:
            assert time.time() < deadline
            time.sleep(0.01)


def test_of_two_that_begin_at_once_one_goes_on(store):
    both, results = threading.Barrier(2), []

    def begin():
        both.wait()
        try:
            with Locks(store).held():
                deadline = time.monotonic() + 10
                while not results and time.monotonic() < deadline:
                    time.sleep(0.01)
            results.append("held")
        except ConfigError:
            results.append("refused")

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "refused"]


@pytest.fixture(scope="module")
def config(tiny_hosts):
    return tiny_config(tiny_hosts, splits={"folds": 2})


def test_a_cohort_is_refused_while_another_launch_is_at_work_and_joined_by_choice(config, tmp_path, store):
    assert generate(config, tmp_path / "whole").complete
    write(store, living())
    with pytest.raises(ConfigError, match="another launch works on this cohort"):
        generate(config, tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == [".synthaug"]
    assert generate(config, tmp_path / "c", join=True).complete
    store.remove([f"{LOCKS}/{name}" for name in store.names(LOCKS)])
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_shards_in_any_order_make_the_same_cohort(config, tmp_path):
    assert generate(config, tmp_path / "whole").complete
    second = generate(config, tmp_path / "c", shard="1/2")
    assert (second.made, second.left, second.complete, second.sound_so_far) == (2, 2, False, True)
    assert not (tmp_path / "c" / "cohort.json").exists()
    first = generate(config, tmp_path / "c", shard="0/2")
    assert (first.made, first.left, first.complete) == (2, 0, True)
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


@pytest.mark.parametrize("text", ["2/2", "a/b", "1", "-1/2", "0/0"])
def test_a_shard_that_there_is_not_is_refused(text):
    with pytest.raises(ConfigError, match="shard: expected i/n"):
        Share.read(text)


def test_shares_of_shares_have_each_case_once():
    shares = [Share(i, 3).split(rank, 2) for i in range(3) for rank in range(2)]
    assert all(sum(index in share for share in shares) == 1 for index in range(50))


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_launch_is_taken_over_and_a_terminated_one_leaves_no_lock(config, tmp_path, sign):
    out = tmp_path / "c"
    (tmp_path / "cohort.yaml").write_text(config.model_dump_json())
    words = [sys.executable, "-m", "synthaug.cohort", "--config", tmp_path / "cohort.yaml", "--out", out, "count=16"]
    with subprocess.Popen([str(w) for w in words], stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not list(out.glob(".synthaug/records/*.json")):
            time.sleep(0.01)
        with pytest.raises(ConfigError, match=f"process {run.pid} on"):
            generate(config.model_copy(update={"count": 16}), out)
        run.send_signal(sign)
    assert len(list(out.glob(".synthaug/locks/*"))) == (sign == signal.SIGKILL)
    assert generate(config.model_copy(update={"count": 16}), out).complete
