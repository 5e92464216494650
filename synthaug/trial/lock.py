"""The lock of a trial's folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthaug.config import ConfigError

FILE = "lock"


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Hold the lock of a folder within the block, and give its file descriptor, which trainings inherit.

    The system lets go of it when the last process that has it ends, however it ends: the lock of a dead launch is no
    hindrance, and that of a launch whose training still runs is one.

    Raises:
        ConfigError: another launch, or a training that it left behind, is at work there.
    """
    import fcntl

    out.mkdir(parents=True, exist_ok=True)
    with (out / FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{out}: process {file.read().strip()}, or a training that it left behind, is at work there"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()
