import gzip
import json
import pickle
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from synthaug.data import CaseError, find_cases, load_case
from synthaug.host import zscore_host

FOUR = ("flair", "t1", "t1ce", "t2")
AFFINE = np.array([[-1, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1.5, -72], [0, 0, 0, 1.0]])


def write(path: Path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(voxels), affine), path)
    return path


def voxels(value, shape=(5, 6, 7)):
    return (np.arange(np.prod(shape)).reshape(shape) + 1000 * value).astype(np.int16)


def write_case(folder: Path, name="Brats18_CBICA_AME_1", separator="_", tags=FOUR, label="seg", end=".nii.gz"):
    for i, tag in enumerate(tags):
        write(folder / name / f"{name}{separator}{tag}{end}", voxels(i))
    if label:
        write(folder / name / f"{name}{separator}{label}{end}", (voxels(0) % 5).astype(np.uint8))
    return folder / name


def write_nnunet(folder: Path, meta=None):
    for case in ("liver_002", "liver_001"):
        write(folder / "labelsTr" / f"{case}.nii.gz", voxels(0) % 2)
        for i in range(2):
            write(folder / "imagesTr" / f"{case}_{i:04d}.nii.gz", voxels(i))
    for i in range(2):
        write(folder / "imagesTs" / f"liver_003_{i:04d}.nii.gz", voxels(i))
    if meta is not None:
        (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


def write_msd(folder: Path):
    stack = np.stack([voxels(i) for i in range(4)], axis=-1)
    write(folder / "imagesTr" / "BRATS_001.nii.gz", stack)
    write(folder / "labelsTr" / "BRATS_001.nii.gz", voxels(0) % 4)
    write(folder / "imagesTs" / "BRATS_485.nii.gz", stack)
    (folder / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(b"of macOS")
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (folder / "dataset.json").write_text(json.dumps({"name": "BRATS", "modality": modality}))
    return folder


# ---------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
def test_brats_2018_names_are_read(tmp_path, end):
    write_case(tmp_path / "HGG", "Brats18_TCIA01_425_1", end=end)
    write_case(tmp_path / "LGG", "Brats18_2013_11_1", end=end)
    first, second = find_cases(tmp_path)
    assert (first.name, first.group) == ("Brats18_2013_11_1", "2013_11")
    assert (second.name, second.group) == ("Brats18_TCIA01_425_1", "TCIA01_425")
    assert set(first.images) == set(FOUR) and first.label.name == f"Brats18_2013_11_1_seg{end}"


def test_brats_2023_names_are_read_and_visits_share_a_patient(tmp_path):
    for visit in ("100", "101"):
        write_case(tmp_path, f"BraTS-GLI-00005-{visit}", "-", ("t2f", "t1n", "t1c", "t2w"))
    cases = find_cases(tmp_path)
    assert [c.name for c in cases] == ["BraTS-GLI-00005-100", "BraTS-GLI-00005-101"]
    assert {c.group for c in cases} == {"BraTS-GLI-00005"}
    assert cases[0].images["t1ce"].name == "BraTS-GLI-00005-100-t1c.nii.gz"
    assert (load_case(cases[0], ("t1ce",)).image[0] == voxels(2)).all()


def test_folders_that_are_links_are_read_and_links_upwards_end(tmp_path):
    elsewhere = write_case(tmp_path / "store")
    linked = tmp_path / "linked"
    (linked / "HGG").mkdir(parents=True)
    (linked / "HGG" / elsewhere.name).symlink_to(elsewhere)
    (linked / "HGG" / "all").symlink_to(linked)
    (case,) = find_cases(linked)
    assert case.name == elsewhere.name and case.images["flair"].parent == linked / "HGG" / elsewhere.name


def test_single_case_folder_and_plain_file_names(tmp_path):
    folder = write_case(tmp_path)
    assert [c.name for c in find_cases(folder)] == ["Brats18_CBICA_AME_1"]
    write(tmp_path / "other" / "patient_7" / "ct.nii.gz", voxels(0))
    (case,) = find_cases(tmp_path / "other")
    assert (case.name, set(case.images), case.label) == ("patient_7", {"ct"}, None)


def test_hidden_files_and_folders_are_skipped(tmp_path):
    folder = write_case(tmp_path)
    (folder / "._Brats18_CBICA_AME_1_t1.nii.gz").write_bytes(b"of macOS")
    write_case(tmp_path / ".cache", "Brats18_hidden_1")
    write_case(tmp_path / "__MACOSX", "Brats18_hidden_2")
    assert [c.name for c in find_cases(tmp_path)] == ["Brats18_CBICA_AME_1"]


def test_further_endings_can_be_named(tmp_path):
    write_case(tmp_path, tags=("t1", "adc"))
    assert set(find_cases(tmp_path)[0].images) == {"t1"}
    assert set(find_cases(tmp_path, channels=("adc",))[0].images) == {"t1", "adc"}


def test_nnunet_folder(tmp_path):
    write_nnunet(tmp_path, {"channel_names": {"0": "T2w", "1": "CT"}, "file_ending": ".nii.gz"})
    cases = find_cases(tmp_path)
    assert [(c.name, c.split) for c in cases] == [("liver_001", None), ("liver_002", None), ("liver_003", "test")]
    assert cases[2].label is None
    volume = load_case(cases[0], ("ct", "t2"))
    assert (volume.image == np.stack([voxels(1), voxels(0)])).all()


def test_nnunet_channels_override_and_are_needed_without_names(tmp_path):
    write_nnunet(tmp_path)
    with pytest.raises(ValueError, match=r"no dataset.json.*`channels`"):
        find_cases(tmp_path)
    assert list(find_cases(tmp_path, channels=("T1", "pet"))[0].images) == ["t1", "pet"]
    with pytest.raises(ValueError, match=r"_0001.nii.gz: expected <case>_0000 to <case>_0000"):
        find_cases(tmp_path, channels=("t1",))


@pytest.mark.parametrize("meta", [{"channel_names": ["t1", "t2"]}, {"channel_names": {"1": "t1", "2": "t2"}}, {}, []])
def test_unusable_dataset_json_is_refused(tmp_path, meta):
    write_nnunet(tmp_path, meta)
    with pytest.raises(ValueError, match=r"dataset.json: expected channel_names or modality"):
        find_cases(tmp_path)


def test_equal_channel_names_of_nnunet_are_refused_with_advice(tmp_path):
    write_nnunet(tmp_path, {"modality": {"0": "MRI", "1": "MRI"}})
    with pytest.raises(ValueError, match=r"each may be named once.*`channels`"):
        find_cases(tmp_path)


def test_msd_folder_gives_each_name_its_volume(tmp_path):
    train, test = find_cases(write_msd(tmp_path))
    assert (train.name, train.split, test.name, test.split) == ("BRATS_001", None, "BRATS_485", "test")
    assert list(train.images) == list(FOUR)
    volume = load_case(train, ("t2", "flair"))
    assert (volume.image == np.stack([voxels(3), voxels(0)])).all()
    assert volume.spacing_mm == pytest.approx((1, 1, 1.5))


def test_nothing_found_says_what_was_looked_for(tmp_path):
    write(tmp_path / "a" / "scan.nii.gz", voxels(0))
    with pytest.raises(ValueError, match=r"<case>_flair.*imagesTr.*1 NIfTI files, such as a/scan.nii.gz"):
        find_cases(tmp_path)
    with pytest.raises(ValueError, match="not there"):
        find_cases(tmp_path / "missing")
    with pytest.raises(ValueError, match="layout: expected auto, brats"):
        find_cases(tmp_path, layout="dicom")


def test_ambiguous_files_are_refused(tmp_path):
    folder = write_case(tmp_path)
    write(folder / "Brats18_CBICA_AME_1_t1n.nii.gz", voxels(0))
    with pytest.raises(ValueError, match="two files for t1"):
        find_cases(tmp_path)
    (folder / "Brats18_CBICA_AME_1_t1n.nii.gz").unlink()
    write_case(tmp_path / "copy")
    with pytest.raises(ValueError, match="two cases are called Brats18_CBICA_AME_1"):
        find_cases(tmp_path)


def test_groups_and_splits(tmp_path):
    for name in ("site1_p1_a", "site1_p1_b", "site2_p2_a"):
        write_case(tmp_path, name, tags=("t1",))
    cases = find_cases(tmp_path, group_pattern=r"_(p\d)_", split={"train": ["p1"], "validation": ["site2_p2_a"]})
    assert [(c.group, c.split) for c in cases] == [("p1", "train"), ("p1", "train"), ("p2", "validation")]
    assert find_cases(tmp_path, split={"site1_p1_a": "train"})[1].split is None
    with pytest.raises(ValueError, match="does not match the case name 'site1_p1_a'"):
        find_cases(tmp_path, group_pattern=r"patient(\d+)")
    with pytest.raises(ValueError, match="no case or group is called p9"):
        find_cases(tmp_path, split={"p9": "train"})
    with pytest.raises(ValueError, match="patient p1 is in both train and None"):
        find_cases(tmp_path, group_pattern=r"_(p\d)_", split={"site1_p1_a": "train"})


def test_cases_can_be_hashed_and_pickled(tmp_path):
    write_case(tmp_path)
    (case,) = find_cases(tmp_path)
    assert pickle.loads(pickle.dumps(case)) == case and len({case, case}) == 1


# ---------------------------------------------------------------------------------------------- loading


def test_load_keeps_order_types_and_geometry(tmp_path):
    write_case(tmp_path)
    volume = load_case(find_cases(tmp_path)[0], ("t2", "T1c"))
    assert volume.image.dtype == np.float32 and volume.label.dtype == np.int16
    assert (volume.image == np.stack([voxels(3), voxels(2)])).all()
    assert (volume.label == voxels(0) % 5).all()
    assert np.allclose(volume.affine, AFFINE) and volume.spacing_mm == pytest.approx((1, 1, 1.5))


@settings(max_examples=25, deadline=None)
@given(present=st.sets(st.sampled_from((*FOUR, "seg")), min_size=1))
def test_an_incomplete_case_is_listed_and_names_what_is_missing(present):
    with tempfile.TemporaryDirectory() as folder:
        tags = tuple(t for t in FOUR if t in present)
        write_case(Path(folder), tags=tags, label="seg" if "seg" in present else None)
        (case,) = find_cases(folder)
        missing = [t for t in FOUR if t not in present]
        if missing:
            with pytest.raises(CaseError, match=f"Brats18_CBICA_AME_1: no file for {', '.join(missing)}"):
                load_case(case, FOUR)
        elif "seg" not in present:
            with pytest.raises(CaseError, match="Brats18_CBICA_AME_1: no label map"):
                load_case(case, FOUR)
            assert load_case(case, FOUR, require_label=False).label is None
        else:
            assert load_case(case, FOUR).image.shape == (4, 5, 6, 7)


DEFECTS = {
    "shape": (voxels(0, (5, 6, 8)), AFFINE, r"shape \(5, 6, 8\)"),
    "affine": (voxels(0), AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 0.01, "affine"),
    "nan": (np.where(voxels(0) == 3, np.nan, 1).astype(np.float32), AFFINE, "1 voxels that are not finite"),
    "too large": (np.full((5, 6, 7), 1e300), AFFINE, "not finite"),
    "two volumes": (voxels(0, (5, 6, 7, 2)), AFFINE, r"expected \(X, Y, Z\)"),
    "slice": (voxels(0, (5, 6)), AFFINE, r"expected \(X, Y, Z\)"),
    "colour": (np.zeros((5, 6, 7), [("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE, "expected numbers"),
}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("tag", ["t1", "seg"])
def test_defects_name_case_and_file(tmp_path, defect, tag):
    content, affine, message = DEFECTS[defect]
    file = write(write_case(tmp_path) / f"Brats18_CBICA_AME_1_{tag}.nii.gz", content, affine)
    with pytest.raises(CaseError, match=message) as caught:
        load_case(find_cases(tmp_path)[0], FOUR)
    assert "Brats18_CBICA_AME_1: " in str(caught.value) and file.name in str(caught.value)


@pytest.mark.parametrize("value", [0.5, 40000.0])
def test_labels_that_are_no_small_integers_are_refused(tmp_path, value):
    write(write_case(tmp_path) / "Brats18_CBICA_AME_1_seg.nii.gz", np.full((5, 6, 7), value, np.float32))
    with pytest.raises(CaseError, match=r"_seg.nii.gz has values from .* integers of 16 bits"):
        load_case(find_cases(tmp_path)[0], FOUR)


def test_affines_within_the_tolerance_agree(tmp_path):
    write(write_case(tmp_path) / "Brats18_CBICA_AME_1_seg.nii.gz", voxels(0) % 2, AFFINE + 5e-4 * np.eye(4, k=1))
    assert load_case(find_cases(tmp_path)[0], FOUR).label.max() == 1


def _damaged(content: bytes, damage: tuple[str, float, int]) -> bytes:
    kind, where, bits = damage
    at = int(where * (len(content) - 1))
    return content[:at] if kind == "cut" else content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


@settings(max_examples=150, deadline=None)
@given(
    damage=st.tuples(st.sampled_from(["cut", "flip"]), st.floats(0, 1), st.integers(1, 255)),
    end=st.sampled_from([".nii", ".nii.gz"]),
)
def test_damaged_files_raise_a_chained_case_error_or_read_the_same(damage, end):
    with tempfile.TemporaryDirectory() as folder:
        file = write_case(Path(folder), tags=("t1",), label=None, end=end) / f"Brats18_CBICA_AME_1_t1{end}"
        file.write_bytes(_damaged(file.read_bytes(), damage))
        (case,) = find_cases(folder)
        try:
            volume = load_case(case, ("t1",), require_label=False)
        except CaseError as error:
            assert file.name in str(error) and case.name in str(error)
            assert damage[0] == "flip" or error.__cause__ is not None
        else:
            assert damage[0] == "flip"  # a flipped bit is found out by gzip's checksum only
            assert end == ".nii" or (volume.image[0] == voxels(0)).all()


def test_other_things_under_a_nifti_name(tmp_path):
    file = write_case(tmp_path) / "Brats18_CBICA_AME_1_t2.nii.gz"
    for content in (b"", b"not gzip", gzip.compress(b""), gzip.compress(b"not NIfTI" * 100)):
        file.write_bytes(content)
        with pytest.raises(CaseError, match=r"Brats18_CBICA_AME_1: cannot read .*_t2.nii.gz as NIfTI") as caught:
            load_case(find_cases(tmp_path)[0], FOUR)
        assert caught.value.__cause__ is not None
    (case,) = find_cases(tmp_path)
    file.unlink()
    with pytest.raises(CaseError, match="No such file"):
        load_case(case, FOUR)


# ---------------------------------------------------------------------------------------------- z-scores


@settings(max_examples=50, deadline=None)
@given(
    image=arrays(np.float32, (2, 4, 4, 4), elements=st.integers(0, 200).map(float)),
    scale=st.floats(0.1, 50),
)
def test_zscores_are_over_covered_voxels_and_do_not_depend_on_scale(image, scale):
    image[:, 0, 0, :2] = [[50, 90], [10, 30]]  # never constant, never empty
    scored = zscore_host(image)
    host = (image != 0).all(axis=0)
    assert (scored[image == 0] == 0).all()
    assert np.allclose(scored[:, host].mean(axis=1), 0, atol=1e-4)
    assert np.allclose(scored[:, host].std(axis=1), 1, atol=1e-4)
    assert np.allclose(zscore_host(image * np.float32(scale)), scored, atol=1e-3)


def test_zscores_of_ct_take_another_background():
    image = np.random.default_rng(0).normal(0, 20, (1, 6, 6, 6)).astype(np.float32)
    image[0, :3] = -1024
    scored = zscore_host(image, background=-1024)
    assert (scored[0, :3] == 0).all() and abs(scored[0, 3:].mean()) < 1e-5


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((4, 4, 4)), r"expected \(C, X, Y, Z\)"),
        (np.zeros((1, 4, 4, 4)), "no voxel differs"),
        (np.ones((1, 4, 4, 4)), "channel 0 is constant"),
    ],
)
def test_zscores_refuse_what_has_none(image, message):
    with pytest.raises(ValueError, match=message):
        zscore_host(image)


# ---------------------------------------------------------------------------------------------- real data


@pytest.mark.real_data
def test_real_brats_cases_are_found_and_fit(real_data):
    cases = find_cases(real_data / "brats")
    assert len(cases) == len({c.group for c in cases}) == 12
    for case in cases:
        files = [nib.load(p) for p in (*case.images.values(), case.label)]
        assert set(case.images) == set(FOUR) and len({f.shape for f in files}) == 1
    volume = load_case(next(c for c in cases if c.group == "CBICA_AME"), FOUR)
    assert volume.spacing_mm == pytest.approx((1, 1, 1)) and set(np.unique(volume.label)) == {0, 1, 2, 4}
    assert volume.image.min() == 0 and volume.image.shape[1:] == volume.label.shape


@pytest.mark.real_data
@pytest.mark.parametrize(("folder", "channels", "count"), [("tumour_free", FOUR, 1), ("sarcoma_ct", ("ct",), 10)])
def test_other_real_cases_are_found_and_load(real_data, folder, channels, count):
    cases = find_cases(real_data / folder)
    assert len(cases) == count and all(set(c.images) == set(channels) for c in cases)
    volume = load_case(cases[0], channels)
    assert (volume.label.max() == 0) == (folder == "tumour_free")
