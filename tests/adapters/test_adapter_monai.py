"""MONAI: the transforms in its own Compose, Dataset and DataLoader, the batch form in its engines, both in a bundle."""

import json

import numpy as np
import pytest
import torch
from engine import toy_bank, toy_batch, toy_gan, toy_insertion
from loading import drained
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandGaussianNoised
from monai.utils import set_determinism
from torch import nn

from synthaug import InsertionPlan, LesionShapes
from synthaug.adapters import monai as adapter
from synthaug.adapters.monai import PrepareBatchInsertTumor, RandInsertTumor, RandInsertTumord

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SIZE = (36, 34, 32)


@pytest.fixture
def insertion():
    return toy_insertion(scale=0.5, second=0.5)


def sample(seed=0, label_dtype=torch.float32):
    """As `LoadImaged` gives it: floating, with an affine."""
    image, label = toy_batch(1, size=SIZE, seed=seed)
    return {
        "image": MetaTensor(image[0], affine=AFFINE, meta={"name": f"case-{seed}"}),
        "label": MetaTensor(label[0].to(label_dtype), affine=AFFINE),
        "patient": f"host-{seed}",
    }


def transform(insertion, **options):
    options = {"prob": 1.0, "group_key": "patient", "record_key": "rows"} | options
    return RandInsertTumord("image", "label", insertion, **options)


@pytest.mark.parametrize("label_dtype", [torch.float32, torch.uint8, torch.int64])
def test_voxels_are_the_engines_for_the_same_plan(insertion, label_dtype):
    data = sample(label_dtype=label_dtype)
    before = {key: data[key].clone() for key in ("image", "label")}
    out = transform(insertion).set_random_state(3)(data)
    plan = InsertionPlan.from_rows(json.loads(out["rows"]))
    image, label = data["image"].as_tensor()[None], data["label"].as_tensor()[None].long()
    image, label = toy_insertion(scale=0.5, second=0.5).apply(image, label, plan)
    assert torch.equal(out["image"].as_tensor(), image[0])
    assert torch.equal(out["label"].as_tensor().long(), label[0])
    assert not torch.equal(out["label"], data["label"]) and out["label"].dtype == label_dtype
    assert plan.insertions[0].spacing_mm == (1, 1, 2) and plan.insertions[0].host_group == "host-0"
    assert all(torch.equal(data[key], before[key]) for key in before)


def test_metadata_and_array_types_are_kept(insertion):
    out = transform(insertion)(sample(4))
    assert isinstance(out["image"], MetaTensor) and isinstance(out["label"], MetaTensor)
    assert out["image"].meta["name"] == "case-4" and torch.equal(out["label"].affine, torch.from_numpy(AFFINE))
    arrays = {key: np.asarray(value) for key, value in sample().items() if key != "patient"}
    image, label = RandInsertTumor(insertion, prob=1.0, spacing_mm=(1, 1, 2))(arrays["image"], arrays["label"])
    assert type(image) is np.ndarray and type(label) is np.ndarray and (label != arrays["label"]).any()
    tensor, _ = RandInsertTumor(insertion, prob=1.0, spacing_mm=(1, 1, 1))(*map(torch.from_numpy, arrays.values()))
    assert type(tensor) is torch.Tensor


def test_array_and_dictionary_forms_agree_and_the_random_state_is_drawn_in_randomize_alone(insertion):
    data = sample()
    array = RandInsertTumor(insertion, prob=1.0).set_random_state(5)
    out = transform(insertion, group_key=None).set_random_state(5)(data)
    image, label = array(data["image"], data["label"])
    assert torch.equal(image, out["image"]) and torch.equal(label, out["label"])
    state = array.R.get_state()
    again, _ = array(data["image"], data["label"], randomize=False)
    assert torch.equal(again, image) and np.array_equal(array.R.get_state()[1], state[1])
    assert not torch.equal(array(data["image"], data["label"])[0], image)
    assert insertion.number == 0, "the insertion's own random sequence is not used"


def test_the_dictionary_form_has_monais_other_names():
    assert adapter.RandInsertTumorD is adapter.RandInsertTumorDict is RandInsertTumord


def test_prob_decides_and_samples_not_chosen_are_the_inputs(insertion):
    rand = transform(insertion, prob=0.5).set_random_state(0)
    outs = [(data, rand(data)) for data in map(sample, range(12))]
    same = [out["image"] is data["image"] and out["label"] is data["label"] for data, out in outs]
    assert 2 <= sum(same) <= 10
    assert same == [out["rows"] == "[]" for _, out in outs]
    assert insertion.report().samples == 12
    assert RandInsertTumor(toy_insertion(prob=0.3)).prob == 0.3
    with pytest.raises(ValueError, match=r"prob: expected a probability in \[0, 1\], got 2"):
        transform(insertion, prob=2)


def epoch(loader):
    """What a loader gives: rows of the plans, and the images."""
    batches = list(loader)
    rows = [json.loads(text) for batch in batches for text in batch["rows"]]
    return [row["seed"] for sample_rows in rows for row in sample_rows], torch.cat([b["image"] for b in batches])


@pytest.mark.parametrize("loader_class", [DataLoader, torch.utils.data.DataLoader])
def test_workers_differ_between_themselves_and_epochs_and_repeat_from_the_seed(insertion, loader_class):
    data = [sample(0) for _ in range(4)]  # equal, so that equal draws would show
    steps = Compose([RandFlipd(["image", "label"], prob=0.5), transform(insertion), RandGaussianNoised("image")])
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        loader = loader_class(Dataset(data, steps), batch_size=1, num_workers=2, collate_fn=list_data_collate)
        runs.append([epoch(loader) for _ in range(2)])
    (first, second), again = runs
    seeds = [*first[0], *second[0]]
    assert len(seeds) >= 8 and len(set(seeds)) == len(seeds)
    assert [e[0] for e in again] == [first[0], second[0]]
    if loader_class is DataLoader:
        assert all(torch.equal(a[1], b[1]) for a, b in zip(again, (first, second), strict=True))
    assert insertion.report().samples == 16 and insertion.report().asked == 2 * len(seeds)


def test_without_workers_set_determinism_is_enough(insertion):
    runs = []
    for _ in range(2):
        set_determinism(3)
        runs.append(epoch(DataLoader(Dataset([sample(0)] * 3, transform(insertion)), batch_size=3))[0])
    set_determinism(None)
    assert runs[0] == runs[1] and len(set(runs[0])) == len(runs[0])


def test_images_of_one_channel_each_go_by_their_names(insertion):
    data = sample()
    whole = transform(insertion).set_random_state(1)(data)
    names = ("t1c", "t2", "FLAIR", "t1")  # another order than the insertion's, aliases and capitals
    split = {"label": data["label"], "patient": "host-0"}
    split |= {name: data["image"][i : i + 1] for name, i in zip(names, (2, 3, 0, 1), strict=True)}
    rand = RandInsertTumord(names, "label", insertion, prob=1.0, group_key="patient").set_random_state(1)
    out = rand(split)
    assert torch.equal(torch.cat([out[n] for n in ("FLAIR", "t1", "t1c", "t2")]), whole["image"])
    assert isinstance(out["t2"], MetaTensor) and torch.equal(out["label"], whole["label"])
    with pytest.raises(
        ValueError, match=r"expected one with the channels flair, t1, t1ce, t2 .* got t1c, t2, FLAIR, b0"
    ):
        RandInsertTumord((*names[:3], "b0"), "label", insertion)(split | {"b0": split["t1"]})
    del split["t1"]
    with pytest.raises(KeyError, match="t1"):
        rand(split)
    out = RandInsertTumord(names, "label", insertion, prob=1.0, allow_missing_keys=True).set_random_state(1)(split)
    assert "t1" not in out and not torch.equal(out["t2"], split["t2"])


def test_missing_keys_are_an_error_or_left_alone(insertion):
    data = sample()
    del data["label"]
    with pytest.raises(KeyError, match="label"):
        transform(insertion)(data)
    assert transform(insertion, allow_missing_keys=True)(data)["image"] is data["image"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"label": torch.zeros(3, *SIZE)}, ValueError, r"one channel of class values, got 3 .*AsDiscrete"),
        ({"label": [torch.zeros(1, *SIZE)] * 2}, TypeError, r"got a list of 2.*deep supervision"),
        ({"label": torch.full((1, *SIZE), 0.5)}, ValueError, "label: expected 0 and the values of BRATS18"),
        ({"image": torch.zeros(4, *SIZE)}, ValueError, r"spacing_mm: .* carry no voxel size"),
        ({"image": torch.zeros(3, *SIZE)}, ValueError, r"expected 4 channels \(flair, t1, t1ce, t2\), got 3"),
        ({"image": torch.zeros(4, *SIZE[:2])}, ValueError, r"image: expected 4 dimensions \(C, X, Y, Z\), got 3"),
    ],
)
def test_wrong_use_is_named(insertion, change, error, words):
    options = {"spacing_mm": (1, 1, 1)} if "channels" in words or "BRATS" in words else {}
    with pytest.raises(error, match=words):
        transform(insertion, **options)(sample() | change)


def test_channels_that_the_generator_does_not_know_are_named():
    with pytest.raises(ValueError, match=r"GANGenerator knows the channels t1, t2; .* has flair, t1, t1ce, t2"):
        toy_insertion(toy_gan(("t1", "t2")), LesionShapes(diameter_mm=(8, 12)))


def test_a_gpu_generator_in_a_worker_raises_with_advice(insertion):
    insertion.generator.device = torch.device("cuda")
    loader = DataLoader(Dataset([sample()] * 2, transform(insertion)), num_workers=1)
    with pytest.raises(RuntimeError, match=r"loader worker") as caught:
        drained(loader)
    assert "batch form" in str(caught.value)


def engines(insertion, loader, prepare):
    network = nn.Conv3d(4, 5, 1)
    seen = {"train": [], "validate": []}

    def loss(prediction, label):
        seen["train"].append(label)
        return nn.functional.cross_entropy(prediction, label[:, 0].long())

    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, network, prepare_batch=prepare, epoch_length=2)
    evaluator.add_event_handler("ITERATION_COMPLETED", lambda e: seen["validate"].append(e.state.output))
    optimizer = torch.optim.SGD(network.parameters(), 1e-6)
    trainer = SupervisedTrainer(torch.device("cpu"), 2, loader, network, optimizer, loss, prepare_batch=prepare)
    trainer.add_event_handler("EPOCH_COMPLETED", lambda _: evaluator.run())
    return trainer, seen


def test_the_batch_form_acts_in_the_trainer_and_not_in_the_evaluator(insertion):
    loader = DataLoader(Dataset([sample(i) for i in range(4)]), batch_size=2, num_workers=2)
    trainer, seen = engines(insertion, loader, PrepareBatchInsertTumor(insertion, group_key="patient"))
    trainer.run()
    report = insertion.report()
    assert report.samples == 8 and len(seen["train"]) == 4
    twin = toy_insertion(scale=0.5, second=0.5)
    batches = [list_data_collate([sample(i), sample(i + 1)]) for i in (0, 2)]
    for batch, label in zip(batches * 2, seen["train"], strict=True):
        image, classes = batch["image"].as_tensor(), batch["label"].as_tensor().long()
        expected = twin(image, classes, spacing_mm=(1, 1, 2), groups=batch["patient"])[1]
        assert torch.equal(label.as_tensor().long(), expected) and isinstance(label, MetaTensor)
    given = torch.stack([sample(i)["label"].as_tensor() for i in range(4)])
    validated = [item["label"].as_tensor() for output in seen["validate"] for item in output]
    assert len(validated) == 8 and torch.equal(torch.stack(validated[:4]), given)


def test_the_batch_form_in_a_plain_loop(insertion):
    prepare = PrepareBatchInsertTumor(insertion)
    batch = list_data_collate([sample(0), sample(1)])
    image, label = prepare(batch, "cpu")
    assert isinstance(image, MetaTensor) and insertion.report().done > 0 and label.dtype == torch.float32
    with pytest.raises(ValueError, match="carry no voxel size"):
        prepare((batch["image"].as_tensor(), batch["label"].as_tensor()))
    fixed = PrepareBatchInsertTumor(insertion, spacing_mm=(1, 1, 2))
    assert type(fixed((batch["image"].as_tensor(), batch["label"].as_tensor()))[0]) is torch.Tensor
    with pytest.raises(TypeError, match="list of 2"):
        prepare(batch | {"label": [batch["label"]] * 2})
    with pytest.raises(ValueError, match="with a label"):
        prepare({"image": batch["image"]})


def test_a_bundle_makes_it_by_target(tmp_path):
    toy_bank().save(tmp_path / "bank.safetensors")
    config = {
        "insertion": {
            "_target_": "synthaug.TumorInsertion",
            "lesions": str(tmp_path / "bank.safetensors"),
            "generator": "paste",
            "scale": [0.4, 0.6],
            "swaps": [["ED", "ET", 0.7]],
        },
        "train": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "EnsureTyped", "keys": ["image", "label"]},
                {
                    "_target_": "synthaug.adapters.monai.RandInsertTumord",
                    "keys": "image",
                    "label_key": "label",
                    "prob": 1.0,
                    "insertion": "@insertion",
                },
            ],
        },
        "prepare_batch": {
            "_target_": "synthaug.adapters.monai.PrepareBatchInsertTumor",
            "insertion": "@insertion",
        },
    }
    parser = ConfigParser(config)
    data = sample()
    out = parser.get_parsed_content("train").set_random_state(3)(data)
    assert not torch.equal(out["label"], data["label"])
    prepare, insertion = parser.get_parsed_content("prepare_batch"), parser.get_parsed_content("insertion")
    prepare(list_data_collate([data]), "cpu")
    assert prepare.insertion is insertion and insertion.report().samples == 2
    assert isinstance(parser.get_parsed_content("train").transforms[0], EnsureTyped)
