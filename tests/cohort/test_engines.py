"""Engines make the same bytes: ray too, when its workers are killed. Of accelerate see test_cohort.py."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from cohort_tools import contents, plain_reports, tiny_config

from synthaug.cohort import generate
from synthaug.cohort.engines import Order, make_engine
from synthaug.cohort.engines.local import LocalEngine
from synthaug.cohort.engines.ray import TRIES, RayEngine
from synthaug.config import ConfigError
from synthaug.generators.base import TumorGenerator

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with two workers."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def config(tiny_hosts):
    return tiny_config(tiny_hosts, count=24, splits={"folds": 2})


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthaug.cohort.production.write_cohort_report", lambda store, *_: store.write("r", NO_REPORT))
        out = tmp_path_factory.mktemp("whole") / "c"
        assert generate(config, out).complete
    return contents(out)


NO_REPORT = {"report.html": b""}


def workers():
    """The processes of actors that hold a maker."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::_Worker"):
                found.append(process)
        except (psutil.NoSuchProcess, IndexError):
            pass
    return found


class Killing:
    """Kills a worker of Ray whenever so many more cases are done."""

    def __init__(self, out: Path, every: int):
        self.out, self.every, self.killed = out, every, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        wanted = 1
        while not self.ended.wait(0.01):
            if len(list(self.out.glob(".synthaug/records/*.json"))) >= wanted and (there := workers()):
                there[self.killed % len(there)].send_signal(signal.SIGKILL)
                self.killed += 1
                wanted += self.every

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


@pytest.mark.slow
def test_ray_makes_the_same_bytes_though_workers_are_killed(cluster, config, whole, tmp_path):
    with Killing(tmp_path / "c", every=100) as killing:
        assert generate(config, tmp_path / "c", engine="ray", actors=2).complete
    assert killing.killed == 1
    assert contents(tmp_path / "c") == whole
    assert generate(config, tmp_path / "c", engine="ray").made == 0


def deadly():
    """A generator that kills its process; its class is local, so that it is sent by value."""

    class Deadly(TumorGenerator):
        def generate(self, *_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

    return Deadly()


@pytest.mark.slow
def test_cases_that_kill_every_worker_are_failures_and_the_command_ends(cluster, config, tmp_path):
    few = config.model_copy(update={"count": 1})
    began = time.monotonic()
    summary = generate(few, tmp_path / "c", engine="ray", actors=1, generator=deadly())
    assert summary.failed["synth_000000"].startswith(f"its worker died or was out of reach {TRIES} times")
    assert not summary.complete and time.monotonic() - began < 120


def test_ray_ends_when_its_cluster_is_gone_and_does_not_list_all_that_is_left_as_failed(config, tmp_path):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")

    class Gone:
        """A cluster whose actors take tasks that never come back."""

        exceptions, begun = ray.exceptions, 0

        def is_initialized(self):
            return True

        def wait(self, tasks):
            return tasks[:1], tasks[1:]

        def get(self, task):
            raise ray.exceptions.ActorUnavailableError("no answer", None)

        def kill(self, actor):
            pass

        def remote(self, cases):
            self.begun += 1
            return self.begun

    engine, gone = RayEngine(Order(config, str(tmp_path / "c"))), Gone()
    engine._ray, engine._own, engine._actors = gone, False, lambda: [SimpleNamespace(make=gone) for _ in range(2)]
    failed = []
    with pytest.raises(ConnectionError, match="the same command goes on"):
        failed.extend(engine.make(SimpleNamespace(total=10**6), iter(range(10**6))))
    assert gone.begun == 8


def test_an_engine_that_there_is_not_is_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="expected local, accelerate, ray, got 'spark'"):
        make_engine("spark", Order(config, str(tmp_path / "c")))
    assert isinstance(make_engine(None, Order(config, str(tmp_path / "c"))), LocalEngine)


def test_ray_is_named_where_it_is_not_installed(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "synthaug\[ray\]"'):
        generate(config, tmp_path / "c", engine="ray")
    assert not (tmp_path / "c").exists()
