"""Locks of a cohort: one launch writes into it, or several that joined by choice; those of dead launches count nothing.

.synthaug/locks/<id>.json is there while a launch works, and says who it is and when it last gave a sign of life. On the
launch's own machine the process itself is looked for; from elsewhere a launch is dead after `DEAD_AFTER_S` in silence.
Two launches that write the same case write the same bytes: locks spare work, they do not guard the result.
"""

import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from synthaug.cohort.encoding import json_bytes
from synthaug.cohort.store import HIDDEN, Store
from synthaug.config import ConfigError

logger = logging.getLogger(__name__)

LOCKS = f"{HIDDEN}/locks"
SIGN_EVERY_S, DEAD_AFTER_S = 30.0, 180.0
MOST_PATIENCE_S = 0.5


@dataclass(frozen=True)
class Launch:
    """Who works on a cohort.

    Attributes:
        id: unique.
        host: name of the machine.
        space: where its process ids are valid: boot and namespace; machines may share a name.
        pid: process.
        started: when the process was started, in seconds since 1970; ids of processes are used again.
        since: when the launch began to work on the cohort, in seconds since 1970.
        sign: when it last gave a sign of life.
        shard: (i, n) where it makes the i-th of n shares.
        joins: whether it joined by choice.
    """

    id: str
    host: str
    space: str
    pid: int
    started: float
    since: float
    sign: float
    shard: tuple[int, int] | None
    joins: bool

    @classmethod
    def of_this_process(cls, shard: tuple[int, int] | None, joins: bool) -> "Launch":
        """Describe a launch that this process begins now."""
        now, started = time.time(), psutil.Process().create_time()
        return cls(uuid.uuid4().hex, socket.gethostname(), _space(), os.getpid(), started, now, now, shard, joins)

    @property
    def path(self) -> str:
        """Path of the lock in the cohort."""
        return f"{LOCKS}/{self.id}.json"

    @property
    def is_alive(self) -> bool:
        """Whether its process is there, or, where that cannot be seen from here, it gave a sign of life lately."""
        if (self.host, self.space) != (socket.gethostname(), _space()):
            return time.time() - self.sign < DEAD_AFTER_S
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False

    def tolerates(self, other: "Launch") -> bool:
        """Whether this launch may work beside another one, which was there first."""
        return self.joins or (self.shard is not None and other.shard is not None and self._shares_nothing_with(other))

    def _shares_nothing_with(self, other: "Launch") -> bool:
        assert self.shard is not None and other.shard is not None  # `tolerates` asks
        return self.shard[1] == other.shard[1] and self.shard[0] != other.shard[0]

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        share = "" if self.shard is None else f", shard {self.shard[0]}/{self.shard[1]}"
        return f"process {self.pid} on {self.host}, since {since}{share}"


class Locks:
    """The locks of a cohort.

    Args:
        store: of the cohort.
    """

    def __init__(self, store: Store):
        self.store = store

    def living(self) -> list[Launch]:
        """List the launches that work now, the first one first; locks of dead ones are removed."""
        found: list[Launch] = []
        dead: list[Launch] = []
        for name in self.store.names(LOCKS):
            try:
                values = json.loads(self.store.read(f"{LOCKS}/{name}"))
                launch = Launch(**values | {"shard": values["shard"] and tuple(values["shard"])})
            except FileNotFoundError:  # it ended in this moment
                continue
            (found if launch.is_alive else dead).append(launch)
        for launch in dead:
            logger.info("taken over from a launch that died: %s", launch)
        self.store.remove([launch.path for launch in dead])
        return sorted(found, key=lambda launch: (launch.since, launch.id))

    @contextmanager
    def held(self, shard: tuple[int, int] | None = None, join: bool = False) -> Iterator[Launch]:
        """Hold a lock for the time of a block, with signs of life.

        Args:
            shard: (i, n) where the launch makes the i-th of n shares: the other shares may be made beside it.
            join: work beside any other launch.

        Yields:
            The launch that holds it.

        Raises:
            ConfigError: another launch works on the cohort; it is named.
        """
        me = self._entered(Launch.of_this_process(shard, join))
        ended = threading.Event()
        signs = threading.Thread(target=self._give_signs, args=(me, ended), daemon=True, name="signs of life")
        try:
            signs.start()
            yield me
        finally:
            ended.set()
            signs.join()
            self.store.remove([me.path])

    def others(self, me: Launch) -> list[Launch]:
        """List the launches that work beside this one."""
        return [launch for launch in self.living() if launch.id != me.id]

    def _entered(self, me: Launch) -> Launch:
        """Write the lock where no other is there; of two that come at the same moment both step back and come again."""
        while True:
            for other in self.living():
                if not me.tolerates(other):
                    raise ConfigError(f"{self.store.address}: {_refusal(other)}")
            self._sign(me)
            if all(me.tolerates(other) for other in self.others(me)):
                return me
            self.store.remove([me.path])
            time.sleep(random.SystemRandom().uniform(0, MOST_PATIENCE_S))

    def _give_signs(self, me: Launch, ended: threading.Event) -> None:
        while not ended.wait(SIGN_EVERY_S):
            try:
                self._sign(me)
            except OSError as error:
                logger.warning("no sign of life could be written: %s", error)

    def _sign(self, me: Launch) -> None:
        self.store.write("lock", {me.path: json_bytes(asdict(replace(me, sign=time.time())))})


def _refusal(other: Launch) -> str:
    words = f"another launch works on this cohort ({other}); wait for it, or join it with --join"
    if (other.host, other.space) == (socket.gethostname(), _space()):
        return words
    silent = max(0, round(time.time() - other.sign))
    return f"{words}. Its last sign of life is {silent} s old; it counts as dead after {DEAD_AFTER_S:.0f} s"


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return str(round(psutil.boot_time()))
