"""Lightning: insertion in a real `Trainer`'s training batches and nowhere else, and nothing of it in the checkpoint."""

import warnings
from collections import namedtuple

import lightning as L
import pytest
import torch
from engine import toy_batch, toy_insertion
from torch import nn
from torch.utils.data import DataLoader

from synthaug import TumorGenerator
from synthaug.adapters.lightning import TumorInsertionMixin

SIZE = (24, 24, 24)
ENTRIES = {"spacing_mm": (1, 1, 1), "groups": "patient"}


@pytest.fixture
def insertion():
    return toy_insertion(scale=0.4)


class NetworkGenerator(nn.Module, TumorGenerator):
    """A generator that is a module itself, the worst case for a checkpoint."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(2, 2)

    def generate(self, context, mask, seeds, donor=None):
        return torch.full_like(context, 9.0)


class Segmenter(TumorInsertionMixin, L.LightningModule):
    def __init__(self, insertion, **entries):
        super().__init__()
        self.network = nn.Conv3d(4, 5, 1)
        self.seen = {"train": [], "validate": []}
        if insertion is not None:
            self.insert_tumors(insertion, **ENTRIES | entries)

    def training_step(self, batch, index):
        self.seen["train"].append(batch)
        return nn.functional.cross_entropy(self.network(batch["image"] / 100), batch["label"][:, 0])

    def validation_step(self, batch, index):
        self.seen["validate"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-6)


def loader(workers=0, **changes):
    image, label = toy_batch(4, size=SIZE, labelled=False)
    pairs = zip(image, label, strict=True)
    samples = [{"image": i, "label": m, "patient": f"host-{n}"} | changes for n, (i, m) in enumerate(pairs)]
    return DataLoader(samples, batch_size=2, num_workers=workers)


def trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=tmp_path, **quiet | {"enable_checkpointing": False, "max_epochs": 2} | options)


def test_training_batches_get_the_engines_voxels_and_validation_batches_none(insertion, tmp_path):
    module, fit = Segmenter(insertion), trainer(tmp_path)
    fit.fit(module, loader(workers=2), loader())
    logged = {name: value.item() for name, value in fit.logged_metrics.items()}
    fit.validate(module, loader(), verbose=False)
    twin = toy_insertion(scale=0.4)
    assert len(module.seen["train"]) == 4 and len(module.seen["validate"]) == 2 + 4 + 2  # sanity, epochs, validate
    for batch, given in zip(module.seen["train"], [*loader()] * 2, strict=True):
        image, label = twin(given["image"], given["label"], spacing_mm=(1, 1, 1), groups=given["patient"])
        assert torch.equal(batch["image"], image) and torch.equal(batch["label"], label)
        assert batch["patient"] == given["patient"]
    for batch, given in zip(module.seen["validate"], [*loader()] * 4, strict=True):
        assert torch.equal(batch["image"], given["image"]) and torch.equal(batch["label"], given["label"])
    report = insertion.report()
    assert report == twin.report() and report.done > 0
    assert logged == {"synthaug/samples": 8, "synthaug/asked": report.asked, "synthaug/done": report.done}


def test_generator_weights_are_no_part_of_the_module_and_a_run_continues(tmp_path):
    def made():
        return toy_insertion(NetworkGenerator(), scale=0.4, prob=0.7)

    whole, first, resumed = made(), made(), made()
    trainer(tmp_path).fit(Segmenter(whole), loader())
    module, fit = Segmenter(first), trainer(tmp_path, max_epochs=1)
    fit.fit(module, loader())
    names = {"network.weight", "network.bias"}
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()} == names
    assert sum(len(group["params"]) for group in fit.optimizers[0].param_groups) == 2
    fit.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == names and checkpoint["synthaug"]["number"] == 4
    assert (tmp_path / "last.ckpt").stat().st_size < 60_000
    module = Segmenter(resumed)
    trainer(tmp_path).fit(module, loader(), ckpt_path=tmp_path / "last.ckpt")
    assert len(module.seen["train"]) == 2 and resumed.report() == whole.report()


def test_hyperparameters_must_not_hold_the_insertion(insertion, tmp_path):
    class Saving(Segmenter):
        def __init__(self, insertion, ignore=()):
            super().__init__(insertion)
            self.save_hyperparameters(ignore=list(ignore))

    with pytest.raises(ValueError, match=r"every checkpoint.*save_hyperparameters\(ignore=\['insertion'\]\)"):
        trainer(tmp_path).fit(Saving(insertion), loader())
    trainer(tmp_path, max_steps=1).fit(Saving(insertion, ["insertion"]), loader())


Pair = namedtuple("Pair", ["image", "label"])


@pytest.mark.parametrize("kind", [lambda *pair: list(pair), lambda *pair: pair, Pair])
def test_sequences_keep_their_kind(insertion, tmp_path, kind):
    class OfPairs(Segmenter):
        def training_step(self, batch, index):
            return super().training_step({"image": batch[0], "label": batch[1], "kind": type(batch)}, index)

    module = OfPairs(insertion, groups=None)
    pairs = [kind(batch["image"], batch["label"]) for batch in loader()]
    trainer(tmp_path, max_steps=1).fit(module, DataLoader(pairs, collate_fn=lambda batch: batch[0]))
    (batch,) = module.seen["train"]
    assert batch["label"].any() and batch["kind"] is type(pairs[0])


def test_images_of_one_channel_each_and_a_spacing_entry(insertion, tmp_path):
    names = ("t1", "flair", "t2", "t1ce")

    class Split(Segmenter):
        def training_step(self, batch, index):
            image = torch.cat([batch[name] for name in ("flair", "t1", "t1ce", "t2")], dim=1)
            return super().training_step(batch | {"image": image}, index)

    batches = []
    for batch in loader():
        image = batch.pop("image")
        channels = {name: image[:, i, None] for i, name in enumerate(("flair", "t1", "t1ce", "t2"))}
        batches.append(batch | channels | {"mm": torch.tensor([[1.0, 1.0, 1.0]] * 2)})
    module = Split(insertion, image=names, spacing_mm="mm")
    trainer(tmp_path, max_epochs=1).fit(module, DataLoader(batches, batch_size=None))
    twin = toy_insertion(scale=0.4)
    for batch, given in zip(module.seen["train"], loader(), strict=True):
        expected = twin(given["image"], given["label"], groups=given["patient"])
        assert torch.equal(batch["image"], expected[0]) and torch.equal(batch["label"], expected[1])


@pytest.mark.parametrize(
    ("entries", "changes", "error", "words"),
    [
        ({"spacing_mm": None}, {}, ValueError, "carry no voxel size; give spacing_mm"),
        ({}, {"label": torch.zeros(5, *SIZE)}, ValueError, "one channel of class values, got 5"),
        ({}, {"label": [torch.zeros(1, *SIZE)] * 3}, TypeError, "a list of 3.*deep supervision"),
        ({}, {"image": torch.zeros(3, *SIZE)}, ValueError, r"expected 4 channels \(flair, t1, t1ce, t2\), got 3"),
        ({}, {"label": torch.full((1, *SIZE), 9)}, ValueError, "0 and the values of BRATS18"),
    ],
)
def test_wrong_use_is_named(insertion, tmp_path, entries, changes, error, words):
    with pytest.raises(error, match=words):
        trainer(tmp_path).fit(Segmenter(insertion, **entries), loader(**changes))


def test_hooks_that_would_never_run_are_named(insertion, tmp_path):
    with pytest.raises(TypeError, match="put TumorInsertionMixin before LightningModule"):
        type("Late", (L.LightningModule, TumorInsertionMixin), {})
    with pytest.raises(RuntimeError, match=r"call self\.insert_tumors"):
        trainer(tmp_path).fit(Segmenter(None), loader())

    class Deaf(Segmenter):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch

    with pytest.warns(RuntimeWarning, match="no training batch came by"):
        trainer(tmp_path, max_epochs=1).fit(Deaf(insertion), loader())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no training batch")
        trainer(tmp_path, max_epochs=1).fit(Segmenter(insertion), loader())
    with pytest.raises(TypeError, match="expected a TumorInsertion, got NoneType"):
        Segmenter(None).insert_tumors(None)
