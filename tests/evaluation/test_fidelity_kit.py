"""The fidelity kit on made-up CT: controls, going on, refusals, the judge, and the reader's page."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from limbs import write_nnunet
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.cli.fidelity import checked_settings, tell_seen
from synthaug.config import ConfigError
from synthaug.evaluation.fidelity import (
    ClassifierOptions,
    Fold,
    Specimen,
    auc_interval,
    held_out_scores,
    split_distances,
)
from synthaug.evaluation.fidelity import kit as kit_module
from synthaug.evaluation.fidelity.config import FidelityConfig
from synthaug.evaluation.fidelity.kit import Kit
from synthaug.evaluation.fidelity.recognition import load_judge
from synthaug.evaluation.fidelity.scene import Scene
from synthaug.evaluation.fidelity.store import Store
from synthaug.profile.fit import fit

TINY = FidelityConfig(insertions=4, seeds=1, folds=2, steps=3, batch=4, size=16, crops=4, splits=4, read=3, tries=3)


@pytest.fixture(scope="module")
def limbs(tmp_path_factory):
    folder = write_nnunet(tmp_path_factory.mktemp("ct") / "limbs", lambda tumour, _: tumour, None)
    return fit(folder)


@pytest.fixture(scope="module")
def noise(limbs, tmp_path_factory) -> Kit:
    kit = Kit("noise", limbs.profile, limbs.cases, tmp_path_factory.mktemp("noise"), TINY, say=lambda _: None)
    kit.run()
    return kit


def test_noise_is_farther_from_real_lesions_than_they_are_from_each_other(noise):
    found = json.loads((noise.store.out / "fidelity.json").read_text())
    assert found["lesions"] == {"real": 4, "inserted": 4, "refused": 0, "patients": 4}
    assert set(found["auc"]) == {"lesion", "border", "patch", "linear"}
    spread = next(row for row in found["distances"] if row["what"] == "std")
    assert spread["made"] > spread["floor"] + 0.3
    page = (noise.store.out / "fidelity.html").read_text()
    assert "4 inserted lesions" in page and page.count('role="img" aria-label="evidence on') == 3


def test_a_finished_measurement_is_left_alone_and_another_is_refused(noise, limbs, monkeypatch):
    before = (noise.store.out / "fidelity.json").read_text()
    monkeypatch.setattr(kit_module, "held_out_scores", lambda *_: pytest.fail("trained again"))
    Kit("noise", limbs.profile, limbs.cases, noise.store.out, TINY).run()
    assert (noise.store.out / "fidelity.json").read_text() == before
    with pytest.raises(ConfigError, match=r"steps was 3 and is 4"):
        Kit("noise", limbs.profile, limbs.cases, noise.store.out, TINY.model_copy(update={"steps": 4}))


def test_what_was_cut_off_is_measured_again_and_comes_out_the_same(noise, limbs, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(noise.store.out, out)
    lines = (out / "measured.jsonl").read_text().splitlines(keepends=True)
    (out / "measured.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    again = Kit("noise", limbs.profile, limbs.cases, out, TINY, say=lambda _: None).run()
    assert again == noise.results()


def test_a_twin_differs_inside_the_lesion_alone(limbs):
    scene = Scene(limbs.cases, limbs.profile, "procedural:fitted", limbs.bank)
    first = scene.insertion(*scene.jobs(1)[0], 0)
    second = scene.twin(first)
    inside = first.label != 0
    assert torch.equal(first.label, second.label)
    differs = torch.from_numpy(first.volume.image != second.volume.image)[0]
    assert differs[inside].float().mean() > 0.8 and not differs[~inside].any()


def test_the_lesion_lies_in_the_middle_of_what_a_reader_sees(limbs):
    for sample in Scene(limbs.cases, limbs.profile, "paste", limbs.bank).real():
        assert sample.view.shape[1:] == sample.outline.shape == (112, 112)
        assert np.abs(np.argwhere(sample.outline).mean(0) - 56).max() < 2


def test_an_option_of_the_insertion_can_be_asked_about(limbs, tmp_path):
    asked = checked_settings(TINY, ["options.scale=[0.95, 0.95]", "insertions=1"])
    assert asked.options == {"scale": [0.95, 0.95]} and asked.steps == TINY.steps
    assert checked_settings(asked, ["regions=[border]"]).regions == ("border",)
    kit = Kit("paste", limbs.profile, limbs.cases, tmp_path, asked, say=lambda _: None)
    kit.samples()
    assert kit.store.samples("made")[0].facts["row"]["scale"] == 0.95


def test_a_bank_is_pasted_and_its_twin_is_the_same(limbs, tmp_path):
    limbs.bank.save(tmp_path / "bank.safetensors")
    few = TINY.model_copy(update={"insertions": 2})
    kit = Kit(tmp_path / "bank.safetensors", limbs.profile, limbs.cases, tmp_path / "out", few, say=lambda _: None)
    kit.samples()
    kit.compared(*([s.specimen for s in kit.store.samples(kind)] for kind in ("real", "made")))
    assert kit.store.rows["diversity"]["seeds"] == [0.0]


def test_a_classifier_sees_the_regions_that_were_asked_for(limbs, tmp_path):
    border = TINY.model_copy(update={"regions": ("border",), "insertions": 2})
    found = Kit("paste", limbs.profile, limbs.cases, tmp_path, border, say=lambda _: None).run()
    assert set(found["auc"]) == {"border", "linear"}
    again = Store.reading(tmp_path)
    assert again.rows["real"]["lesions"] == 4 and len(again.samples("made")) == 2
    with pytest.raises(ConfigError, match=r"expected a folder of synthaug fidelity"):
        Store.reading(tmp_path / "samples")


def specimens(mean: float, seed: int, prefix: str = "patient") -> list[Specimen]:
    rng = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, 16, 16, 16)
    mask[0, 4:12, 4:12, 4:12] = 1
    return [Specimen(mean + torch.randn(1, 16, 16, 16, generator=rng), mask, f"{prefix} {i}") for i in range(6)]


def test_distances_stand_beside_their_floor():
    same, far = (split_distances(specimens(0, 1), specimens(m, 2), ["a"], ["x"]) for m in (0.0, 2.0))
    for row in same:
        assert row["made"] == pytest.approx(row["floor"], abs=0.06)
    assert next(row["made"] for row in far if row["what"] == "mean") == pytest.approx(2, abs=0.15)
    with pytest.raises(ValueError, match="two patients"):
        split_distances(specimens(0, 1)[:1], specimens(0, 2), ["a"], ["x"])


def test_intervals_hold_chance_and_shrink_to_what_is_sure():
    rng = np.random.default_rng(0)

    def folds(shift: float) -> list[Fold]:
        side = [[(f"p{f}{i}", rng.normal(s, 1, 8)) for i in range(3)] for s in (0, shift) for f in range(1)]
        return [Fold(*side, seed=0), Fold(*side, seed=1)]

    mean, low, high = auc_interval(folds(0.0))
    assert low < 0.5 < high and low < mean < high
    assert auc_interval(folds(50.0)) == pytest.approx((1.0, 1.0, 1.0))


def test_patients_of_one_side_alone_are_dealt_to_all_folds():
    options = TINY.classifier(2)
    folds, _ = held_out_scores(specimens(0, 1, "a"), specimens(0, 2, "b"), "patch", options)
    assert [len(f.real) for f in folds] == [3, 3] and [len(f.inserted) for f in folds] == [3, 3]


def test_evidence_is_strongest_where_the_lesion_differs():
    options = ClassifierOptions(folds=2, steps=30, batch=4, size=16, crops=2)
    _, looks = held_out_scores(specimens(0, 1), specimens(3, 2), "lesion", options, looks=2)
    assert {look.inserted for look in looks} == {True, False} and len(looks) == 8
    by_kind = {kind: np.mean([float(x.evidence.sum()) for x in looks if x.inserted == kind]) for kind in (True, False)}
    assert by_kind[True] > by_kind[False]
    assert all(bool((look.evidence[look.crop[-1] == 0] == 0).all()) for look in looks)


def test_a_judges_dice_is_of_the_inserted_lesion(noise, limbs, tmp_path):
    (tmp_path / "judge.py").write_text(
        "import numpy as np\nclass Judge:\n    def segment(self, ct):\n        return np.ones(ct.shape, np.uint8)\n"
    )
    few = TINY.model_copy(update={"insertions": 1, "judged": 1})
    kit = Kit("paste", limbs.profile, limbs.cases, tmp_path / "o", few, judge=tmp_path / "judge.py", say=lambda _: None)
    kit.samples()
    kit.recognised()
    dice = kit.store.rows["judge 0"]["dice"]["tumour"]
    assert 0 < dice < 0.1, "all of the volume is marked"
    with pytest.raises(ValueError, match="folder of a trained model or a Python file"):
        load_judge(tmp_path / "nothing", ("ct",))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="class Judge"):
        load_judge(tmp_path / "empty.py", ("ct",))


def test_the_reader_is_shown_both_kinds_and_no_answer(noise):
    text = (noise.store.out / "reader.html").read_text()
    assert (
        text.count("data:image/png") == 6
        and 'synthetic"' not in text.split("const hidden")[0].split("const pictures")[1]
    )
    coded, key = re.search(r'atob\("(.*?)"\).*?\^ (\d+)', text).groups()
    truth = json.loads(bytes(byte ^ int(key) for byte in base64.b64decode(coded)))
    assert sorted(truth) == [0, 0, 0, 1, 1, 1]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's script with")
def test_the_readers_auc_is_counted_right(noise):
    script = re.search(r"<script>(.*?)</script>", (noise.store.out / "reader.html").read_text(), re.DOTALL).group(1)
    script += "console.log(JSON.stringify([readerAuc([0,0,1,1,1],[1,3,3,4,5]), readerAuc([1],[2]),"
    script += "readerAuc([0,0,0,0,1,1,1,1],[1,1,1,1,5,5,5,5]), readerAuc([0,1],[1,1])]))"
    ran = subprocess.run(["node", "-e", script], check=True, capture_output=True)
    found, nothing, apart, two = json.loads(ran.stdout)
    assert found["auc"] == pytest.approx((3 * 1 + 2.5) / 6) and found["low"] < found["auc"] < found["high"] == 1
    assert nothing is None
    # DeLong's interval of no width would claim that four of each are enough to know
    assert apart["auc"] == apart["high"] == 1 and 0.5 < apart["low"] < 0.75
    assert two["auc"] == 0.5 and two["low"] < 0.1 and two["high"] > 0.9


def test_the_command_names_what_is_missing(limbs, tmp_path, capsys):
    folder = tmp_path / "plain"
    write_nnunet(folder, lambda tumour, _: tumour, None, count=1)
    result = CliRunner().invoke(app, ["fidelity", "paste", "--cases", str(folder), "--out", str(tmp_path / "o")])
    assert result.exit_code == 2 and "synthaug fit writes it" in result.output
    asked = ["fidelity", "paste", "--cases", str(limbs.out), "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, [*asked, "--groups", "nobody"])
    assert result.exit_code == 2 and "no labelled case of nobody" in result.output
    result = CliRunner().invoke(app, [*asked, "stepz=1"])
    assert result.exit_code == 2 and "did you mean steps" in result.output


def test_patients_that_the_weights_have_seen_are_named(limbs, tmp_path, capsys):
    (tmp_path / "patients.json").write_text(json.dumps([limbs.cases[0].group]))
    tell_seen(str(tmp_path), limbs.cases)
    assert f"has seen {limbs.cases[0].group}" in capsys.readouterr().err
    tell_seen("paste", limbs.cases)
    assert not capsys.readouterr().err


def test_cases_of_one_patient_are_refused(limbs):
    with pytest.raises(ValueError, match="two patients or more"):
        Scene(limbs.cases[:1], limbs.profile, "paste")


def test_halves_of_real_lesions_make_up_the_whole():
    whole = specimens(0, 1)
    first, second = kit_module._halves(whole, 0)
    for one, a, b in zip(whole, first, second, strict=True):
        assert torch.equal(a.mask + b.mask, one.mask) and abs(float(a.mask.sum() - b.mask.sum())) <= 64
        assert a.group == b.group == one.group
