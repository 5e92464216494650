"""The segmentation trainer with lesions that are painted ahead: resume, shares of the time, leaks."""

import pytest
import segmentation_runs
from segmentation_runs import config_file, segmentation

from synthaug import LesionBank
from synthaug.config import ConfigError, read_config
from synthaug.data import find_cases
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
