"""`synthaug fit`: what it finds in made-up CT and MR, and that what follows is right on them without being told."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from limbs import SPACING, limb, write_nnunet
from typer.testing import CliRunner

from synthaug import LesionBank, TumorInsertion
from synthaug.adapters.nnunet.settings import read_settings
from synthaug.cli.app import app
from synthaug.config import ConfigError, read_config
from synthaug.data import write_phantom_dataset
from synthaug.profile import inserted
from synthaug.profile.configs import configurations
from synthaug.profile.fit import Given, fit, written
from synthaug.profile.page import page
from synthaug.profile.pictures import measurements
from synthaug.profile.profile import FILE, Generator, Profile
from synthaug.shipped import find_config
from synthaug.training.segmentation_config import InsertionConfig, SegmentationConfig


def test_what_is_found_in_ct(limbs_fitted):
    profile = Profile.load(limbs_fitted.out)
    assert [(c.name, c.modality) for c in profile.channels] == [("ct", "ct")] and profile.labels.lesions == {
        "tumour": 1
    }
    assert profile.units.fixed and profile.data.patients == 4 and profile.sizes.lesions >= 4
    low, high = profile.host.range["ct"]
    assert -200 < low < -60 and 40 < high < 200
    assert "avoid_fluid" not in profile.insertion
    assert profile.insertion["rotate90"] is False and "insertion.rotate90" in profile.why
    assert json.loads((limbs_fitted.out / FILE).read_text())["version"] == 1
    page = (limbs_fitted.out / "profile.html").read_text()
    assert "Profile of limbs" in page and page.count("data:image/png") >= 4 and "insertion.scale" in page
    for name in ("segmentation.yaml", "gan.yaml", "diffusion.yaml", "nnunet.yaml", "cohort.yaml", "bank.safetensors"):
        assert (limbs_fitted.out / name).is_file()


def test_on_coarser_voxels_an_edge_is_as_wide_in_mm(limbs_fitted):
    fine = limbs_fitted.profile
    plan = fine.plan.model_copy(update={"shape": (400, 400, 60), "spacing_mm": (1.0, 1.0, 3.0)})
    soft = fine.model_copy(update={"insertion": fine.insertion | {"edge_vox": 0.4}, "plan": plan})
    made = configurations(soft, limbs_fitted.cases, limbs_fitted.bank, limbs_fitted.out / FILE)
    coarse = yaml.safe_load(made["segmentation_coarse.yaml"])
    widest = min(coarse["data"]["spacing_mm"])
    assert widest > 2 and coarse["insertion"]["edge_vox"] * widest == pytest.approx(0.4, abs=0.01 * widest)
    assert yaml.safe_load(made["segmentation.yaml"])["insertion"] == {}


@pytest.mark.parametrize("generator", ["paste", "procedural:fitted"])
def test_lesions_lie_in_soft_tissue_at_their_own_intensities(limbs_fitted, generator):
    options = {"prob": 1.0, "second": 0.0, "scale": (0.8, 1.0), "clearance_mm": 1}
    insert = TumorInsertion.from_profile(limbs_fitted.out, generator=generator, **options)
    done = 0
    for seed in range(20, 28):
        image, tumour, _ = limb(seed)
        given = torch.from_numpy(image.astype(np.float32))[None, None]
        label = torch.from_numpy(tumour.astype(np.int16))[None, None]
        host = insert.space.host_of(
            image[None].astype(np.float32), tumour.astype(np.int16), ("ct",), insert.classes, SPACING
        )
        new, new_label = insert(given, label, SPACING, host=host[None])
        changed = (new_label != label)[0, 0].numpy()
        if not changed.any():
            continue
        done += 1
        before = image[changed]
        assert (before > -160).all() and (before < 200).mean() > 0.99  # neither air, nor table, nor bone
        assert 10 < np.median(new[0, 0].numpy()[changed]) < 60
    assert done >= 4


def test_an_organ_holds_lesions_and_a_third_label_is_avoided(tmp_path):
    def organ(tumour, muscle):
        label = np.where(tumour, 2, muscle)
        label[2:5, 2:5, 2:5] = 3
        return label

    unclear = write_nnunet(tmp_path / "unclear", organ, {"background": 0, "one": 1, "two": 2, "three": 3})
    with pytest.raises(ConfigError, match="none of one=1, two=2, three=3 is called like a lesion"):
        fit(unclear)
    assert fit(unclear, told=Given(classes={"two": 2}, organs={"one": 1})).profile.labels.lesions == {"two": 2}
    labels = {"background": 0, "muscle": 1, "tumour": 2, "bladder": 3}
    found = fit(write_nnunet(tmp_path / "organs", organ, labels))
    assert found.profile.labels.lesions == {"tumour": 2} and found.profile.labels.organs == {"muscle": 1}
    assert found.profile.labels.avoided == {"bladder": 3} and len(found.bank.groups) == 4


def test_ct_in_a_box_without_air(tmp_path):
    profile = fit(write_nnunet(tmp_path / "box", lambda tumour, _: tumour, None, air=False)).profile
    assert profile.channels[0].modality == "ct" and profile.units.fixed


def test_skull_stripped_gliomas_stay_what_they_were(tmp_path):
    write_phantom_dataset(tmp_path / "brains", 3, seed=4, size=(40, 40, 40))
    found = fit(tmp_path / "brains")
    assert found.profile.labels.lesions == {"NCR": 1, "ED": 2, "ET": 4} and not found.profile.units.fixed
    assert found.profile.insertion["avoid_fluid"] is True and "ventricles" in found.profile.why["insertion.avoid_fluid"]
    plain = LesionBank.from_folder(tmp_path / "brains", "BRATS18")
    assert found.bank.checksum == plain.checksum


def with_patients(fitted, patients):
    data = fitted.profile.data.model_copy(update={"patients": patients})
    return replace(fitted, profile=fitted.profile.model_copy(update={"data": data}))


def test_few_labelled_patients_are_told_of_lesions_of_others(limbs_fitted):
    assert "few" not in written(with_patients(limbs_fitted, 5))
    said = written(with_patients(limbs_fitted, 4))["few"]
    assert said.startswith("4 labelled patients may gain") and "brats" not in said


@pytest.fixture(scope="module")
def gliomas_fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gliomas") / "brains"
    write_phantom_dataset(folder, 3, seed=4, size=(40, 40, 40))
    return fit(folder)


def insertions_of(fitted):
    """The insertions of the two segmenters and the settings of nnU-Net that are written for a fit."""
    made = configurations(fitted.profile, fitted.cases, fitted.bank, fitted.out / FILE)
    read = {
        name: yaml.safe_load(made[name]) for name in ("segmentation.yaml", "segmentation_coarse.yaml", "nnunet.yaml")
    }
    return read["segmentation.yaml"]["insertion"], read["segmentation_coarse.yaml"]["insertion"], read["nnunet.yaml"]


def test_trainings_on_few_gliomas_insert_lesions_of_no_patient(gliomas_fitted, tmp_path):
    assert "the configurations insert lesions of no patient" in written(gliomas_fitted)["few"]
    assert "lesions of no patient, by brats-masks" in page(gliomas_fitted)
    whole, coarse, nnunet = insertions_of(gliomas_fitted)
    for options in (whole, coarse):
        assert options["bank"] == "brats-masks" and options["generator"] == "brats-gan" and options["place"] == "home"
    painted = gliomas_fitted.out.resolve() / "painted.safetensors"
    assert nnunet["bank"] == str(painted) and nnunet["generator"] == "paste"
    assert nnunet["insertion"]["place"] == "home" and "diameter_mm" not in nnunet["insertion"]
    head = (gliomas_fitted.out / "nnunet.yaml").read_text(encoding="utf-8").splitlines()[1]
    assert "nnunet-bank" not in head
    assert f"synthaug bank paint brats-masks --generator brats-gan -n 60 -o {painted}; export SYNTHAUG_CONFIG=" in head
    assert read_settings(gliomas_fitted.out / "nnunet.yaml").bank == painted
    config = read_config(gliomas_fitted.out / "segmentation_coarse.yaml", SegmentationConfig)
    assert config.insertion.painted.count == 60 and config.optimizer.steps == 1200


def test_trainings_on_gliomas_that_ship_has_seen_or_that_are_many_insert_their_own(gliomas_fitted):
    seen = replace(gliomas_fitted, cases=[replace(case, group="CBICA_AQN") for case in gliomas_fitted.cases])
    profile = gliomas_fitted.profile
    trained = profile.model_copy(update={"generator": profile.generator.model_copy(update={"name": "generator"})})
    for fitted in (seen, with_patients(gliomas_fitted, 5), replace(gliomas_fitted, profile=trained)):
        whole, coarse, nnunet = insertions_of(fitted)
        assert "own lesions at their own places" in page(fitted)
        assert "bank" not in whole and "generator" not in coarse and nnunet["generator"] == "paste"
        assert whole["place"] == coarse["place"] == nnunet["insertion"]["place"] == "home"
    assert "may gain" in written(seen)["few"] and "bank: brats-masks" in written(seen)["few"]


def test_what_won_takes_the_place_of_a_class_mix(gliomas_fitted):
    steered = {"prob": 0.5, "diameter_mm": [10, 20], "class_mix": {"NCR": 0.2, "ED": 0.5, "ET": 0.3}, "edge_vox": 1.0}
    fitted = replace(gliomas_fitted, profile=gliomas_fitted.profile.model_copy(update={"insertion": steered}))
    found = insertions_of(fitted)[2]["insertion"]
    assert found["prob"] == 0.7 and found["edge_vox"] == 1.0 and not {"class_mix", "diameter_mm"} & {*found}


def test_what_won_is_what_the_shipped_configurations_insert():
    def without_defaults(options):
        return InsertionConfig.model_validate(options).model_dump(exclude_defaults=True)

    own = yaml.safe_load(find_config("segmentation_brats").read_text(encoding="utf-8"))["insertion"]
    assert without_defaults(own) == without_defaults(inserted.OWN)
    arms = yaml.safe_load(find_config("trial_learned").read_text(encoding="utf-8"))["arms"]
    learned = yaml.safe_load(arms[1]["overrides"][0].removeprefix("insertion="))
    lesions = {"bank": inserted.MASKS, "generator": inserted.PAINTER, "painted": inserted.POOL}
    assert without_defaults(learned) == without_defaults(lesions | inserted.LEARNED)


def test_thick_slices_are_not_turned(gliomas_fitted):
    thick = gliomas_fitted.profile.model_copy(
        update={"insertion": {**gliomas_fitted.profile.insertion, "rotate_deg": 0.0}}
    )
    assert "rotate_deg" not in insertions_of(replace(gliomas_fitted, profile=thick))[0]


def test_the_page_draws_mr_in_the_units_of_each_patients_tissue(tmp_path, limbs_fitted):
    write_phantom_dataset(tmp_path / "brains", 2, seed=4, size=(40, 40, 40))
    plain = fit(tmp_path / "brains")
    scaled = sorted((tmp_path / "brains").rglob("*t1.nii.gz"))[0]
    image = nib.load(scaled)
    # a power of two, so that nothing is rounded otherwise
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 8, image.affine), scaled)
    other = fit(tmp_path / "brains")
    assert np.ptp(other.look.lesion["t1"][0]) == 8 * np.ptp(plain.look.lesion["t1"][0])
    first, second = (measurements(found.profile, found.look) for found in (plain, other))
    assert "t1, in standard deviations of the host" in first and first == second
    assert "as stored" not in first and "Dashed green" not in page(plain)
    assert "as stored" in measurements(limbs_fitted.profile, limbs_fitted.look) and "Dashed green" in page(limbs_fitted)


def test_what_was_made_in_other_units_is_refused_with_both_sides(limbs_fitted):
    bank = LesionBank.load(limbs_fitted.out / "bank.safetensors")
    with pytest.raises(
        ValueError,
        match=r"lesion bank was made with fixed units .*; this insertion has z-scores of host tissue.*--profile",
    ):
        TumorInsertion(bank, classes=Profile.load(limbs_fitted.out).classes, channels=("ct",))


WRONG = [
    ("version", 0, "version: expected 1, got 0; make it anew: synthaug fit /"),
    ("format", "other", "expected a file that `synthaug fit FOLDER` wrote"),
    ("unite", {}, "unite: unknown key, did you mean units"),
    ("channels", [], "channels: expected one or more, got none"),
    ("channels.0.modality", "CT", r"  channels\.0\.modality: Input should be 'ct', .*, got 'CT'$"),
    ("channels.0.nam", "ct", "channels.0.nam: unknown key, did you mean name"),
    ("data.cases", 0, "data.cases: Input should be greater than 0, got 0"),
    ("data.group_pattern", "([", r"  data\.group_pattern: expected a regular expression, got '\(\['"),
    ("labels.lesions.tumour", "one", "labels.lesions.tumour: Input should be a valid integer"),
    ("labels.organs", {"muscle": 1}, r"labels: expected each value once .*, got \[1\] more often"),
    ("labels.regions", {"WT": ["tumor1"]}, r"  labels\.regions\.WT: expected lesions \(tumour\), got tumor1"),
    ("host.range.ct", [200, -100], r"  host\.range\.ct: expected low below high, got 200 and -100"),
    ("host.range.ct", "[-100, 200]", r"host\.range\.ct: expected a list in brackets such as \[-100, 200\], got"),
    ("host.range.pet", [0, 1], r"  host\.range\.pet: expected one of the channels ct, got pet"),
    ("host.body.channel", "pet", r"  host\.body\.channel: expected one of the channels ct, got pet"),
    ("units.fixed.ct.std", 0, "units.fixed.ct.std: Input should be greater than 0, got 0"),
    ("units.fixed.ct.mean", float("nan"), "units.fixed.ct.mean: Input should be a finite number"),
    ("units.fixed.ct.high", -2000, r"  units\.fixed\.ct\.low: expected less than high, got -111 and -2000"),
    ("where.frequency", [1.0], r"  where\.frequency: expected 4096 numbers for the grid, got 1"),
    ("insertion.prob", 3, r"  insertion\.prob: expected a probability in \[0, 1\], got 3"),
    ("insertion.probb", 0.3, r"  insertion\.probb: unknown key, did you mean prob"),
    ("insertion.diameter_mm", [5, 9], r"  insertion: .*scale.*diameter_mm"),
    ("insertion.swaps", [["a", "b", 0.5]], r"  insertion\.swaps: unknown class 'a': .* has tumour"),
    ("plan.kernels", [[3, 3, 3]], r"  plan\.kernels: expected \d, one for each of the filters, got 1"),
    ("generator", "paste", "generator: Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_an_edited_profile_is_checked(limbs_fitted, tmp_path, key, value, message):
    content = json.loads((limbs_fitted.out / FILE).read_text())
    *parents, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    at = content
    for parent in parents:
        at = at[parent]
    at[last] = value
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=rf"(?m){message}") as raised:
        Profile.load(tmp_path)
    assert str(tmp_path / FILE) in str(raised.value) and len(str(raised.value).splitlines()) <= 2


def test_a_file_that_is_no_profile_is_named(limbs_fitted, tmp_path):
    with pytest.raises(ConfigError, match="`synthaug fit FOLDER` makes one"):
        Profile.load(tmp_path / "none.json")
    text = (limbs_fitted.out / FILE).read_text()
    for content, message in (
        (text[:-20], "not JSON"),
        (text.replace('"version": 1', '"version": 1, "version": 1'), "the key version is given twice"),
        ('{"format": "synthaug-profile", "version": 0, "data": 3}', "version: expected 1, got 0"),
    ):
        (tmp_path / FILE).write_text(content)
        with pytest.raises(ConfigError, match=message):
            Profile.load(tmp_path)


def test_a_recommended_generator_that_is_not_there_is_named_with_its_key(limbs_fitted, tmp_path):
    profile = limbs_fitted.profile.model_copy(update={"generator": Generator(name="nosuch")})
    profile.save(tmp_path / FILE)
    with pytest.raises(ConfigError, match=r"generator\.name: expected a folder beside it or one of paste, .*'nosuch'"):
        TumorInsertion.from_profile(tmp_path, limbs_fitted.bank)
    assert TumorInsertion.from_profile(tmp_path, limbs_fitted.bank, "paste").generator is not None


def test_bad_data_is_named_and_the_others_go_on(tmp_path):
    folder = write_nnunet(tmp_path / "limbs", lambda tumour, _: tumour, None)
    (folder / "imagesTr" / "limb_001_0000.nii.gz").write_bytes(b"no nifti")
    found = fit(folder)
    assert found.profile.data.cases == 3 and any("limb_001" in reason for reason in found.profile.data.left_out)
    empty = write_nnunet(tmp_path / "empty", lambda tumour, _: 0 * tumour, None, count=2)
    with pytest.raises(ConfigError, match="label"):
        fit(empty)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="nothing"):
        fit(tmp_path / "nothing")


def test_the_commands_read_the_profile_beside_the_cases(limbs_fitted, tmp_path):
    run = CliRunner().invoke
    folder = str(limbs_fitted.out)
    done = run(app, ["insert", folder, "--out", str(tmp_path / "inserted"), "--seed", "3"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "inserted" / "insertions.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {row["place"] for row in rows} == {"like-data"}
    assert all(row["donor_group"] != row["host_group"] for row in rows)
    again = run(app, ["fit", folder, "-o", str(tmp_path / "again")])
    assert again.exit_code == 0 and "host" in again.output
    assert (
        json.loads((tmp_path / "again" / FILE).read_text())["host"]
        == json.loads((limbs_fitted.out / FILE).read_text())["host"]
    )
