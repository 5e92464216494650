"""TorchIO: the transform in its own Compose, dataset, loader and history, and the form for the loader's batches."""

import json
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from engine import CHANNELS, toy_batch, toy_insertion
from loading import drained

from synthaug import InsertionPlan
from synthaug.adapters.torchio import InsertionReference as Reference
from synthaug.adapters.torchio import InsertTumor, InsertTumorsInBatch, RandomTumor

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SIZE = (36, 34, 32)


@pytest.fixture
def insertion():
    return toy_insertion(scale=0.5, second=0.5)


def subject(seed=0, label_dtype=torch.float32, **entries):
    image, label = toy_batch(1, size=SIZE, seed=seed)
    entries = {"patient": f"host-{seed}"} | entries
    return tio.Subject(
        mri=tio.ScalarImage(tensor=image[0], affine=AFFINE),
        tumour=tio.LabelMap(tensor=label[0].to(label_dtype), affine=AFFINE),
        **entries,
    )


def split(whole):
    """The same subject with an image per channel, in another order than the insertion's."""
    images = {name: tio.ScalarImage(tensor=whole.mri.data[i : i + 1], affine=AFFINE) for i, name in enumerate(CHANNELS)}
    return tio.Subject(dict(reversed(images.items())), tumour=whole.tumour)


def voxels(of):
    return {name: image.data for name, image in of.get_images_dict(intensity_only=False).items()}


def same(a, b):
    return all(torch.equal(x, voxels(b)[name]) and x.dtype == voxels(b)[name].dtype for name, x in voxels(a).items())


@pytest.mark.parametrize("label_dtype", [torch.float32, torch.uint8, torch.int64])
def test_voxels_are_the_engines_for_the_same_plan(insertion, label_dtype):
    before = subject(label_dtype=label_dtype)
    out = RandomTumor(insertion, p=1.0, group_key="patient", record_key="rows")(before)
    assert same(before, subject(label_dtype=label_dtype)), "the input was changed"
    plan = InsertionPlan.from_rows(json.loads(out["rows"]))
    batch = before.mri.data[None], before.tumour.data[None].long()
    image, label = toy_insertion(scale=0.5, second=0.5).apply(*batch, plan)
    assert torch.equal(out.mri.data, image[0]) and torch.equal(out.tumour.data.long(), label[0])
    assert not torch.equal(out.tumour.data, before.tumour.data) and out.tumour.data.dtype == label_dtype
    assert plan.insertions[0].spacing_mm == (1, 1, 2) and plan.insertions[0].host_group == "host-0"


def test_the_composed_history_repeats_bit_for_bit(insertion):
    transform = tio.Compose([tio.RandomFlip(), RandomTumor(insertion, p=1.0), tio.RandomNoise(), tio.RandomGamma()])
    for make in (subject, lambda seed: split(subject(seed))):
        for seed in range(3):
            before = make(seed)
            out = transform(before)
            history = out.get_composed_history()
            assert [t.name for t in history].count("InsertTumor") == 1
            assert same(history(before), out) and same(history(make(seed)), out)
    report = insertion.report()
    assert report.samples == 6 and 6 <= report.asked <= 12, "repetitions count again"


def test_a_history_comes_back_from_a_worker_without_its_lesions(insertion):
    transform = RandomTumor(insertion, p=1.0)
    dataset = tio.SubjectsDataset([subject(i) for i in range(4)], transform=transform)
    outs = [s for batch in torch.utils.data.DataLoader(dataset, num_workers=2, collate_fn=list) for s in batch]
    for seed, out in enumerate(outs):
        assert same(out.get_composed_history()(subject(seed)), out)
    saved = pickle.dumps(outs[0].applied_transforms)
    assert len(saved) < 5000, "the bank went into the history"
    rows = outs[0].applied_transforms[0][1]["rows"]
    json.dumps(rows)
    Reference.known.clear()  # as in another process
    (name, arguments), *_ = pickle.loads(saved)
    with pytest.raises(LookupError, match=r"give InsertTumor\(insertion, rows\)"):
        InsertTumor(**arguments)(subject(0))
    assert name == "InsertTumor" and same(InsertTumor(insertion, rows)(subject(0)), outs[0])
    again = pickle.loads(pickle.dumps(transform))  # as a spawned worker gets it
    assert Reference(transform._name).resolve() is again.insertion


def test_p_decides_and_subjects_not_chosen_are_untouched(insertion):
    transform = RandomTumor(insertion, p=0.5, record_key="rows")
    torch.manual_seed(1)
    outs = [(subject(i), transform(subject(i))) for i in range(12)]
    untouched = [same(before, out) for before, out in outs]
    assert 2 <= sum(untouched) <= 10 and insertion.report().samples == 12
    assert untouched == [not out.applied_transforms for _, out in outs] == [out["rows"] == "[]" for _, out in outs]
    assert RandomTumor(toy_insertion(prob=0.3)).p == 0.3
    with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\], got 2"):
        RandomTumor(insertion, p=2)


def test_workers_differ_between_themselves_and_epochs_and_repeat_from_the_seed(insertion):
    transform = tio.Compose([RandomTumor(insertion, p=1.0, record_key="rows"), tio.RandomFlip()])
    dataset = tio.SubjectsDataset([subject(0)] * 4, transform=transform)
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        loader = tio.SubjectsLoader(dataset, batch_size=1, num_workers=2)
        runs.append([[batch["rows"][0] for batch in loader] for _ in range(2)])
    assert runs[0] == runs[1]
    seeds = [row["seed"] for epoch in runs[0] for text in epoch for row in json.loads(text)]
    assert len(seeds) >= 8 and len(set(seeds)) == len(seeds)
    assert insertion.report().samples == 16 and insertion.report().asked == 2 * len(seeds)


def test_images_of_one_channel_each_go_by_their_names(insertion):
    torch.manual_seed(4)
    whole = RandomTumor(insertion, p=1.0)(subject())
    torch.manual_seed(4)
    out = RandomTumor(insertion, p=1.0)(split(subject()))
    assert torch.equal(torch.cat([out[name].data for name in CHANNELS]), whole.mri.data)
    assert torch.equal(out.tumour.data, whole.tumour.data)
    prior = tio.ScalarImage(tensor=torch.rand(1, *SIZE), affine=AFFINE)
    with pytest.raises(ValueError, match=r"with the channels flair, t1, t1ce, t2 .* got mri, prior"):
        RandomTumor(insertion, p=1.0)(subject(prior=prior))
    chosen = RandomTumor(insertion, p=1.0, include=["mri"])(subject(prior=prior))
    assert torch.equal(chosen.prior.data, prior.data) and not same(chosen, subject(prior=prior))
    missing = split(subject())
    missing.remove_image("t1")
    with pytest.raises(ValueError, match=r"got t2, t1ce, flair"):
        RandomTumor(insertion, p=1.0)(missing)


def test_wrong_use_is_named(insertion):
    transform = RandomTumor(insertion, p=1.0)
    with pytest.raises(ValueError, match=r"one channel of class values, got 5 .*OneHot"):
        transform(tio.OneHot(num_classes=5)(subject(label_dtype=torch.int64)))
    brain = tio.LabelMap(tensor=torch.ones(1, *SIZE), affine=AFFINE)
    with pytest.raises(ValueError, match=r"one LabelMap, or its name as label_name; got .*brain \(label\)"):
        transform(subject(brain=brain))
    assert not same(RandomTumor(insertion, p=1.0, label_name="tumour")(subject(brain=brain)), subject(brain=brain))
    with pytest.raises(ValueError, match="a LabelMap 'tumor'"):
        RandomTumor(insertion, label_name="tumor")(subject())
    with pytest.raises(ValueError, match="label: expected 0 and the values of BRATS18"):
        transform(tio.RemapLabels({2: 77})(subject()))
    with pytest.raises(TypeError, match=r"expected a floating dtype, got torch\.int64"):
        transform(tio.Lambda(lambda x: x.long(), types_to_apply=[tio.INTENSITY])(subject()))
    with pytest.raises(TypeError, match="expected a TumorInsertion, got str"):
        RandomTumor("bank.safetensors")


def test_images_as_files_have_them_become_floating(insertion):
    raw = tio.Lambda(lambda x: x.short(), types_to_apply=[tio.INTENSITY])(subject())
    raw.clear_history()
    for before in (raw, split(raw)):
        out = RandomTumor(insertion, p=1.0)(before)
        changed = out.tumour.data != before.tumour.data
        for name in set(voxels(before)) - {"tumour"}:
            assert out[name].data.dtype == torch.float32 and before[name].data.dtype == torch.int16
            assert ((out[name].data != before[name].data) <= changed).all()
        assert same(out.get_composed_history()(before), out) and changed.any()
    (batch,) = tio.SubjectsLoader(tio.SubjectsDataset([raw]))
    assert InsertTumorsInBatch(insertion)(batch)["mri"]["data"].dtype == torch.float32
    assert RandomTumor(insertion, p=0.0)(raw).mri.data.dtype == torch.int16


def test_a_gpu_generator_in_a_worker_raises_with_advice(insertion):
    insertion.generator.device = torch.device("cuda")
    dataset = tio.SubjectsDataset([subject()] * 2, transform=RandomTumor(insertion))
    with pytest.raises(RuntimeError, match=r"called in a loader worker.*batch form"):
        drained(tio.SubjectsLoader(dataset, num_workers=1))


def test_the_batch_form_gives_the_engines_voxels(insertion):
    dataset = tio.SubjectsDataset([subject(i) for i in range(4)])
    insert, twin = InsertTumorsInBatch(insertion, group_key="patient"), toy_insertion(scale=0.5, second=0.5)
    for batch in tio.SubjectsLoader(dataset, batch_size=2, num_workers=2):
        before = batch["tumour"]["data"].clone()
        out = insert(batch)
        image, label = batch["mri"]["data"], batch["tumour"]["data"]
        assert torch.equal(label, before) and out["patient"] == batch["patient"]
        image, label = twin(image, label.long(), spacing_mm=(1, 1, 2), groups=batch["patient"])
        assert torch.equal(out["mri"]["data"], image) and torch.equal(out["tumour"]["data"], label.float())
        assert torch.equal(torch.as_tensor(out["mri"]["affine"]), torch.as_tensor(batch["mri"]["affine"]))
    assert insertion.report() == twin.report() and twin.report().done > 0


def test_the_batch_form_takes_images_of_one_channel_each(insertion):
    dataset = tio.SubjectsDataset([split(subject(i)) for i in range(2)])
    (batch,) = tio.SubjectsLoader(dataset, batch_size=2)
    out, twin = InsertTumorsInBatch(insertion)(batch), toy_insertion(scale=0.5, second=0.5)
    image = torch.cat([batch[name]["data"] for name in CHANNELS], dim=1)
    image, _ = twin(image, batch["tumour"]["data"].long(), spacing_mm=(1, 1, 2))
    assert torch.equal(torch.cat([out[name]["data"] for name in CHANNELS], dim=1), image)
