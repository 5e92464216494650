"""Cohorts and cases by URL: the same bytes from any store, also one that fails now and then; no secret is said."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from cohort_tools import contents, plain_reports, tiny_config
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from synthaug import remote
from synthaug.cli.app import app
from synthaug.cohort import generate, verify
from synthaug.cohort.store import LocalStore, open_store
from synthaug.cohort.url_store import URLStore
from synthaug.config import ConfigError
from synthaug.data import find_cases

plain_report = pytest.fixture(autouse=True)(plain_reports)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
    yield tmp_path / "cache"
    MemoryFileSystem.store.clear()


@pytest.fixture(scope="module")
def config(tiny_hosts):
    return tiny_config(tiny_hosts, splits={"folds": 2})


def fetched(url, into):
    """All files of a cohort in a store, hidden ones too."""
    system, root = fsspec.core.url_to_fs(url)
    system.get(root, str(into), recursive=True)
    return contents(into)


@pytest.mark.parametrize("store", [URLStore("memory://a/b"), "local"])
def test_a_store_keeps_files_whole_and_says_what_is_there(store, tmp_path):
    store = LocalStore(tmp_path / "new") if store == "local" else store
    assert store.names() == [] and store.sizes(["x"]) == [None]
    store.write("case0", {"images/a": b"12", "images/b": iter([b"3", b"45"]), ".synthaug/records/0": b""})
    assert store.sizes(["images/a", "images/b", "c", "images/a/c"]) == [2, 3, None, None]
    assert store.read("images/b") == b"345"
    assert store.names("images") == ["a", "b"] and set(store.names()) >= {"images", ".synthaug"}
    assert sorted(store.walk()) == ["images/a", "images/b"]
    with pytest.raises(FileNotFoundError):
        store.read("c")

    def broken():
        yield b"half of it"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        store.write("case1", {"images/a": broken()})
    assert store.read("images/a") == b"12"
    store.remove(["images/a", "c"])
    store.clear()
    assert store.names("images") == ["b"]


def test_a_store_that_shows_halves_is_written_beside_and_renamed(monkeypatch):
    seen = []
    store = URLStore("memory://halves")
    store.is_whole = False
    monkeypatch.setattr(store.system, "mv", lambda a, b: (seen.append((a, b)), MemoryFileSystem.mv(store.system, a, b)))
    store.write("case0", {"images/a": b"12"})
    assert store.read("images/a") == b"12" and store.names(".synthaug/unfinished") == []
    assert [(a.rsplit("/", 1)[0], b) for a, b in seen] == [("/halves/.synthaug/unfinished", "/halves/images/a")]


def test_a_cohort_in_a_store_is_that_of_a_folder(config, tmp_path):
    assert generate(config, tmp_path / "whole").complete
    first = generate(config, "memory://bucket/c", shard="0/2")
    assert (first.made, first.left) == (2, 2)
    second = generate(config, "memory://bucket/c")
    assert second.complete and second.made == 2 and second.out == "memory://bucket/c"
    assert generate(config, "memory://bucket/c").made == 0
    assert fetched("memory://bucket/c", tmp_path / "got") == contents(tmp_path / "whole")
    assert verify("memory://bucket/c").sound
    with pytest.raises(ConfigError, match=r"config\.seed was 3 and is 4"):
        generate(config.model_copy(update={"seed": 4}), "memory://bucket/c")
    said = CliRunner().invoke(app, ["inspect", "memory://bucket/c/synth_000001"])
    assert said.exit_code == 0 and "synth_000001: host" in said.output


class Flaky(MemoryFileSystem):
    """A store that fails one request in ten."""

    protocol = ("memory", "flaky")
    dice, failed = random.Random(3), 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))


def failing_now_and_then(name):
    sound = getattr(MemoryFileSystem, name)

    def method(self, *args, **kwargs):
        if Flaky.dice.random() < 0.1:
            Flaky.failed += 1
            raise RuntimeError("503 for https://me:secret@host/x?X-Amz-Signature=secret")
        return sound(self, *args, **kwargs)

    return method


for request in ("pipe_file", "cat_file", "info", "ls", "put_file", "rm_file", "get_file"):
    setattr(Flaky, request, failing_now_and_then(request))


def test_nothing_is_lost_in_a_store_that_fails_one_request_in_ten(config, tmp_path, tiny_hosts):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    assert generate(config, tmp_path / "whole").complete
    hosts = fsspec.filesystem("memory")
    hosts.put(str(tiny_hosts), "/hosts", recursive=True)
    made = generate(config.model_copy(update={"cases": "flaky://hosts"}), "flaky://c")
    assert made.complete and Flaky.failed > 3
    assert fetched("memory://c", tmp_path / "got") == contents(tmp_path / "whole")


def test_a_store_that_is_gone_is_an_error_without_secrets(config, monkeypatch):
    def gone(*_, **__):
        raise RuntimeError("no answer from https://me:secret@host/x?token=secret")

    monkeypatch.setattr(MemoryFileSystem, "info", gone)
    with pytest.raises(ConfigError) as error:
        generate(config, "memory://me:secret@c")
    assert "no answer" in str(error.value) and "secret" not in str(error.value)


def test_cases_are_fetched_once_and_again_where_they_changed(tiny_hosts, cache, caplog):
    memory = fsspec.filesystem("memory")
    memory.put(str(tiny_hosts), "/hosts", recursive=True)
    caplog.set_level("INFO", logger="synthaug.remote")
    folder = remote.local_folder("memory://hosts")
    assert folder.is_relative_to(cache) and len(find_cases(folder)) == 2
    remote.local_folder("memory://hosts")
    assert len(caplog.records) == 1
    case = find_cases(folder)[0]
    path = "/hosts/" + case.label.relative_to(folder).as_posix()
    memory.pipe_file(path, b"changed")
    memory.rm("/hosts/" + case.images["t1"].relative_to(folder).as_posix())
    remote.local_folder("memory://hosts")
    assert "fetching 1 of" in caplog.messages[-1]
    assert case.label.read_bytes() == b"changed" and not case.images["t1"].exists()
    with pytest.raises(FileNotFoundError, match="found no file of one"):
        remote.local_folder("memory://nothing")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://b/c", "s3://b/c"),
        ("memory://c", "memory://c"),
        ("a/b", Path("a/b")),
        ("file:///a/b", Path("/a/b")),
        ("C:\\data", Path("C:\\data")),
        (Path("x"), Path("x")),
    ],
)
def test_places_are_paths_or_urls(place, expected):
    assert remote.as_place(place) == expected


def test_a_protocol_without_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(ModuleNotFoundError, match="adlfs"):
        open_store("abfs://container/c")


@pytest.fixture(scope="module")
def bucket():
    """An S3 server on this machine with a bucket; its URL."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = server_of.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        known = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "hush",
        }
        for name, value in {**known, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.mark.slow
def test_a_killed_cohort_in_s3_goes_on_and_is_read_back(config, bucket, tmp_path, tiny_hosts):
    assert generate(config, tmp_path / "whole").complete
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.put(str(tiny_hosts), "bucket/hosts", recursive=True)
    by_url = config.model_copy(update={"cases": f"{bucket}/hosts"})
    (tmp_path / "cohort.yaml").write_text(by_url.model_dump_json())
    words = [sys.executable, "-m", "synthaug.cohort", "--config", tmp_path / "cohort.yaml", "--out", f"{bucket}/c"]
    with subprocess.Popen([str(w) for w in words], stderr=subprocess.PIPE, text=True, env=os.environ) as run:
        while run.poll() is None and not system.exists("bucket/c/.synthaug/records/000000.json"):
            time.sleep(0.02)
        run.kill()
        assert "hush" not in run.stderr.read()
    assert generate(by_url, f"{bucket}/c").complete
    assert fetched(f"{bucket}/c", tmp_path / "got") == contents(tmp_path / "whole")
    assert len(find_cases(remote.local_folder(f"{bucket}/c"))) == 4
