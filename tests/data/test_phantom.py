import importlib.util
import random
import socket
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from synthaug import BRATS18, BRATS23, BRATS24, MSD_BRAIN, Classes, single
from synthaug.data import find_cases, load_case, phantom_case, write_phantom_dataset
from synthaug.data.phantoms.mni import mni_phantom
from synthaug.data.phantoms.phantom import SMALLEST_SIDE

SIZE = (64, 64, 64)
FOUR = ("flair", "t1", "t1ce", "t2")
needs_nilearn = pytest.mark.skipif(importlib.util.find_spec("nilearn") is None, reason="nilearn is not installed")


def diameter_mm(volume):
    return (6 / np.pi * (volume.label > 0).sum() * np.prod(volume.spacing_mm)) ** (1 / 3)


def check_volume(volume, channels=FOUR):
    brain = (volume.image > 0).all(axis=0)
    assert volume.image.dtype == np.float32 and volume.label.dtype == np.int16
    assert volume.image.shape == (len(channels), *volume.label.shape)
    assert (volume.image[:, ~brain] == 0).all() and (volume.image[:, brain] >= 1).all()
    assert 0.3 < brain.mean() < 0.8
    assert brain[volume.label > 0].all()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(*[st.integers(40, 72)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.8, 1.0, 1.5, 3.0])] * 3),
)
def test_every_phantom_is_whole(seed, size, spacing):
    volume = phantom_case(seed, size, spacing_mm=spacing)
    check_volume(volume)
    assert volume.label.shape == size and volume.spacing_mm == spacing
    assert np.allclose(np.diag(volume.affine), (*spacing, 1))
    assert set(np.unique(volume.label)) == {0, 1, 2, 4}
    assert diameter_mm(volume) < 40.5


def test_tumours_differ_in_size_and_place():
    volumes = [phantom_case(seed, (48,) * 3, channels=("flair",), spacing_mm=(2, 2, 2)) for seed in range(12)]
    diameters = [diameter_mm(v) for v in volumes]
    assert min(diameters) > 7 and max(diameters) < 41 and max(diameters) - min(diameters) > 12
    centres = np.array([np.argwhere(v.label > 0).mean(axis=0) for v in volumes])
    assert (2 * centres.std(axis=0) > 5).all()


@pytest.mark.parametrize("seed", range(4))
def test_contrasts_are_those_of_a_glioma_in_mr(seed):
    volume = phantom_case(seed, SIZE)
    brain = volume.image[0] > 0
    flair, t1, _, t2 = volume.image
    mean = {
        k: {n: float(np.median(i[m])) for n, i in zip(FOUR, volume.image, strict=True)}
        for k, m in {
            "host": brain & (volume.label == 0),
            "NCR": volume.label == 1,
            "ED": volume.label == 2,
            "ET": volume.label == 4,
        }.items()
    }
    assert mean["ED"]["flair"] > 1.2 * mean["host"]["flair"] and mean["ED"]["t2"] > 1.1 * mean["host"]["t2"]
    assert mean["ET"]["t1ce"] > 1.2 * mean["host"]["t1ce"] > mean["NCR"]["t1ce"]
    assert mean["NCR"]["t1"] < mean["host"]["t1"] and mean["NCR"]["t2"] > mean["host"]["t2"]
    # CSF is dark in T1 and FLAIR and bright in T2, so the sequences are ordered against each other in the host
    host = brain & (volume.label == 0)
    brightest = host & (t2 > np.percentile(t2[host], 95))
    assert np.median(t1[brightest]) < 0.7 * mean["host"]["t1"]
    assert np.median(flair[brightest]) < 0.8 * mean["host"]["flair"]


def test_necrosis_is_wrapped_in_enhancing_tumour():
    wrapped = []
    for seed in range(6):
        label = torch.from_numpy(phantom_case(seed, SIZE, channels=("t1",)).label)
        beside = torch.nn.functional.max_pool3d((label == 1)[None].float(), 3, 1, 1)[0] > 0
        neighbours = label[beside & (label != 1)]
        assert (neighbours != 0).float().mean() > 0.85
        wrapped.append(float((neighbours == 4).float().mean()))
    assert np.mean(wrapped) > 0.8


def test_a_seed_is_a_patient():
    one, again, other = phantom_case(3, SIZE), phantom_case(3, SIZE), phantom_case(4, SIZE)
    assert (one.image == again.image).all() and (one.label == again.label).all()
    assert (one.image != other.image).any() and (one.label != other.label).any()
    subset = phantom_case(3, SIZE, channels=("t2", "t1c"))
    assert (subset.image == one.image[[3, 2]]).all()


def test_healthy_brain_of_a_seed_equals_the_diseased_one_away_from_the_tumour():
    ill, healthy = phantom_case(5, SIZE), phantom_case(5, SIZE, tumour=False)
    assert healthy.label.max() == 0 and healthy.label.shape == SIZE
    reach = ndimage.maximum_filter(ill.label > 0, 41)
    assert (ill.image[:, ~reach] == healthy.image[:, ~reach]).all() and (~reach & (ill.image[0] > 0)).any()
    assert (ill.image[:, ill.label > 0] != healthy.image[:, ill.label > 0]).mean() > 0.9


def test_global_random_states_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    phantom_case(0, SIZE)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all() and (torch.get_rng_state() == before[2]).all()


@pytest.mark.parametrize(
    ("classes", "values"),
    [
        (BRATS18, {1, 2, 4}),
        (BRATS23, {1, 2, 3}),
        (BRATS24, {1, 2, 3}),
        (MSD_BRAIN, {1, 2, 3}),
        (single("lesion", 7), {7}),
    ],
)
def test_vocabularies(classes, values):
    label = phantom_case(0, (48, 48, 48), classes, channels=("t1",)).label
    assert set(np.unique(label)) == {0, *values}
    reference = phantom_case(0, (48, 48, 48), channels=("t1",)).label
    assert ((label > 0) == (reference > 0)).all()
    if "ED" in classes.values:
        assert ((label == classes.values["ED"]) == (reference == 2)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (64, 64)}, "size: expected three sides"),
        ({"size": (64, 64, SMALLEST_SIDE - 1)}, "at least 24"),
        ({"spacing_mm": (1, 0, 1)}, "spacing_mm: expected three lengths above 0"),
        ({"channels": ("t1", "ct")}, "got unknown ct"),
        ({"classes": Classes("two", {"a": 1, "b": 2})}, "needs classes with NCR, ED and ET"),
        ({"size": (30, 30, 30), "spacing_mm": (0.5, 0.5, 0.5)}, "15 mm at its shortest; a tumour of 8 mm needs 17.8"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        phantom_case(0, **arguments)


def test_written_dataset_reads_back(phantom_folder):
    cases = find_cases(phantom_folder)
    assert [c.name for c in cases] == [f"Phantom_{i:03d}_1" for i in range(4)]
    assert len({c.group for c in cases}) == 4
    for i, case in enumerate(cases):
        volume, made = load_case(case, FOUR), phantom_case(100 + i, SIZE, tumour=i < 3)
        assert (volume.image == made.image).all() and (volume.label == made.label).all()
    assert load_case(cases[3], FOUR).label.max() == 0


def test_writing_needs_an_empty_folder_and_counts_that_fit(tmp_path, phantom_folder):
    with pytest.raises(ValueError, match="holds NIfTI files already"):
        write_phantom_dataset(phantom_folder, 1)
    for count, free in ((0, 0), (2, 3), (2, -1)):
        with pytest.raises(ValueError, match="expected count"):
            write_phantom_dataset(tmp_path, count, tumour_free=free)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_nilearn
def test_mni_phantoms_are_patients_and_need_no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    one, other = mni_phantom(0), mni_phantom(1, BRATS23, channels=("t1",))
    check_volume(one)
    check_volume(other, ("t1",))
    assert set(np.unique(one.label)) == {0, 1, 2, 4} and set(np.unique(other.label)) == {0, 1, 2, 3}
    assert one.label.shape != other.label.shape
    centre = one.affine @ [*(np.array(one.label.shape) / 2), 1]
    assert np.abs(centre[:3] - [0, -18, 5]).max() < 15  # the middle of a brain, in MNI coordinates
    again = mni_phantom(0, channels=("t2",))
    assert (again.image[0] == one.image[3]).all() and (again.label == one.label).all()
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero((one.image[0] > 0).any(axis=others))
        assert filled[0] <= 3 and filled[-1] >= one.label.shape[axis] - 4


def test_mni_without_nilearn_says_what_to_install(monkeypatch):
    from synthaug.data.phantoms import mni

    mni._template.cache_clear()
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(ImportError, match=r'pip install "synthaug\[demo\]"'):
        mni_phantom(0)
