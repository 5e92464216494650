"""The batchgeneratorsv2 transform: the engine's voxels, the library's randomness, its composition and its workers."""

import hashlib

import numpy as np
import pytest
import torch
from engine import CHANNELS, toy_bank, toy_batch, toy_insertion

from synthaug import LesionShapes
from synthaug.generators.paste import PasteGenerator
from synthaug.host import host_tissue

pytest.importorskip("batchgeneratorsv2", reason="batchgeneratorsv2 is not installed")

from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from synthaug.adapters.batchgenerators import InsertTumorTransform


def sample(seed=0, **more) -> dict:
    image, label = toy_batch(1, seed=seed)
    return {"image": image[0], "segmentation": label[0].to(torch.int16)} | more


def seeded(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def global_states():
    """The library draws from the global states: leave them as they were."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    np.random.set_state(state)


@pytest.mark.parametrize("generator", ["paste", "procedural"])
def test_voxels_are_the_engines(generator):
    lesions = toy_bank() if generator == "paste" else LesionShapes(diameter_mm=(8, 14))
    transform = InsertTumorTransform(toy_insertion(generator, lesions), spacing_mm=(1, 1, 1.5))
    before = sample()
    plan = transform.get_parameters(**before)["plan"]
    assert len(plan) == 1
    assert plan.insertions[0].spacing_mm == (1, 1, 1.5)
    after = transform.apply(dict(before), plan=plan)
    engine = toy_insertion(generator, lesions)
    host = torch.ones_like(before["segmentation"][None], dtype=torch.bool)
    host[..., :3] = False  # the background of these samples
    image, label = engine.apply(before["image"][None], before["segmentation"][None], plan, host=host)
    assert torch.equal(after["image"], image[0])
    assert torch.equal(after["segmentation"], label[0])
    assert after["segmentation"].dtype == torch.int16
    assert not torch.equal(after["segmentation"], before["segmentation"])


@pytest.mark.parametrize("outside", [-1, None])
def test_tissue_is_found_for_chosen_samples_only_and_once(outside, monkeypatch):
    transform = InsertTumorTransform(toy_insertion(prob=0.1, scale=0.5), outside_label=outside)
    looked_at = []
    for place in ("synthaug.host.rule", "synthaug.host"):
        monkeypatch.setattr(f"{place}.host_tissue", lambda image: looked_at.append(image) or host_tissue(image))
    chosen = 0
    seeded(0)
    for seed in range(30):
        before = sample(seed)
        after = transform(**before)
        unchanged = torch.equal(after["segmentation"], before["segmentation"])
        chosen += not unchanged
        assert torch.equal(after["image"], before["image"]) == unchanged
        assert len(looked_at) == chosen
    assert 0 < chosen < 10


def test_randomness_follows_numpy_and_torch():
    transform = InsertTumorTransform(toy_insertion())
    results = []
    for numpy_seed, torch_seed in ((1, 1), (1, 1), (2, 1), (1, 2)):
        np.random.seed(numpy_seed)
        torch.manual_seed(torch_seed)
        results.append(transform(**sample())["image"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[3])


def test_a_sample_does_not_depend_on_those_before():
    transform = InsertTumorTransform(toy_insertion())
    seeded(5)
    alone = transform(**sample())["image"]
    transform(**sample(seed=3))
    seeded(5)
    assert torch.equal(transform(**sample())["image"], alone)


def test_composed_with_the_librarys_transforms():
    transforms = ComposeTransforms(
        [
            MirrorTransform(allowed_axes=(0, 1, 2)),
            RandomTransform(InsertTumorTransform(toy_insertion()), apply_probability=1.0),
            RemoveLabelTransform(-1, 0),
            ConvertSegmentationToRegionsTransform(regions=[(1, 2, 4), (1, 4), 4]),
            DownsampleSegForDSTransform(ds_scales=[[1, 1, 1], [0.5, 0.5, 0.5]]),
        ]
    )
    seeded(0)
    full, half = transforms(**sample())["segmentation"]
    assert full.shape == (3, 48, 44, 40) and half.shape == (3, 24, 22, 20)
    existing = 8 * 8 * 7
    assert full[0].sum() > existing and full[2].sum() > 0


def test_outside_stays_and_gets_no_lesion():
    before = sample()
    outside = torch.zeros_like(before["segmentation"], dtype=torch.bool)
    outside[:, 24:] = True
    before["segmentation"][outside] = -1
    transform = InsertTumorTransform(toy_insertion())
    for seed in range(4):
        seeded(seed)
        after = transform(**dict(before))
        assert (after["segmentation"][outside] == -1).all()
        assert torch.equal(after["image"][:, outside[0]], before["image"][:, outside[0]])
        assert not torch.equal(after["segmentation"], before["segmentation"])


def test_groups_and_spacing_of_the_sample():
    bank = toy_bank(2)
    transform = InsertTumorTransform(toy_insertion(lesions=bank), spacing_mm=(1, 1, 1))
    for seed in range(6):
        seeded(seed)
        plan = transform.get_parameters(**sample(group="patient-0", spacing_mm=(2, 1, 1)))["plan"]
        assert plan.insertions[0].donor_group == "patient-1"
        assert plan.insertions[0].spacing_mm == (2, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": [torch.zeros(1, 4, 4, 4)]}, "list of 1; insert before"),
        ({"segmentation": torch.zeros(3, 48, 44, 40, dtype=torch.bool)}, "insert before"),
        ({"segmentation": torch.zeros(2, 48, 44, 40, dtype=torch.int16)}, r"\(1, X, Y, Z\)"),
        ({"segmentation": None}, "NoneType"),
        ({"image": torch.zeros(4, 48, 44)}, "3-D only"),
    ],
)
def test_wrong_samples_are_named(change, message):
    with pytest.raises(TypeError, match=message):
        InsertTumorTransform(toy_insertion())(**sample(**change))


def test_wrong_channels_and_labels_are_named():
    transform = InsertTumorTransform(toy_insertion())
    with pytest.raises(ValueError, match=r"4 channels \(flair, t1, t1ce, t2\), got 3"):
        transform(**sample(image=torch.zeros(3, 48, 44, 40)))
    with pytest.raises(ValueError, match="BRATS18"):
        transform(**sample(segmentation=torch.full((1, 48, 44, 40), 3, dtype=torch.int16)))
    with pytest.raises(TypeError, match="TumorInsertion, got str"):
        InsertTumorTransform("paste")


class Loader(SlimDataLoaderBase):
    """The same sample again and again, transformed in the loader as nnU-Net's does."""

    def __init__(self, transform):
        super().__init__(None, 1)
        self.transform = transform

    def generate_train_batch(self):
        out = self.transform(**sample())
        return {"data": out["image"][None], "target": out["segmentation"][None], "worker": self.thread_id}


@pytest.mark.parametrize("seeds", [None, [1, 2]])
def test_workers_of_nnunets_augmenter_differ(seeds):
    transform = InsertTumorTransform(toy_insertion(min_voxels=1))
    augmenter = NonDetMultiThreadedAugmenter(Loader(transform), None, 2, num_cached=1, seeds=seeds)
    seen: dict[int, set[str]] = {0: set(), 1: set()}
    try:
        for _ in range(60):
            batch = next(augmenter)
            seen[batch["worker"]].add(hashlib.sha256(batch["data"].numpy().tobytes()).hexdigest())
            if min(len(s) for s in seen.values()) >= 2:
                break
    finally:
        augmenter._finish()
    assert min(len(s) for s in seen.values()) >= 2
    assert not seen[0] & seen[1]


class OnDevice(PasteGenerator):
    """A generator that says that it is on a GPU."""

    device = torch.device("cuda", 0)


def test_a_gpu_generator_in_a_worker_is_refused(monkeypatch):
    insertion = toy_insertion(OnDevice(), channels=CHANNELS)
    transform = InsertTumorTransform(insertion)
    monkeypatch.setattr("synthaug.adapters.workers.in_worker", lambda: True)
    with pytest.raises(RuntimeError, match="after it was moved to the device"):
        transform(**sample())
