"""Trained models: saved, loaded, averaged, and used on cases, whose grid their label maps have."""

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from synthaug import BRATS18
from synthaug.cli.app import app
from synthaug.config import ConfigError
from synthaug.data import Case, find_cases, load_case
from synthaug.data.resampling import resample_image, resample_label, resample_onto
from synthaug.segmentation.inference import InferenceConfig
from synthaug.segmentation.model import ModelConfig, Segmenter, save_model
from synthaug.segmentation.networks import named_tensors
from synthaug.segmentation.postprocessing import PostprocessingConfig


def model_config(**changes) -> ModelConfig:
    options = {
        "channels": ("flair", "t1ce"),
        "classes_name": "BRATS18",
        "classes": dict(BRATS18.values),
        "regions": {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)},
        "region_outputs": False,
        "network": {"name": "DynUNet", "filters": (4, 4, 8), "strides": (1, 2, 2)},
        "patch_size": (32, 32, 32),
        "spacing_mm": None,
        "inference": InferenceConfig(overlap=0.25),
        "postprocessing": PostprocessingConfig(brain_mask=True),
    }
    return ModelConfig(**options | changes)


def saved(folder, seed=0, **changes):
    """A model with random weights."""
    torch.manual_seed(seed)
    config = model_config(**changes)
    save_model(folder, config, named_tensors(config.make_network()))
    return folder


@pytest.fixture(scope="module")
def oblique(phantom_folder, tmp_path_factory):
    """A phantom with voxels of 1 x 1.5 x 2 mm, turned in space, without its label."""
    folder = tmp_path_factory.mktemp("oblique") / "Case_1"
    folder.mkdir()
    affine = np.array([[0, -1.5, 0, 40], [1, 0, 0, -30], [0, 0, 2, 7.5], [0, 0, 0, 1.0]])
    case = find_cases(phantom_folder)[0]
    for channel in ("flair", "t1ce"):
        voxels = np.asarray(nib.load(case.images[channel]).dataobj)[:, 4:60]
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"Case_1_{channel}.nii.gz")
    return folder.parent


def test_a_model_comes_back_as_it_was_saved(tmp_path, phantom_folder):
    folder = saved(tmp_path / "model")
    one, other = Segmenter.load(folder), Segmenter.load(tmp_path)  # the folder of a run has it in model/
    assert one.config == model_config() == other.config
    volume = load_case(find_cases(phantom_folder)[0], one.config.channels)
    label = one.segment(volume)
    assert label.shape == volume.image.shape[1:] and np.array_equal(label, other.segment(volume))
    assert {*np.unique(label)} <= {0, 1, 2, 4} and len(np.unique(label)) > 1
    assert not label[(volume.image == 0).all(0)].any()


@pytest.mark.parametrize("spacing_mm", [None, (2.0, 2.0, 2.0)])
def test_predictions_have_the_grid_of_their_case(tmp_path, oblique, spacing_mm):
    model = saved(tmp_path / "model", spacing_mm=spacing_mm)
    result = CliRunner().invoke(app, ["predict", str(model), str(oblique), "--out", str(tmp_path / "out"), "--mirror"])
    assert result.exit_code == 0, result.output
    source = nib.load(oblique / "Case_1" / "Case_1_flair.nii.gz")
    found = nib.load(tmp_path / "out" / "Case_1.nii.gz")
    assert found.shape == source.shape and np.array_equal(found.affine, source.affine)
    assert found.get_data_dtype() == np.uint8 and found.header.get_zooms() == source.header.get_zooms()
    assert {*np.unique(np.asarray(found.dataobj))} <= {0, 1, 2, 4}


def test_ensembles_average_probabilities(tmp_path, phantom_folder):
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two", seed=1)
    volume = load_case(find_cases(phantom_folder)[0], ("flair", "t1ce"))
    labels = [Segmenter.load(*folders).segment(volume) for folders in ((one,), (two,), (one, two), (one, one))]
    assert np.array_equal(labels[3], labels[0])
    assert not np.array_equal(labels[2], labels[0]) and not np.array_equal(labels[2], labels[1])
    with pytest.raises(ConfigError, match=r"differs from .* in channels"):
        Segmenter.load(one, saved(tmp_path / "three", channels=("flair", "t1")))


def test_a_damaged_case_does_not_stop_the_others(tmp_path, oblique, phantom_folder):
    folder = tmp_path / "cases"
    (folder / "Bad_1").mkdir(parents=True)
    for channel in ("flair", "t1ce"):
        (folder / "Bad_1" / f"Bad_1_{channel}.nii.gz").write_bytes(b"nothing")
    (folder / "Case_1").symlink_to(oblique / "Case_1")
    for path in (oblique / "Case_1").iterdir():
        (folder / path.name.replace("Case_1", "Good_1")).write_bytes(path.read_bytes())
    run = ["predict", str(saved(tmp_path / "model")), str(folder), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 1 and "left out: Bad_1: cannot read" in result.output
    assert (tmp_path / "out" / "Good_1.nii.gz").exists() and not (tmp_path / "out" / "Bad_1.nii.gz").exists()


def test_models_that_cannot_be_loaded_are_named(tmp_path, oblique):
    with pytest.raises(ConfigError, match="no trained model there"):
        Segmenter.load(tmp_path)
    folder = saved(tmp_path / "model")
    other = model_config(network={"name": "DynUNet", "filters": (4, 4, 8, 8), "strides": (1, 2, 2, 2)})
    (folder / "config.json").write_text(other.model_dump_json())
    with pytest.raises(ConfigError, match="weights of another network"):
        Segmenter.load(folder)
    (folder / "config.json").write_text("{}")
    result = CliRunner().invoke(app, ["predict", str(folder), str(oblique), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "cannot be read" in result.output


def test_resampling_keeps_background_and_places(phantom_folder):
    case: Case = find_cases(phantom_folder)[0]
    volume = load_case(case, ("flair",))
    scored = np.where(volume.image > 0, (volume.image - volume.image.mean()) / volume.image.std(), 0).astype(np.float32)
    coarse, affine = resample_image(scored, volume.affine, (2, 2, 2))
    label = resample_label(volume.label, volume.affine, affine, coarse.shape[1:])
    assert coarse.shape[1:] == label.shape and np.allclose(np.linalg.norm(affine[:3, :3], axis=0), 2)
    for value in (1, 2, 4):
        assert (label == value).sum() * 8 == pytest.approx((volume.label == value).sum(), rel=0.2)
    inside = (scored != 0).mean()
    assert (coarse != 0).mean() == pytest.approx(inside, abs=0.05)
    mask = torch.from_numpy((label > 0)[None].astype(np.float32))
    back = resample_onto(mask, affine, volume.affine, scored.shape[1:])[0].numpy()
    truth = volume.label > 0
    assert 2 * back[truth].sum() / (back.sum() + truth.sum()) > 0.8
    places = np.indices(truth.shape).reshape(3, -1)
    assert np.abs((places * back.ravel()).sum(1) / back.sum() - places[:, truth.ravel()].mean(1)).max() < 0.25
    ramp = torch.arange(32.0)[None, :, None, None].expand(1, 32, 32, 32) * 2
    fine = resample_onto(ramp, np.diag([2.0, 2, 2, 1]), np.eye(4), (60, 60, 60))
    assert torch.allclose(fine[0, :, 9, 9], torch.arange(60.0), atol=1e-4)
