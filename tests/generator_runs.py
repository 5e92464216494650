"""Tiny runs of the generators' trainers on phantoms, which the tests of both share."""

import runpy
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import processes
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from synthaug.config import read_config
from synthaug.training.launch import load_trainer, trainer_file
from synthaug.training.run import read_metrics

ROOT = Path(__file__).parent.parent

TINY = (
    "precision=fp32",
    "threads=1",
    "optimizer.steps=6",
    "log_every=2",
    "checkpoint_every=2",
    "demo.every=3",
    "demo.count=1",
    "data.phantom.count=3",
    "data.phantom.size=[48,48,48]",
    "data.validation=[]",
)


@dataclass(frozen=True)
class TinyRuns:
    """Runs of one trainer.

    Attributes:
        name: of the trainer; its configuration is configs/NAME_tiny.yaml.
        config: class of its configuration.
        changes: of the configuration, beside `TINY`.
        critic: whether it has one, which then is tiny too.
    """

    name: str
    config: type
    changes: tuple[str, ...]
    critic: bool = True

    @property
    def file(self) -> Path:
        """The configuration."""
        return ROOT / f"configs/{self.name}_tiny.yaml"

    @property
    def tiny(self) -> tuple[str, ...]:
        """All changes that make it tiny."""
        return (*TINY, *(["critic.widths=[8,8,8]"] if self.critic else []), *self.changes)

    def configured(self, *changes: str):
        """The configuration with changes."""
        return read_config(self.file, self.config, [*self.tiny, *changes])

    def run(self, out: Path, *changes: str) -> None:
        """A run in this process, whatever the one before it computed in."""
        AcceleratorState._reset_state(True)
        load_trainer(self.name).train(self.configured(*changes), Path(out))

    def command(self, out: Path, *changes: str, code: int = 0) -> None:
        """A run by the trainer's own command line, which ends with the exit code."""
        AcceleratorState._reset_state(True)
        script = str(trainer_file(self.name))
        told = [script, "--config", str(self.file), "--out", str(out), *self.tiny, *changes]
        with mock.patch.object(sys, "argv", told), pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        assert ended.value.code == code

    def killed(self, out: Path) -> None:
        """A run that is killed without warning, at whatever moment it had come to after its first checkpoint."""
        process = processes.start(
            out / "log", load_trainer(self.name).train, self.configured(), out, ACCELERATE_USE_CPU="true"
        )
        deadline = time.monotonic() + processes.LONGEST_S
        while not any((out / "checkpoints").glob("step_*")) and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was done before it could be killed"

    def killed_among_two(self, out: Path, *changes: str) -> None:
        """A run by two processes of which one is killed after the first checkpoint; the other one ends by itself."""
        out.mkdir(parents=True, exist_ok=True)
        both = processes.start_two(out / "log", load_trainer(self.name).train, self.configured(*changes), out)
        deadline = time.monotonic() + processes.LONGEST_S
        while not any((out / "checkpoints").glob("step_*")) and both[1].is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        both[1].kill()
        for process in both:
            process.join(processes.LONGEST_S)
        assert both[1].exitcode == -signal.SIGKILL, "it was done before it could be killed"
        assert both[0].exitcode not in (None, 0), "a rank went on without the other one"

    def in_two(self, out: Path, *changes: str) -> None:
        """A run by two processes, or the rest of one."""
        out.mkdir(parents=True, exist_ok=True)
        processes.in_two_processes(out / "log", load_trainer(self.name).train, self.configured(*changes), out)

    def by_two_processes(self, out: Path, *changes: str) -> None:
        """A run of three steps by two processes."""
        config = self.configured("optimizer.steps=3", "data.batch=1", *changes)
        processes.in_two_processes(out / "log", load_trainer(self.name).train, config, out)


def assert_same(ours: Path, theirs: Path) -> None:
    """Two runs of six steps ended with the same weights, the averaged ones too, and wrote the same metrics."""
    for name in ("pytorch_model.bin", "pytorch_model_1.bin"):
        files = [out / "checkpoints" / "step_00000006" / name for out in (ours, theirs)]
        a, b = (torch.load(file, weights_only=True) for file in files)
        assert all(torch.equal(a[key], b[key]) for key in b), name
    a, b = (load_file(out / "generator" / "model.safetensors") for out in (ours, theirs))
    assert all(torch.equal(a[key], b[key]) for key in b)
    a, b = ([row | {"seconds_per_step": 0} for row in read_metrics(out)] for out in (ours, theirs))
    assert a == b
