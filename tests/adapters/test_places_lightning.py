"""Lightning: the frames of a batch, its own or MONAI's, reach the insertion."""

import lightning as L
import numpy as np
import pytest
import torch
from adapter_places import AFFINE, at_home, bank_at, host_at, lies_at_home
from engine import toy_insertion
from monai.data import DataLoader as MonaiLoader
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd
from torch import nn
from torch.utils.data import DataLoader

from synthaug.adapters.lightning import TumorInsertionMixin
from synthaug.adapters.monai import StoreHostFramed
from synthaug.frames import flipped, host_frame

KEYS = ["image", "label"]


class Segmenter(TumorInsertionMixin, L.LightningModule):
    def __init__(self, insertion, **entries):
        super().__init__()
        self.network, self.seen, self.validated = nn.Conv3d(4, 5, 1), [], []
        self.insert_tumors(insertion, **({"spacing_mm": (1, 1, 1)} | entries))

    def training_step(self, batch, index):
        self.seen.append(batch)
        image, label = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch[:2]
        image, label = (x.as_subclass(torch.Tensor) for x in (image, label))
        return nn.functional.cross_entropy(self.network(image / 100), label[:, 0].long())

    def validation_step(self, batch, index):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-6)


def fit(module, tmp_path, *loaders):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    L.Trainer(default_root_dir=tmp_path, max_epochs=1, enable_checkpointing=False, **quiet).fit(module, *loaders)
    return module


def flipped_samples(as_tuples=False):
    samples = []
    for seed, axes in enumerate(([0], [1, 2], [])):
        image, label = host_at(seed)
        frame = flipped(host_frame(image[0].numpy() != 0, AFFINE), image.shape[1:], axes)
        turned = [x.flip([a + 1 for a in axes]) for x in (image, label.long())]
        samples.append((*turned, frame) if as_tuples else {"image": turned[0], "label": turned[1], "where": frame})
    return samples


@pytest.mark.parametrize(("as_tuples", "entry"), [(False, "where"), (True, 2)])
def test_frames_are_an_entry_of_the_batch(as_tuples, entry, tmp_path):
    samples = flipped_samples(as_tuples)
    bare = [x[:2] if as_tuples else {k: x[k] for k in KEYS} for x in samples]
    module = fit(Segmenter(at_home(), frames=entry), tmp_path, DataLoader(samples, batch_size=3), DataLoader(bare))
    (batch,) = module.seen
    image, label = batch[:2] if as_tuples else (batch["image"], batch["label"])
    for b, given in enumerate(samples):
        before = given[:2] if as_tuples else (given["image"], given["label"])
        lies_at_home((before[0], before[1][0]), (image[b], label[b, 0]))
    assert len(module.validated) == 5 and isinstance(batch[entry], torch.Tensor)


def test_monais_tensors_bring_theirs(tmp_path):
    change = RandAffined(KEYS, prob=1.0, rotate_range=[0.2] * 3, mode=("bilinear", "nearest"))
    steps = Compose([StoreHostFramed("image"), RandFlipd(KEYS, prob=0.5, spatial_axis=0), change])
    data = []
    for seed in range(2):
        image, label = host_at(seed)
        whole = {"image": MetaTensor(image, affine=AFFINE), "label": MetaTensor(label.float(), affine=AFFINE)}
        data.append(steps.set_random_state(seed)(whole))
    module = fit(Segmenter(at_home(), spacing_mm=None), tmp_path, MonaiLoader(Dataset(data), batch_size=2))
    (batch,) = module.seen
    for b, given in enumerate(data):
        lies_at_home((given["image"], given["label"][0]), (batch["image"][b], batch["label"][b, 0]))


def test_without_frames_what_to_give_is_named(tmp_path):
    bare = [{key: sample[key] for key in KEYS} for sample in flipped_samples()]
    for insertion in (at_home(), toy_insertion(lesions=bank_at(), place="like-data")):
        with pytest.raises(ValueError, match=r"needs to know .*insert_tumors\(frames=\.\.\.\), or .* add Store"):
            fit(Segmenter(insertion), tmp_path, DataLoader(bare, batch_size=3))
    free = fit(Segmenter(toy_insertion(lesions=bank_at(), place="anywhere")), tmp_path, DataLoader(bare, batch_size=3))
    assert not np.array_equal(free.seen[0]["label"], torch.stack([x["label"] for x in bare]))
