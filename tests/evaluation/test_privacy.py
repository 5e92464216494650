"""Privacy: copies are found by texture, features and masks; members are told by what is painted for them."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from limbs import write_nnunet
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.evaluation.fidelity import ClassifierOptions, Specimen
from synthaug.evaluation.fidelity.config import FidelityConfig
from synthaug.evaluation.fidelity.scene import Sample
from synthaug.evaluation.fidelity.store import Store
from synthaug.evaluation.privacy import copied, mask_hash, patient_similarity, texture_similarity
from synthaug.evaluation.privacy.measure import measure_privacy, repainting_scores
from synthaug.generators.base import TumorGenerator
from synthaug.generators.paste import PasteGenerator
from synthaug.profile.fit import fit

TINY = FidelityConfig(insertions=4, seeds=1, folds=2, steps=20, batch=8, size=16, crops=4, tries=3)


def specimen(seed: int, group: str, side: int = 26, shift: int = 0) -> Specimen:
    """A ball of texture of its own."""
    rng = torch.Generator().manual_seed(seed)
    axis = torch.arange(side) - side // 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    mask = ((x - shift) ** 2 + y**2 + z**2 < 81).float()[None]
    image = torch.roll(torch.randn(2, side, side, side, generator=rng), shift, 1)
    return Specimen(image, mask, group)


def test_a_copy_is_found_whatever_its_place_and_contrast_and_others_are_not():
    real = [specimen(i, f"p{i}") for i in range(3)]
    moved = specimen(1, "p1", shift=2)
    gain = torch.tensor([0.5, 2.0])[:, None, None, None]
    copy = Specimen(gain * moved.image + 3.0, moved.mask, "p1")
    found = texture_similarity([copy, specimen(9, "p9")], real)
    assert found[0, 1] > 0.9 and found[0, [0, 2]].max() < 0.5 and found[1].max() < 0.5


def test_a_mask_or_gradient_in_common_is_no_likeness():
    ramp = torch.linspace(-3, 3, 26)[:, None, None].expand(2, 26, 26, 26)
    a, b = (specimen(i, f"p{i}") for i in range(2))
    alike = [Specimen(x.image + ramp + 4 * x.mask, x.mask, x.group) for x in (a, b)]
    assert float(texture_similarity(alike[:1], alike[1:])) < 0.5


def test_a_lesion_too_small_for_texture_has_none():
    small = specimen(0, "a")
    small = Specimen(small.image, small.mask * 0, "a")
    small.mask[0, 5:7, 5:7, 5:7] = 1
    assert texture_similarity([small], [specimen(1, "b")]).isnan().all()


def test_masks_are_hashed_whatever_their_place_and_position():
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[1:4, 2:4, 2], mask[2, 2, 3] = 1, 2
    turned = np.roll(np.flip(mask.transpose(1, 2, 0), 1), 2, 0)
    other = mask.copy()
    other[2, 2, 3] = 1
    assert mask_hash(mask) == mask_hash(turned) != mask_hash(other)
    assert copied([turned, other], [mask]) == [True, False]
    with pytest.raises(ValueError, match="without one"):
        mask_hash(mask * 0)


def test_features_know_lesions_that_they_were_trained_on():
    training = [specimen(i, f"p{i}") for i in range(3)]
    bright = [Specimen(s.image + 2 * i, s.mask, s.group) for i, s in enumerate(training)]
    options = ClassifierOptions(steps=40, batch=6, size=16, crops=4)
    (found,) = patient_similarity(bright, [bright], options)
    assert found.shape == (3, 3) and found.argmax(1).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="two or more, got 1"):
        patient_similarity(training[:1], [training])


class Memory(TumorGenerator):
    """Paints what it remembers of some masks, and noise for others."""

    def __init__(self, known: list[Specimen]):
        self.known = {mask_hash((s.mask[0] > 0).numpy()): s.image for s in known}

    def generate(self, context, mask, seeds, donor=None, support=None):
        noise = torch.randn(context.shape, generator=torch.Generator().manual_seed(seeds[0]))
        known = self.known.get(mask_hash((mask[0, 0] > 0).numpy()))
        if known is not None:
            noise[0, :, : known.shape[1], : known.shape[2], : known.shape[3]] = known
        return noise


PROFILE = SimpleNamespace(names=("a", "b"), classes=SimpleNamespace(names=("tumour",)))


def test_members_are_told_by_what_is_painted_for_them():
    lesions = []
    for i in range(4):
        one = specimen(i, f"p{i}")
        one.mask[0, 13 - i : 13 + i, :4, 13] = 1
        lesions.append(one)
    scores = repainting_scores(lesions, Memory(lesions[:2]), PROFILE)
    assert scores[:2].tolist() == [0.0, 0.0] and scores[2:].max() < -0.5


def kit_of(out, real: list[Specimen], made: list[Specimen], generator: TumorGenerator):
    """What is asked of a kit whose lesions are inserted."""
    store = Store(out, {})
    for kind, side in (("real", real), ("made", made)):
        for number, lesion in enumerate(side):
            view = np.zeros((2, 4, 4), np.float32)
            store.keep(f"{kind}-{number:03d}", Sample(lesion, view, view[0] > 0, {"donor": lesion.group}))
    scene = SimpleNamespace(generator=generator)
    return SimpleNamespace(
        name="it", config=TINY, store=store, scene=scene, profile=PROFILE, say=lambda _: None, samples=lambda: None
    )


REAL = [specimen(i, f"p{i}") for i in range(4)]
ALL = {s.group for s in REAL}


def test_pasted_lesions_are_caught(tmp_path):
    found = measure_privacy(kit_of(tmp_path, REAL, REAL, PasteGenerator()), ALL)
    assert found["texture"]["median"] > 0.9 and found["texture"]["nearer_than_all"] == 4
    assert found["donor"]["auc"] == 1.0 and found["masks"] == {"lesions": 4, "copies": 4}
    assert not found["membership"]["tested"] and "could not be tested" in found["paragraph"]
    assert json.loads((tmp_path / "privacy.json").read_text())["paragraph"] == found["paragraph"]


def test_fresh_texture_gives_nobody_away(tmp_path):
    fresh = [specimen(50 + i, f"p{i}") for i in range(4)]
    found = measure_privacy(kit_of(tmp_path, REAL, fresh, PasteGenerator()), ALL)
    assert found["texture"]["highest"] < 0.5 and found["texture"]["nearer_than_all"] < 4
    assert found["donor"]["low"] < 0.6


def test_membership_is_tested_where_some_were_not_seen(tmp_path):
    seen = {"p0", "p1"}
    found = measure_privacy(kit_of(tmp_path, REAL, REAL[:2], Memory(REAL[:2])), seen)
    assert found["unseen"] == ["p2", "p3"] and found["membership"]["black_box"]["auc"] == 1.0
    assert found["texture"]["outside"] == 2 and "told with an AUC of 1.00" in found["paragraph"]
    with pytest.raises(ValueError, match="has seen none of the patients"):
        measure_privacy(kit_of(tmp_path, REAL, REAL[:2], Memory([])), {"nobody"})


def last_words(result) -> list[str]:
    """The command to type next, without ``synthaug``."""
    return shlex.split(result.stdout.splitlines()[-1].partition("; next: synthaug ")[2])


def test_the_command_quotes_the_paragraph_and_refuses_what_was_not_seen(tmp_path):
    limbs = fit(write_nnunet(tmp_path / "limbs", lambda tumour, _: tumour, None))
    changes = [f"{key}={json.dumps(value)}" for key, value in TINY.model_dump(mode="json").items()]
    asked = ["privacy", "paste", "--cases", str(limbs.out), "--out", str(tmp_path / "out"), *changes]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0 and "of 4 masks are exact copies" in result.output
    first = last_words(result)
    assert first[:2] == ["fidelity", "paste"] and (tmp_path / "out" / "privacy.json").exists()
    result = CliRunner().invoke(app, first)  # goes on in the same folder
    assert result.exit_code == 0 and last_words(result) == asked
    assert "fidelity.html" in result.output.splitlines()[-1]
    result = CliRunner().invoke(app, [*asked, "--seen", "nobody"])
    assert result.exit_code == 2 and "has seen none of the patients" in result.output
