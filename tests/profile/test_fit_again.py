"""`synthaug fit` in a folder that has a profile: a recommended generator stays where it fits, and what goes is said."""

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.profile.kept import with_recommendation
from synthaug.profile.profile import BANK, FILE, Generator, Profile

ROWS = {"paste": {"distance": 0.4}, "generator": {"distance": 0.2, "lesions": 24.0}}


@pytest.fixture
def recommending(limbs_fitted, tmp_path):
    """A copy of the limbs' profile that recommends a generator of its own, and the generator's folder."""
    (tmp_path / "generator").mkdir()
    profile = limbs_fitted.profile
    told = {"generator": Generator(name="generator", compared=ROWS), "why": profile.why | {"generator": "it is nearer"}}
    changed = replace(limbs_fitted, out=tmp_path, profile=profile.model_copy(update=told))
    changed.profile.save(tmp_path / FILE)
    changed.bank.save(tmp_path / BANK)
    return changed


def test_a_recommendation_stays_when_the_same_data_are_fitted_again(limbs_fitted, recommending):
    again = CliRunner().invoke(app, ["fit", str(limbs_fitted.out), "-o", str(recommending.out)])
    assert again.exit_code == 0 and "generator: generator stays recommended" in again.output
    assert Profile.load(recommending.out) == recommending.profile
    assert not (recommending.out / "synthaug.old.json").exists(), "nothing changed"
    assert "it is nearer" in (recommending.out / "profile.html").read_text()


PET = {"name": "pet", "called": "pet", "modality": "pet"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p | {"units": {}}, r"units: fixed units \(ct .*\), now z-scores of host tissue;"),
        (lambda p: p["host"]["range"].update(ct=[-50, 72]) or p, r"host: .*ct within -113 to 72.*, now .*-50 to 72"),
        (lambda p: p["labels"].update(lesions={"sarcoma": 1}) or p, "classes: tumour=1, now sarcoma=1;"),
        (lambda p: p | {"channels": [*p["channels"], PET]}, "channels: ct, now ct, pet;"),
        (lambda p: p["data"].update(cases=5, patients=5) or p, "cases: 4 of 4 patients, now 5 of 5 patients;"),
    ],
)
def test_what_no_longer_fits_is_dropped_and_named(limbs_fitted, recommending, change, message):
    now = Profile.model_validate(change(json.loads(limbs_fitted.profile.json())))
    profile, kept = with_recommendation(now, recommending.bank, recommending.out)
    assert profile is now and kept.startswith("generator: generator is recommended no more") and "fit --train" in kept
    assert re.search(message, kept), kept


def test_other_lesions_and_a_generator_that_is_gone_are_noticed(limbs_fitted, recommending):
    fewer = recommending.bank.of_groups(sorted(recommending.bank.groups)[1:])
    assert "lesions are not those" in with_recommendation(limbs_fitted.profile, fewer, recommending.out)[1]
    (recommending.out / "generator").rmdir()
    kept = with_recommendation(limbs_fitted.profile, recommending.bank, recommending.out)[1]
    assert f"there is no folder {recommending.out / 'generator'}" in kept
    (recommending.out / BANK).write_bytes(b"no bank")
    assert "lesions are not those" in with_recommendation(limbs_fitted.profile, recommending.bank, recommending.out)[1]


def test_a_profile_without_a_recommendation_has_nothing_to_keep(limbs_fitted, tmp_path):
    assert with_recommendation(limbs_fitted.profile, limbs_fitted.bank, tmp_path) == (limbs_fitted.profile, "")
    assert with_recommendation(limbs_fitted.profile, limbs_fitted.bank, limbs_fitted.out)[1] == ""


def test_a_profile_that_cannot_be_read_is_said_and_kept_beside(limbs_fitted, recommending):
    edited = json.loads((recommending.out / FILE).read_text()) | {"unite": {}}
    (recommending.out / FILE).write_text(json.dumps(edited))
    again = CliRunner().invoke(app, ["fit", str(limbs_fitted.out), "-o", str(recommending.out)])
    assert again.exit_code == 0 and "nothing is kept" in again.output and "unite: unknown key" in again.output
    assert Profile.load(recommending.out).generator == Generator()
    assert json.loads((recommending.out / "synthaug.old.json").read_text()) == edited
