"""The trainer of the diffusion generator: it learns, and a run that was killed goes on as if it had not been."""

import math
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from engine import CHANNELS
from generator_runs import ROOT, TinyRuns, assert_same

from synthaug import BRATS18
from synthaug.config import ConfigError, read_config
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.hub import load_generator
from synthaug.training.diffusion_config import DiffusionConfig
from synthaug.training.launch import load_trainer
from synthaug.training.run import read_metrics

MIXING = torch.eye(4).repeat(2, 3, 1, 1)
diffusion = load_trainer("diffusion")
RUNS = TinyRuns("diffusion", DiffusionConfig, ("refine.start=3", "denoiser.widths=[8,8,8,16]", "denoiser.embedding=8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    RUNS.command(out)
    return out


def test_a_run_leaves_what_it_says(whole):
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["step_00000004", "step_00000006"]
    assert sorted(p.name for p in (whole / "demos").iterdir()) == ["step_00000003.png", "step_00000006.png"]
    assert any((whole / "tensorboard").rglob("events*"))
    table = read_metrics(whole)
    assert [row["step"] for row in table] == [0, 2, 4, 6]
    assert "critic" not in table[1], "the flow comes first"
    assert {"loss", "flow", "halo", "style", "adversarial", "critic", "skipped"} <= table[-1].keys()
    generator = load_generator(whole / "generator")
    assert isinstance(generator, DiffusionGenerator) and generator.painter.refined
    assert (generator.channels, generator.classes) == (CHANNELS, BRATS18.names)


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same_weights(whole, tmp_path):
    RUNS.killed(tmp_path)
    RUNS.run(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    RUNS.by_two_processes(tmp_path, "refine.start=1")
    assert (tmp_path / "checkpoints" / "step_00000003" / "rank_1.json").exists()
    assert load_generator(tmp_path / "generator").channels == CHANNELS
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 2, 3]


def test_it_goes_on_from_a_trained_generator(whole, tmp_path):
    """What it starts from is what the other left; the flow alone leaves a generator that does not jump."""
    network, _ = diffusion.make_networks(RUNS.configured(f"denoiser.init={whole / 'generator'}"), MIXING)
    trained = load_generator(whole / "generator").painter.denoiser
    assert torch.equal(network.middle.first.weight, trained.middle.first.weight)
    assert torch.equal(network.mixing, MIXING) and not torch.equal(trained.mixing, MIXING), "not that of these cases"
    assert (
        trained.mixing[0, 0, 0].tolist() == [1, 0, 0, 0] and trained.mixing.square().sum(-1).sub(1).abs().max() < 1e-3
    )
    RUNS.run(tmp_path, f"denoiser.init={whole / 'generator'}", "refine=null", "optimizer.steps=2")
    assert not load_generator(tmp_path / "generator").painter.refined
    with pytest.raises(ConfigError, match=r"denoiser\.init.*'head_width': 24.*'head_width': 16"):
        RUNS.run(tmp_path / "other", f"denoiser.init={whole / 'generator'}", "denoiser.head=24")
    with pytest.raises(ConfigError, match=r"denoiser\.init"):
        RUNS.run(tmp_path / "none", "denoiser.init=no-such-folder")


def test_the_flow_learns_what_a_lesion_looks_like():
    """On one lesion the error falls below that of a network that knows nothing, even for one as small as this."""
    config = RUNS.configured("flow.weighting=min_snr", "flow.gamma=1")
    network, _ = diffusion.make_networks(config, MIXING)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    rng = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 3, 16, 16, 16)
    mask[:, 0, 4:12, 4:12, 4:12] = 1
    ramp = torch.linspace(-1, 1, 16).expand(2, 4, 16, 16, 16).contiguous()
    batch = {"real": ramp, "real_mask": mask, "real_lesion": mask[:, :1], "available": torch.ones(2, 4)}
    found_losses = []
    for _ in range(120):
        point, lesion = diffusion.flow_point(batch, MIXING, config, rng)
        found, around = network(point.scene, point.state, point.time, point.stride)
        parts = diffusion.flow_parts(found, around, lesion, point, batch, config)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        found_losses.append(parts["flow"].item())
    assert sum(found_losses[-20:]) < 0.85 * sum(found_losses[:20])


def test_classes_weigh_alike_and_missing_channels_nothing():
    config = RUNS.configured()
    mask = torch.zeros(1, 3, 16, 16, 16)
    mask[:, 0, 2:14, 2:14, 2:14] = 1
    mask[:, :, 6:10, 6:10, 6:10] = 0
    mask[:, 1, 6:10, 6:10, 6:10] = 1
    batch = {"real": torch.zeros(1, 4, 16, 16, 16), "real_mask": mask, "real_lesion": mask.sum(1, keepdim=True)}
    point, lesion = diffusion.flow_point(batch | {"available": torch.ones(1, 4)}, MIXING, config, torch.Generator())

    def loss(error, available=(1.0, 1.0, 1.0, 1.0)):
        given = batch | {"available": torch.tensor([available])}
        return diffusion.flow_parts(lesion + error, batch["real"], lesion, point, given, config)["flow"].item()

    large, small = (loss(mask[:, k : k + 1].sqrt()) for k in (0, 1))
    assert large == pytest.approx(small, rel=1e-4), "a class's voxels count together, however many they are"
    only_t1 = torch.zeros(1, 4, 1, 1, 1)
    only_t1[:, 1] = 1
    assert loss(mask[:, :1] * only_t1, (1.0, 0.0, 1.0, 1.0)) == 0 < loss(mask[:, :1] * only_t1)


def test_reflow_leads_to_where_the_teacher_came_from_the_same_noise(whole, tmp_path):
    """The path's other end is what a sampler paints from the noise that it began with; the network may be a new one."""
    config = RUNS.configured(
        f"denoiser.init={whole / 'generator'}", "flow.reflow=3", "refine=null", "optimizer.steps=2"
    )
    teacher = diffusion.make_teacher(config, torch.device("cpu"))
    mask = torch.zeros(1, 3, 16, 16, 16)
    mask[:, 0, 4:12, 4:12, 4:12] = 1
    real = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = {"real": real, "real_mask": mask, "real_lesion": mask[:, :1], "available": torch.ones(1, 4)}
    rng = torch.Generator().manual_seed(5)
    asked = diffusion.DenoisingStep(batch, config, rng, Accelerator(cpu=True), MIXING, None, teacher)
    point, lesion = diffusion.flow_point(batch, MIXING, config, rng, partial(asked.taught, teacher))
    noise = diffusion.drawn_noise(point.scene, MIXING, torch.Generator().manual_seed(5))
    expected = diffusion.sample(diffusion.expectation(teacher, point.scene), noise, steps=3)
    inside = mask[:, :1].expand_as(lesion) > 0
    torch.testing.assert_close(lesion[inside], expected[inside])
    torch.testing.assert_close(point.state[inside], ((1 - point.time) * expected + point.time * noise)[inside])
    RUNS.run(tmp_path, f"denoiser.init={whole / 'generator'}", "flow.reflow=3", "refine=null", "optimizer.steps=2")
    assert read_metrics(tmp_path)[-1]["flow"] > 0


def test_reflow_needs_a_flow(whole, tmp_path):
    with pytest.raises(ConfigError, match=r"flow\.reflow: expected denoiser\.init"):
        RUNS.configured("flow.reflow=3")
    with pytest.raises(ConfigError, match=r"expected a diffusion generator as denoiser\.init, got Painter"):
        diffusion.make_teacher(RUNS.configured("flow.reflow=3", "denoiser.init=brats-gan"), torch.device("cpu"))


def test_the_last_point_is_where_a_sampler_stands():
    config = RUNS.configured("refine.steps=[4]")
    network, _ = diffusion.make_networks(config, MIXING)
    mask = torch.zeros(1, 3, 16, 16, 16)
    mask[:, 0, 4:12, 4:12, 4:12] = 1
    batch = {
        "host": torch.zeros(1, 4, 16, 16, 16),
        "mask": mask,
        "style": torch.zeros(1, 3, 4, 3),
        "available": torch.ones(1, 4),
    }
    point = diffusion.last_point(network, batch, config.refine, torch.Generator().manual_seed(0))
    assert (
        float(point.time)
        == float(point.stride)
        == pytest.approx(math.sin(math.pi / 8) / (math.sin(math.pi / 8) + math.cos(math.pi / 8)))
    )
    assert not point.state.requires_grad


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("crops.sizes={40: 1}", "multiples of 16"),
        ("flow.weighting=snr", "min_snr"),
        ("refine.steps=[0]", r"refine\.steps"),
        ("denoiser.head=8", "more than two features a channel"),
        ("data.validation=[Phantom_009_1]", "Phantom_009_1"),
    ],
)
def test_wrong_configurations_say_what_was_expected(change, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        RUNS.run(tmp_path, change)


@pytest.mark.parametrize("name", ["tiny", "brats", "brats_cpu"])
def test_the_configurations_are_sound(name):
    given = () if name == "tiny" else ("data.folder=somewhere",)
    config = read_config(ROOT / f"configs/diffusion_{name}.yaml", DiffusionConfig, given)
    assert config.refine.start < config.optimizer.steps
