"""Every wrong input raises an error that says what was expected and what came; hopeless patches are refused instead."""

import nibabel as nib
import numpy as np
import pytest
import torch
from engine import CHANNELS, toy_bank, toy_batch, toy_gan, toy_insertion

from synthaug import BRATS18, LesionBank, LesionShapes, TumorGenerator, TumorInsertion, single
from synthaug.data import find_cases
from synthaug.generators.learned.hub import save_generator


def batch_with(**changes):
    image, label = toy_batch(2)
    for name, change in changes.items():
        if name == "image":
            image = change(image)
        else:
            label = change(label)
    return image, label


def set_voxel(value):
    def change(tensor):
        tensor[1, 0, 5, 5, 5] = value
        return tensor

    return change


BATCHES = {
    "list": (batch_with(label=lambda x: [x, x]), TypeError, "list of 2.*deep-supervision"),
    "numpy": (batch_with(image=lambda x: x.numpy()), TypeError, "torch.Tensor, got ndarray"),
    "shape": (batch_with(label=lambda x: x[..., :-1]), ValueError, r"label: expected shape \(2, 1, 48, 44, 40\)"),
    "one-hot": (batch_with(label=lambda x: x.expand(2, 3, 48, 44, 40)), ValueError, "label: expected shape"),
    "device": (batch_with(label=lambda x: x.to("meta")), ValueError, "image's device cpu, got meta"),
    "4-D": (batch_with(image=lambda x: x[0]), ValueError, "5 dimensions .* got 4"),
    "channels": (batch_with(image=lambda x: x[:, :3]), ValueError, r"4 channels \(flair.*got 3"),
    "integer image": (batch_with(image=lambda x: x.short()), TypeError, "floating dtype, got torch.int16"),
    "float label": (batch_with(label=lambda x: x.float()), TypeError, "integer dtype, got torch.float32"),
    "empty": (batch_with(image=lambda x: x[:0], label=lambda x: x[:0]), ValueError, "at least one sample"),
    "nan": (batch_with(image=set_voxel(float("nan"))), ValueError, r"NaN or infinity in samples \[1\]"),
    "inf": (batch_with(image=set_voxel(float("-inf"))), ValueError, r"NaN or infinity in samples \[1\]"),
    "label 3": (batch_with(label=set_voxel(3)), ValueError, r"BRATS18.*samples \[1\]"),
    "label -1": (batch_with(label=set_voxel(-1)), ValueError, "ignore_label"),
    "label 5": (batch_with(label=set_voxel(5)), ValueError, "got others"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_bad_batches(case):
    batch, error, message = BATCHES[case]
    insert = toy_insertion()
    with pytest.raises(error, match=message):
        insert(*batch)
    with pytest.raises(error, match=message):
        insert.apply(*batch, insert.plan(*toy_batch(2))) if case not in ("nan", "inf") and "label " not in case else (
            insert.plan(*batch)
        )


CALLS = {
    "spacing 0": ({"spacing_mm": (1, 0, 1)}, ValueError, "above 0"),
    "spacing nan": ({"spacing_mm": (1, float("nan"), 1)}, ValueError, "finite values above 0"),
    "spacing length": ({"spacing_mm": (1, 1)}, ValueError, r"3 values or 2 x 3, got shape \(2,\)"),
    "groups": ({"groups": ["a"]}, ValueError, "2 names.*got 1"),
    "groups string": ({"groups": "ab"}, TypeError, "one name per sample"),
    "host shape": ({"host": torch.ones(2, 4, 4, 4)}, ValueError, "host: expected shape"),
    "host type": ({"host": np.ones(3)}, TypeError, "host: expected a torch.Tensor"),
    "host of a sample": ({"host": lambda b: torch.ones(4, 4, 4)}, ValueError, r"host of sample 0: .*\(48, 44, 40\)"),
    "host of a batch": ({"host": lambda b: torch.ones(2, 48, 44, 40)}, ValueError, r"host of sample 0: .*\(2, 48"),
    "host of nothing": ({"host": lambda b: None}, TypeError, "host of sample 0: expected a torch.Tensor, got NoneType"),
    "host elsewhere": ({"host": lambda b: torch.ones(48, 44, 40, device="meta")}, ValueError, "device cpu, got meta"),
    "prior shape": ({"prior": torch.ones(2, 4, 4, 4)}, ValueError, "prior: expected shape"),
    "statistics": ({"host_stats": (0.0, 0.0)}, ValueError, "std: expected finite values, above 0"),
    "statistics shape": ({"host_stats": ([0.0] * 3, [1.0] * 3)}, ValueError, "4 or 2 x 4"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_call_arguments(case):
    arguments, error, message = CALLS[case]
    with pytest.raises(error, match=message):
        toy_insertion().plan(*toy_batch(2), **arguments)


OPTIONS = {
    "prob": ({"prob": 1.2}, ValueError, r"prob: expected a probability in \[0, 1\], got 1.2"),
    "prob type": ({"prob": "often"}, ValueError, "finite number, got 'often'"),
    "second": ({"second": -0.1}, ValueError, "second: expected a probability"),
    "scale": ({"scale": (0.8, 0.3)}, ValueError, r"scale: expected low <= high, got \(0.8, 0.3\)"),
    "scale 0": ({"scale": 0.0}, ValueError, "above 0"),
    "scale triple": ({"scale": (0.1, 0.2, 0.3)}, ValueError, "pair"),
    "diameter": ({"diameter_mm": (9, 4)}, ValueError, "diameter_mm: expected low <= high"),
    "both": ({"diameter_mm": (4, 9), "scale": 1.0}, ValueError, "not both"),
    "swap class": ({"swaps": [("ED", "XX", 0.5)]}, ValueError, "unknown class 'XX': .*NCR, ED, ET"),
    "swap prob": ({"swaps": [("ED", "ET", 1.5)]}, ValueError, "got 1.5"),
    "swap twice": ({"swaps": [("ED", "ET", 0.5), ("ED", "NCR", 0.5)]}, ValueError, "once"),
    "swap pair": ({"swaps": [("ED", "ET")]}, ValueError, "triples"),
    "joint probs": ({"swaps": [("ED", "ET", 0.5), ("ET", "NCR", 0.6)]}, ValueError, "one probability"),
    "swap draw": ({"swaps": [("ED", "ET", 0.5)], "swap_draw": "both"}, ValueError, "'joint' or 'each'"),
    "mix sum": ({"class_mix": {"ED": 0.5}}, ValueError, "sum to 1"),
    "mix class": ({"class_mix": {"XX": 1.0}}, ValueError, "unknown class"),
    "mix and swaps": ({"class_mix": {"ED": 1.0}, "swaps": [("ED", "ET", 0.5)]}, ValueError, "not both"),
    "clearance": ({"clearance_mm": -1}, ValueError, "at least 0"),
    "share": ({"tissue_share": 2}, ValueError, "tissue_share"),
    "floor": ({"min_voxels": 0}, ValueError, "at least 1"),
    "seed": ({"seed": -1}, ValueError, "seed: expected values of at least 0"),
    "channel": ({"channels": ("flair", "t1", "t1ce", "pd")}, ValueError, "unknown pd"),
    "channel twice": ({"channels": ("t1c", "t1ce")}, ValueError, "once"),
    "channel string": ({"channels": "flair"}, TypeError, "sequence of names"),
    "generator": ({"generator": "nope"}, ValueError, "unknown name 'nope'; known are .*paste, procedural"),
    "generator type": ({"generator": 3}, TypeError, "TumorGenerator, got int"),
    "lesions type": ({"lesions": [1]}, TypeError, "LesionBank"),
    "paste shapes": ({"lesions": LesionShapes()}, ValueError, "masks only|donor intensities"),
    "ignore": ({"ignore_label": 2}, ValueError, "ignore_label"),
    "classes": ({"classes": "BRATS99"}, ValueError, "unknown class vocabulary 'BRATS99': known are BRATS18"),
    "other classes": ({"classes": single("lesion")}, ValueError, "the lesions have the classes NCR, ED, ET"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_options(case):
    options, error, message = OPTIONS[case]
    with pytest.raises(error, match=message):
        TumorInsertion(**({"lesions": toy_bank(1), "generator": "paste"} | options))


def test_generator_of_other_classes_or_channels():
    class Narrow(TumorGenerator):
        channels, classes = ("t1",), ("ET",)

        def generate(self, context, mask, seeds, donor=None):
            raise AssertionError("never reached")

    with pytest.raises(ValueError, match="Narrow knows the channels t1; the insertion has flair"):
        toy_insertion(Narrow())
    with pytest.raises(ValueError, match="Narrow knows the classes ET; the insertion has NCR"):
        toy_insertion(Narrow(), channels=("t1",))


def test_generators_by_folder(tmp_path):
    save_generator(toy_gan(), tmp_path / "mine")
    insert = toy_insertion(str(tmp_path / "mine"), LesionShapes(diameter_mm=(8, 12)))
    insert(*toy_batch(1))
    assert insert.report().done == 1
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        toy_insertion(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        toy_insertion(str(tmp_path))


def test_ignore_label_is_admitted_and_avoided():
    image, label = toy_batch(2, labelled=False)
    label[:, :, :24] = -1
    insert = toy_insertion(ignore_label=-1, clearance_mm=0.0)
    _, new_label = insert(image, label)
    assert insert.report().done == 2
    assert (new_label[label == -1] == -1).all()


def test_plans_that_do_not_fit():
    insert, batch = toy_insertion(), toy_batch(2)
    plan = insert.plan(*batch)
    with pytest.raises(ValueError, match=r"made for samples of \(48, 44, 40\)"):
        insert.apply(*toy_batch(2, size=(40, 40, 40)), plan)
    with pytest.raises(ValueError, match="asks for sample 1, the batch has 1"):
        insert.apply(*toy_batch(1), plan)
    with pytest.raises(TypeError, match="InsertionPlan, got list"):
        insert.apply(*batch, plan.to_rows())
    rows = plan.to_rows()
    with pytest.raises(ValueError, match="lacks seed"):
        type(plan).from_rows([{k: v for k, v in rows[0].items() if k != "seed"}])
    with pytest.raises(ValueError, match="version"):
        type(plan).from_rows([rows[0] | {"version": 99}])
    other = TumorInsertion(toy_bank(1, classes=BRATS18).subset(["case-0/0"]), seed=1)
    strange = type(plan).from_rows([rows[0] | {"lesion": "case-77/0"}])
    with pytest.raises(ValueError, match="no lesion 'case-77/0'"):
        other.apply(*batch, strange)


def test_hopeless_patches_are_refused_with_a_reason():
    flat = torch.zeros(1, 4, 32, 32, 32), torch.zeros(1, 1, 32, 32, 32, dtype=torch.int64)
    full = toy_batch(1, labelled=False)[0], torch.full((1, 1, 48, 44, 40), 2)
    tiny = toy_batch(1, size=(9, 9, 9), labelled=False)
    normal = toy_batch(1, labelled=False)
    cases = {
        "no host tissue in the patch": (flat, {}),
        "no place in host tissue clear of existing labels": (full, {}),
        "larger than the patch or the generator's crops": (tiny, {"scale": 3.0}),
        "below the volume floor": (normal, {"scale": 0.1}),
    }
    for reason, (batch, options) in cases.items():
        insert = toy_insertion(**options)
        image, label = insert(*batch)
        assert insert.report().refused == {reason: 1}
        assert torch.equal(image, batch[0]) and torch.equal(label, batch[1])
    insert = toy_insertion(lesions=toy_bank(1))
    insert(*normal, groups=["patient-0"])
    assert insert.report().refused == {"no donor of another patient group": 1}


def test_donors_are_never_of_the_host_group():
    insert = toy_insertion(second=1.0, scale=0.6)
    plans = [insert.recorded(*toy_batch(2, seed=i), groups=["patient-1", "patient-2"])[2] for i in range(10)]
    rows = [row for plan in plans for row in plan.to_rows()]
    assert len(rows) == 40
    assert all(row["donor_group"] != row["host_group"] for row in rows)
    assert len({row["donor_group"] for row in rows}) == 4


def test_bank_files(tmp_path):
    path = tmp_path / "bank.safetensors"
    bank = toy_bank()
    bank.save(path)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        LesionBank.load(tmp_path / "nothing.safetensors")
    damages = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "text": b"not a bank" * 100,
        "flipped": whole[:-100] + bytes([whole[-100] ^ 0xFF]) + whole[-99:],
    }
    for damaged in damages.values():
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"lesion bank .*bank\.safetensors: damaged"):
            LesionBank.load(path)
    with pytest.raises(ValueError, match="at least one lesion, got none"):
        LesionBank.from_arrays([], BRATS18, CHANNELS)
    with pytest.raises(ValueError, match="at least one lesion name"):
        bank.subset([])


def test_damaged_and_mismatched_cases_are_named_and_the_others_go_on(phantom_folder, tmp_path, caplog):
    import shutil

    folder = tmp_path / "cases"
    shutil.copytree(phantom_folder, folder)
    names = [case.name for case in find_cases(folder)]
    damaged = next((folder / names[0]).glob("*_t1ce.nii*"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    segmentation = next((folder / names[1]).glob("*_seg.nii*"))
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)), segmentation)
    bank = LesionBank.from_folder(folder, BRATS18)
    assert {lesion.name.split("/")[0] for lesion in bank} == {names[2]}
    for name in names[:2]:
        assert any(name in message for message in bank.skipped)
        assert name in caplog.text
