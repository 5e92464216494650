"""What a data set says of its classes and channels, where nobody gives them, and which cases may be hosts."""

import json

import nibabel as nib
import numpy as np
import pytest

from synthaug import LesionBank, LesionShapes, TumorGenerator, TumorInsertion
from synthaug.classes import BRATS18, Classes, in_names_of, tissue_name
from synthaug.data import find_cases, write_phantom_dataset
from synthaug.data.dataset import find_classes, find_dataset, labelled_hosts
from synthaug.data.labels import named_labels


def nnunet(folder, labels, values, channels=("CT",), cases=("a", "b")):
    """An nnU-Net folder whose label maps have a cube of each value."""
    rng = np.random.default_rng(0)
    for name in cases:
        label = np.zeros((24, 24, 24), np.uint8)
        for k, value in enumerate(values):
            label[4 + 6 * k : 9 + 6 * k, 4:9, 4:9] = value
        for c, _ in enumerate(channels):
            image = rng.normal(50, 10, label.shape).astype(np.float32)
            (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "imagesTr" / f"{name}_{c:04d}.nii.gz")
        (folder / "labelsTr").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"{name}.nii.gz")
    if labels is not None:
        named = {str(i): name for i, name in enumerate(channels)}
        (folder / "dataset.json").write_text(json.dumps({"channel_names": named, "labels": labels}))
    return folder


def test_names_of_the_field_are_the_same():
    assert [tissue_name(n) for n in ("Necrotic", "oedema", "Enhancing Tumor", "tumor")] == ["NCR", "ED", "ET", "tumour"]
    assert BRATS18.canonical("peritumoral edema") == "ED"
    assert in_names_of(("necrosis", "necrotic"), ("NCR",)) == ("necrosis", "necrotic")
    with pytest.raises(ValueError, match="unknown class 'cyst'"):
        BRATS18.canonical("cyst")


def test_brats_is_taken_from_names_or_values_alone(tmp_path):
    write_phantom_dataset(tmp_path / "p", 2, size=(32, 32, 32))
    data = find_dataset(tmp_path / "p")
    assert data.classes is BRATS18 and data.channels == ("flair", "t1", "t1ce", "t2") and len(data.taken) == 2
    for case in data.cases:  # other values: no longer BraTS's
        label = nib.load(case.label)
        nib.save(nib.Nifti1Image((np.asarray(label.dataobj) > 0).astype(np.uint8), label.affine), case.label)
    with pytest.raises(ValueError, match=r"nothing says what its label values are, found 1; .*--classes tumour=1"):
        find_dataset(tmp_path / "p")
    assert dict(find_dataset(tmp_path / "p", "tumor").classes.values) == {"tumor": 1}


def test_labels_of_dataset_json_are_the_classes(tmp_path):
    folder = nnunet(tmp_path, {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 3}, (1, 2, 3))
    data = find_dataset(folder)
    assert dict(data.classes.values) == {"necrosis": 1, "edema": 2, "enhancing": 3} and data.channels == ("ct",)
    bank = LesionBank.from_folder(folder)
    assert bank.classes == ("necrosis", "edema", "enhancing")
    brats = LesionBank.from_folder(folder, {"NCR": 1, "ED": 2, "ET": 3})
    assert TumorInsertion(brats, classes=data.classes, channels=("ct",)).classes == data.classes
    assert TumorInsertion(bank).classes.values == data.classes.values and TumorInsertion(bank).channels == ("ct",)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "tumour"}}))
    assert named_labels(folder) == ({"tumour": 1}, "dataset.json")
    (folder / "dataset.json").write_text(json.dumps({"labels": ["tumour"]}))
    with pytest.raises(ValueError, match="expected labels as"):
        named_labels(folder)


def test_an_organ_is_no_lesion(tmp_path):
    folder = nnunet(tmp_path, {"background": 0, "muscle": 1, "tumour": 2}, (1, 2))
    with pytest.raises(ValueError, match=r"muscle=1, tumour=2, of which some may be no lesions; .*--classes tumour=2$"):
        find_dataset(folder)
    assert dict(find_dataset(folder, "tumor").classes.values) == {"tumor": 2}
    assert dict(find_dataset(folder, structures=True).classes.values) == {"muscle": 1, "tumour": 2}
    with pytest.raises(ValueError, match=r"label values \[1\] are not in .*; an organ that may hold lesions"):
        LesionBank.from_folder(folder, "tumour=2")


def test_hosts_that_say_nothing_have_the_classes_of_the_bank(tmp_path):
    bank = LesionBank.from_folder(nnunet(tmp_path / "a", None, (1,)), "gtv=1", ("ct",))
    hosts = nnunet(tmp_path / "b", None, (1,))
    cases = find_cases(hosts, channels=("ct",))
    classes, said = find_classes(hosts, cases, lesions=bank)
    assert dict(classes.values) == {"gtv": 1} and said == "those of the bank"
    organ = nnunet(tmp_path / "c", {"background": 0, "muscle": 1, "gtv": 2}, (1, 2))
    assert dict(find_dataset(organ, lesions=bank).classes.values) == {"gtv": 2}


def test_an_image_taken_for_a_label_is_told_in_short(tmp_path):
    folder = nnunet(tmp_path, None, (1,))
    for case in find_cases(folder, channels=("ct",)):
        nib.save(nib.Nifti1Image(np.arange(24**3, dtype=np.int16).reshape(24, 24, 24), np.eye(4)), case.label)
    with pytest.raises(ValueError, match="may have been swapped") as caught:
        LesionBank.from_folder(folder, "tumour=1", ("ct",))
    assert len(str(caught.value)) < 1000


def test_a_case_without_label_is_no_host_unless_said(tmp_path):
    cases = write_phantom_dataset(tmp_path, 3, size=(32, 32, 32))
    cases[1].label.unlink()
    cases = find_cases(tmp_path)
    hosts, words = labelled_hosts(cases)
    assert [case.name for case in hosts] == ["Phantom_000_1", "Phantom_002_1"]
    assert "1 of 3 cases without a label map" in words and "Phantom_001_1" in words
    assert labelled_hosts(cases, "tumour-free") == (cases, None)
    with pytest.raises(ValueError, match="no host is left"):
        labelled_hosts(cases[1:2])
    with pytest.raises(ValueError, match="expected leave-out or tumour-free"):
        labelled_hosts(cases, "free")


class Painter(TumorGenerator):
    """Paints nothing, and knows all classes and channels."""

    def generate(self, context, mask, seeds, donor=None, support=None):
        return context


def test_an_insertion_without_classes_has_those_of_its_lesions():
    own = Classes("x", {"rim": 7})
    assert TumorInsertion(LesionShapes(classes=own), Painter()).classes == own
    assert TumorInsertion(LesionShapes(), Painter()).classes == BRATS18
