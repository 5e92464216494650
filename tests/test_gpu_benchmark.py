"""The benchmark of GPUs runs without one: the same code on the CPU, with a tiny network."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture
def benchmark(monkeypatch):
    """Its `main`, called with arguments; returns the exit code."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        with pytest.raises(SystemExit) as stopped:
            module.main()
        return stopped.value.code

    return run


def test_it_measures_every_insertion_on_the_cpu(benchmark, tmp_path, capsys):
    assert benchmark("--device", "cpu", "--quick", "--out", str(tmp_path / "gpu.json")) == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["insertions"]
    printed = capsys.readouterr().out
    assert len(rows) == 6 and all(name in printed for name in rows)
    for name, row in rows.items():
        assert row["step ms"] > 0
        if name != "none":
            assert row["done"] > 0 and row["launches"] > 100 and row["waits"] == 0 and row["refused"] is None
    assert rows["brats-diffusion, 1 step"]["launches"] < rows["brats-diffusion, 4 steps"]["launches"]
    assert rows["painted ahead"]["launches"] < rows["brats-gan"]["launches"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so(benchmark, capsys):
    assert benchmark() == 2
    assert "no CUDA device here; --device cpu --quick" in capsys.readouterr().err
