"""The segmentation trainer with lesions that are painted ahead: resume, shares of the time, leaks."""

import pytest
import segmentation_runs
import torch
from segmentation_runs import config_file, segmentation

from synthaug import LesionBank, LesionSampler, LesionShapes
from synthaug.config import ConfigError, read_config
from synthaug.data import find_cases
from synthaug.lesions.shape_model import ShapeModel
from synthaug.training.segmentation_config import SegmentationConfig

clean_process, folder = segmentation_runs.clean_process, segmentation_runs.folder
made, run = segmentation_runs.made, segmentation_runs.run

PROCEDURAL = "insertion.generator=procedural"
PAINTED = (PROCEDURAL, "insertion.painted={count: 6, refresh: 0.4}")


def test_a_stopped_run_with_refresh_continues_bit_for_bit(run, tmp_path, monkeypatch, made):
    whole = run(*PAINTED, out="whole")
    source = made[-1]
    assert source.repainted == int(0.4 * 15) and all(x.group != "Phantom_002_1" for x in source.to_bank())
    save = segmentation.save_checkpoint

    def save_and_stop(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(segmentation, "save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(*PAINTED, out="stopped")
    monkeypatch.setattr(segmentation, "save_checkpoint", save)
    continued = run(*PAINTED, out="stopped")
    weights = [tmp_path / out / "model" / "weights.safetensors" for out in ("whole", "stopped")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    timed = {"seconds_per_step", "insertion_seconds_per_step", "insertion_share", "painting_share"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in continued] == [
        {k: v for k, v in row.items() if k not in timed} for row in whole
    ]
    last = whole[-1]
    assert 0 < last["painting_share"] < last["insertion_share"] and last["insertion"]["done"] > 0
    assert last["repainted"] == source.repainted


def test_it_says_what_is_painted(run, capsys):
    run(PROCEDURAL, "insertion.painted={count: 6, budget: 0.5}", "optimizer.steps=2")
    words = "6 lesions are painted ahead by procedural, and as many anew as keep insertion within 50.0% of the time"
    assert words in capsys.readouterr().out


def test_a_start_with_validation_patients_is_refused(run, tmp_path, folder):
    donors = LesionBank.from_folder(folder, "BRATS18", ("flair", "t1ce"))
    donors.painted("procedural", 6, scale=(0.3, 0.6)).save(tmp_path / "painted.safetensors")
    start = "insertion.painted={count: 6, bank: %s}" % (tmp_path / "painted.safetensors")
    with pytest.raises(ConfigError, match="holds lesions of the patients Phantom_002"):
        run(PROCEDURAL, start)
    with pytest.raises(ConfigError, match="holds lesions of the patients Phantom_002"):
        run(f"insertion.bank={tmp_path / 'painted.safetensors'}")
    training = [case for case in find_cases(folder) if case.group != "Phantom_002_1"]
    kept = LesionBank.load(tmp_path / "painted.safetensors").of_groups(case.group for case in training)
    kept.save(tmp_path / "painted.safetensors")
    assert run(PROCEDURAL, start, "optimizer.steps=1")[-1]["repainted"] == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["insertion.painted={count: 6}"], "a generator that paints"),
        (
            ["insertion.painted={count: 6}", PROCEDURAL, "insertion.lesions=shapes"],
            "lesions: bank",
        ),
        (["insertion.painted={refresh: 0.1, budget: 0.1}", PROCEDURAL], "not both"),
        (["insertion.painted={budget: 3}", PROCEDURAL], "budget"),
        (["insertion.painted={count: 0}", PROCEDURAL], "count"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, folder, overrides, message):
    with pytest.raises(ConfigError, match=message):
        read_config(config_file(tmp_path, folder), SegmentationConfig, overrides)


def test_sizes_that_no_donor_has_are_an_error_of_the_configuration(run):
    with pytest.raises(ConfigError, match=r"insertion.painted: no lesion could be painted"):
        run(*PAINTED, "insertion.scale=[0.01, 0.01]")


@pytest.fixture
def sampler(tmp_path):
    """File of a sampler of masks that has learned from other phantoms than those of the run."""
    file = tmp_path / "sampler.safetensors"
    shapes = LesionShapes(diameter_mm=(10, 14), classes="BRATS18")
    lesions = [(shapes.mask(f"shape:{n}", torch.device("cpu")), (1.0, 1.0, 1.0)) for n in range(6)]
    LesionSampler(ShapeModel.fit(lesions, 3), ("NCR", "ED", "ET"), patients=["Elsewhere"]).save(file)
    return file


def test_masks_of_a_sampler_are_painted_ahead_or_in_place(run, made, sampler, capsys):
    named = (f"insertion.bank={sampler}", PROCEDURAL, "optimizer.steps=3")
    ahead = run(*named, "insertion.painted={count: 5, spacing_mm: [0.5, 0.5, 0.5]}", out="ahead")[-1]
    assert ahead["insertion"]["done"] > 0
    assert {(lesion.group, lesion.spacing_mm) for lesion in made[-1].to_bank()} == {(None, (0.5, 0.5, 0.5))}
    assert len({lesion.name.split(" ")[0] for lesion in made[-1].to_bank()}) == 5
    assert run(*named, out="in-place")[-1]["insertion"]["done"] > 0
    assert "warning" not in capsys.readouterr().out


def test_a_sampler_needs_a_generator_that_paints(run, sampler):
    with pytest.raises(ConfigError, match=r"insertion: .*(intensities|donor)"):
        run(f"insertion.bank={sampler}")
    with pytest.raises(ConfigError, match=r"painted.bank: expected a painted bank, got the sampler"):
        run(PROCEDURAL, f"insertion.painted={{count: 6, bank: {sampler}}}")


def test_a_sampler_that_knows_validation_patients_is_refused(run, folder, tmp_path):
    bank = LesionBank.from_folder(folder, "BRATS18", ("flair", "t1ce"))
    LesionSampler.fit(bank).save(tmp_path / "sampler.safetensors")
    with pytest.raises(ConfigError, match=r"the sampler .* holds lesions of the patients Phantom_002"):
        run(f"insertion.bank={tmp_path / 'sampler.safetensors'}", PROCEDURAL)


def test_it_warns_where_the_painter_of_a_bank_has_seen_validation_patients(run, folder, tmp_path, sampler, capsys):
    run(f"insertion.bank={sampler}", PROCEDURAL, "optimizer.steps=1", out="before")
    painted = LesionSampler.load(sampler).painted("procedural", 4, channels=("flair", "t1ce"))
    painted.painting["taught_on"] = ["Phantom_002_1"]
    painted.save(tmp_path / "painted.safetensors")
    capsys.readouterr()
    run(f"insertion.bank={tmp_path / 'painted.safetensors'}", "optimizer.steps=1", out="after")
    assert "warning: what is inserted was learned from Phantom_002" in capsys.readouterr().out
