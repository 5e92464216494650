"""Runs in processes of their own, forked from a server that imports the trainers once for all tests.

To import a trainer takes longer than what most tests do with it.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["preloaded_trainers"])
LONGEST_S = 300


def start(log: Path, function: Callable[..., Any], *args: Any, **environment: str) -> multiprocessing.Process:
    """A process that calls the function; what it prints goes into the file `log`."""
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        forkserver.ensure_running()
    process = CONTEXT.Process(target=_call, args=(log, function, args, environment))
    process.start()
    return process


def _call(log: Path, function: Callable[..., Any], args: tuple, environment: dict[str, str]) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    function(*args)


def start_two(log: Path, function: Callable[..., Any], *args: Any) -> list[multiprocessing.Process]:
    """Two processes that torch.distributed knows of, which call the function; each has a log with its rank's ending."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(own, function, *args, RANK=str(rank), LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true", **shared)
        for rank, own in enumerate(_logs(log))
    ]


def _logs(log: Path) -> list[Path]:
    return [log.with_suffix(f".{rank}") for rank in (0, 1)]


def in_two_processes(log: Path, function: Callable[..., Any], *args: Any) -> None:
    """Call the function in two processes that torch.distributed knows of; both end without error."""
    both = start_two(log, function, *args)
    for process in both:
        process.join(LONGEST_S)
        process.kill()
    assert [process.exitcode for process in both] == [0, 0], "\n".join(own.read_text()[-3000:] for own in _logs(log))
