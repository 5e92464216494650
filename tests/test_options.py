"""What one way of asking for an insertion can set, all can: under one name, with one check and one message."""

import pytest
import torch
from engine import CHANNELS, toy_bank, toy_batch, toy_insertion
from typer.testing import CliRunner

from synthaug import InsertionOptions, InsertionPlan, TumorInsertion
from synthaug.cli.app import app
from synthaug.cohort.config import LesionsConfig
from synthaug.config import ConfigError, read_config
from synthaug.options import LesionOptions
from synthaug.training.segmentation_config import InsertionConfig

nnunet = pytest.importorskip("synthaug.adapters.nnunet.settings", reason="needs the extra `nnunet`")

SET = {
    "prob": 0.5,
    "second": 0.25,
    "seed": 7,
    "scale": (0.5, 0.75),
    "diameter_mm": (6.0, 9.0),
    "scale_after_swap": {"ED": (0.25, 0.5)},
    "swaps": (("ED", "ET", 0.5),),
    "swap_draw": "each",
    "class_mix": {"NCR": 0.5, "ED": 0.25, "ET": 0.25},
    "clearance_mm": 2.0,
    "tissue_share": 0.75,
    "min_voxels": 8,
    "flip": 0.25,
    "rotate90": False,
    "rotate_deg": 10.0,
    "elastic_mm": 1.0,
    "halo_mm": 2.0,
    "edge_vox": 0.0,
    "edge_texture": True,
    "fringe_mm": 1.5,
    "ignore_label": -1,
    "host": "host.nii.gz",
    "prior": "prior.npy",
    "place": "home",
    "shift_mm": 8.0,
    "mirror": False,
    "style": "host",
    "contrast": (0.75, 1.25),
    "contrast_shift": 0.25,
    "avoid_fluid": True,
    "rim_mm": 4.0,
    "mass_effect_mm": 2.0,
    "smooth_mm": 1.0,
    "show_through": {"ED": {"t1": 0.5}, "NCR": 0.25},
}
"""Another value than the default for each option."""

WRONG = {
    "prob=2": "prob: expected a probability in [0, 1], got 2",
    "rotate_deg=-1": "rotate_deg: expected values of at least 0, got -1",
    "scale=[3, 1]": "scale: expected low <= high, got [3, 1]",
    "swaps=[[ED, ET]]": "swaps: expected triples (from, to, probability), got ['ED', 'ET']",
    "show_through={ED: {t1: 2}}": "show_through[ED][t1]: expected a probability in [0, 1], got 2",
    "min_voxels=0": "min_voxels: expected values of at least 1, got 0",
    "rotate_dge=3": "rotate_dge: unknown key, did you mean rotate_deg?",
}

CONSUMERS = {
    "segmentation trainer": (InsertionConfig, set()),
    "nnU-Net": (nnunet.InsertionSettings, set()),
    "cohort": (LesionsConfig, {"prob", "second", "seed"}),  # every case gets `per_case` lesions, from the cohort's seed
}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_every_option_is_the_same_everywhere(consumer):
    model, not_its_own = CONSUMERS[consumer]
    wanted = {name: field for name, field in InsertionOptions.model_fields.items() if name not in not_its_own}
    for name, field in wanted.items():
        found = model.model_fields[name]
        assert (found.annotation, found.default, found.metadata) == (field.annotation, field.default, field.metadata)
    given = model().engine_options
    assert given.keys() == wanted.keys() and not not_its_own & set(model.model_fields)


def test_the_values_here_are_of_every_option():
    assert SET.keys() == InsertionOptions.model_fields.keys() and set(LesionOptions.model_fields) < set(SET)
    for name, value in SET.items():
        assert getattr(InsertionOptions(**{name: value}), name) == value != InsertionOptions.model_fields[name].default


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("override", WRONG)
def test_the_same_is_wrong_everywhere(consumer, override):
    model, not_its_own = CONSUMERS[consumer]
    if override.split("=")[0] in not_its_own:
        pytest.skip("not an option there")
    with pytest.raises(ConfigError) as error:
        read_config(None, model, [override])
    assert WRONG[override].removesuffix(", did you mean rotate_deg?") in str(error.value)


@pytest.mark.parametrize("override", [o for o in WRONG if not o.startswith("rotate_dge")])
def test_the_same_is_wrong_in_python_and_on_the_command_line(override, phantom_folder, tmp_path):
    name, value = override.split("=")
    values = {"[3, 1]": [3, 1], "[[ED, ET]]": [["ED", "ET"]], "{ED: {t1: 2}}": {"ED": {"t1": 2}}}
    with pytest.raises(ValueError) as error:
        TumorInsertion(toy_bank(1), **{name: values[value] if value in values else int(value)})
    assert str(error.value) == WRONG[override]
    result = CliRunner().invoke(app, ["insert", str(phantom_folder), override, "--out", str(tmp_path)])
    assert result.exit_code == 2 and f"error: {WRONG[override]}" in result.output


@pytest.mark.parametrize("name", sorted(SET))
def test_the_command_line_sets_each(name, phantom_folder, tmp_path, monkeypatch):
    import yaml

    seen = []

    def insertion(*args, **kwargs):
        seen.append(kwargs)
        raise ValueError("seen")

    monkeypatch.setattr("synthaug.TumorInsertion", insertion)
    values = [list(swap) for swap in SET[name]] if name == "swaps" else SET[name]
    plain = {k: list(v) for k, v in values.items()} if name == "scale_after_swap" else values
    plain = list(plain) if isinstance(plain, tuple) else plain
    text = f"{name}={yaml.safe_dump(plain, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"
    CliRunner().invoke(app, ["insert", str(phantom_folder), text, "--out", str(tmp_path)])
    assert seen[0][name] == SET[name]


def test_a_whole_number_stays_whole():
    assert InsertionOptions(seed=2**63 + 1).seed == 2**63 + 1
    with pytest.raises(ValueError, match="min_voxels"):
        InsertionOptions.checked(min_voxels=27.5)


def test_options_exclude_each_other_before_anything_is_read():
    for given, words in (
        ({"swaps": [("ED", "ET", 0.5)], "class_mix": {"ED": 1.0}}, "give swaps or class_mix, not both"),
        ({"scale": 1, "diameter_mm": 9}, "give scale or diameter_mm, not both"),
        ({"diameter_mm": 9, "scale_after_swap": {"ED": 0.5}}, "scale_after_swap goes with scale"),
    ):
        with pytest.raises(ValueError, match=words):
            InsertionOptions.checked(**given)


def test_nnunets_ignore_label_is_the_datasets():
    with pytest.raises(ValueError, match=r"ignore_label: expected that of dataset\.json alone, got -1"):
        nnunet.InsertionSettings(ignore_label=-1)


def test_options_reach_the_insertion():
    image, label = toy_batch(2)
    by_name = TumorInsertion(toy_bank(), channels=CHANNELS, prob=1.0, scale=0.6, seed=3)
    by_model = TumorInsertion(toy_bank(), **InsertionOptions(prob=1.0, scale=0.6, seed=3).engine_options)
    assert by_name.options == by_model.options
    assert all(torch.equal(a, b) for a, b in zip(by_name(image, label), by_model(image, label), strict=True))


def test_files_of_cases_are_refused_where_none_are_read():
    for model in (InsertionConfig, nnunet.InsertionSettings):
        with pytest.raises(ConfigError, match=r"prior: prior\.npy is a file of whole cases"):
            read_config(None, model, ["prior=prior.npy"])
    with pytest.raises(ConfigError, match="host: expected the section host"):
        read_config(None, nnunet.InsertionSettings, ["host=host.npy"])
    with pytest.raises(ValueError, match="prior: a cohort keeps its configuration"):
        LesionsConfig(prior=lambda image, label: label)
    with pytest.raises(ValueError, match=r"prior: prior\.npy is a file of each case; expected prior=\.\.\."):
        toy_insertion(prior="prior.npy").plan(*toy_batch())
    with pytest.raises(ValueError, match=r"host: expected a file in each case's folder .* got 'tissue\.txt'"):
        InsertionOptions.checked(host="tissue.txt")


def test_functions_of_a_sample_are_host_and_prior():
    image, label = toy_batch(2, labelled=False)
    host, prior = torch.zeros_like(label), torch.zeros(label.shape)
    host[:, :, 20:] = 1
    prior[:, :, :, 24:] = 1.0
    insert = toy_insertion(
        scale=0.5, host=lambda x, y: (x.shape[1:] == y.shape) * host[0, 0], prior=lambda x, y: prior[0, 0]
    )
    expected = toy_insertion(scale=0.5)(image, label, host=host, prior=prior)
    plan = insert.plan(image, label)
    rows = InsertionPlan.from_rows(plan.to_rows())
    for found in (insert.apply(image, label, plan), insert.apply(image, label, rows)):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    everywhere = toy_insertion(scale=0.5)(image, label, prior=prior)
    given = insert.recorded(image, label, host=torch.ones_like(label))
    assert not torch.equal(expected[1], everywhere[1]) and len(given[2]) == 2
