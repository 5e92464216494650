"""Tiny segmentation runs on phantoms, which the tests of the segmentation trainer share; they import its fixtures."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState

from synthaug import TumorInsertion
from synthaug.config import read_config
from synthaug.data import write_phantom_dataset
from synthaug.training import segmentation_insertion
from synthaug.training.launch import load_trainer
from synthaug.training.run import read_metrics
from synthaug.training.segmentation_config import SegmentationConfig

ROOT = Path(__file__).parents[1]
segmentation = load_trainer("segmentation")

STEPS = 8
TINY = {
    "threads": 1,
    "log_every": 2,
    "checkpoint_every": 3,
    "data": {
        "channels": ["flair", "t1ce"],
        "regions": {"WT": ["NCR", "ED", "ET"], "ET": ["ET"]},
        "validation": ["Phantom_002_1"],
        "patch_size": [24, 24, 24],
        "batch": 2,
    },
    "network": {"filters": [4, 8, 8], "strides": [1, 2, 2]},
    "augmentation": {"affine": 0.3, "flip": 0.5},
    "optimizer": {"steps": STEPS, "lr": 0.01, "ema": 0.5},
    "insertion": {"prob": 1.0, "scale": [0.3, 0.6], "clearance_mm": 1.0, "decay_from": None, "decay_to": None},
    "validation": {"every": 4},
    "examples": 2,
    "report": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three phantoms of 40^3 voxels, the last for validation."""
    folder = tmp_path_factory.mktemp("cases")
    write_phantom_dataset(folder, count=3, seed=7, size=(40, 40, 40))
    return folder


@pytest.fixture(autouse=True)
def clean_process(monkeypatch):
    """On the CPU; whatever of the process a training changes is put back."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    threads, states = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path, folder):
    """A function that trains TINY, with overrides, in a folder, and returns the rows of metrics."""

    def run(*overrides, out="run"):
        for state in (AcceleratorState, GradientState, PartialState):
            state._shared_state.clear()
        config = read_config(config_file(tmp_path, folder), SegmentationConfig, overrides)
        segmentation.train(config, tmp_path / out)
        return read_metrics(tmp_path / out)

    return run


def config_file(tmp_path, folder) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | {"data": TINY["data"] | {"folder": str(folder)}}), encoding="utf-8")
    return path


@pytest.fixture
def made(monkeypatch):
    """The lesion sources of the insertions that are made."""
    sources, insertion = [], TumorInsertion

    def watched(lesions, *args, **options):
        sources.append(lesions)
        return insertion(lesions, *args, **options)

    monkeypatch.setattr(segmentation_insertion, "TumorInsertion", watched)
    return sources
