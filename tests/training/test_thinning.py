"""Thinner generators: what can be spared goes, the rest answers as before, and the trainer teaches what is left."""

import pytest
import torch
from engine import CHANNELS
from generator_runs import TinyRuns
from safetensors.torch import load_file

from synthaug import BRATS18
from synthaug.config import ConfigError
from synthaug.generators.learned.denoiser import Denoiser, TimedResidual
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.gan import GANGenerator
from synthaug.generators.learned.hub import load_generator, save_generator, stored_network, with_shape
from synthaug.generators.learned.painter import Painter, Residual
from synthaug.generators.learned.style import StylePrior
from synthaug.generators.learned.thinning import Moments, blocks, surviving, thinner_blocks
from synthaug.generators.learned.thinning import thin as thin_network
from synthaug.training.run import read_metrics
from synthaug.training.thin_config import ThinningConfig

WIDTHS, HIDDEN = (8, 8, 8, 16), (6, 8, 4, 16, 8, 5, 8)
RUNS = TinyRuns("thin", ThinningConfig, ("student.hidden=[6,8,4,16,8,5,8]", "student.crops=3"), critic=False)


def spare(block: Residual) -> None:
    """Make feature 1 the twin of feature 0 and let nobody listen to feature 3."""
    with torch.no_grad():
        block.first.weight[1], block.first.bias[1] = block.first.weight[0], block.first.bias[0]
        block.second.weight[:, 3] = 0
        if isinstance(block, TimedResidual):
            block.modulation.weight.normal_()
            for offset in (0, block.second.in_channels):
                block.modulation.weight[offset + 1] = block.modulation.weight[offset]


def inputs(block: Residual, seed: int) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 6, 10, 8, 9, generator=rng)
    return (x, torch.randn(2, 4, generator=rng)) if isinstance(block, TimedResidual) else (x,)


@pytest.mark.parametrize("kind", [Residual, TimedResidual])
@torch.no_grad()
def test_what_others_can_stand_in_for_goes_first(kind):
    torch.manual_seed(0)
    more = (4,) if kind is TimedResidual else ()
    block = kind(6, *more)
    spare(block)
    seen = Moments(block)
    seen.where = torch.ones(2, 1, 10, 8, 9)
    for seed in range(3):
        block(*inputs(block, seed))
    seen.close()
    before = seen.gram.clone()
    block(*inputs(block, 3))
    assert torch.equal(seen.gram, before), "it watches no longer"
    kept, weights = surviving(seen, 4)
    assert 3 not in kept and len({0, 1} & {*kept}) == 1
    network = torch.nn.Module()
    network.encode, network.decode = torch.nn.ModuleList([block]), torch.nn.ModuleList()
    small = torch.nn.Module()
    small.encode, small.decode = torch.nn.ModuleList([kind(6, *more, hidden=4)]), torch.nn.ModuleList()
    thin_network(small, network, {"encode.0": seen})
    for seed in (3, 4):
        given = inputs(block, seed)
        torch.testing.assert_close(small.encode[0](*given), block(*given), atol=2e-3, rtol=0)
    assert weights.shape == (27 * 4 + 1, 6)


def test_only_voxels_near_the_lesion_count():
    torch.manual_seed(0)
    block = Residual(6)
    seen = Moments(block)
    seen.where = torch.zeros(2, 1, 10, 8, 9)
    seen.where[0, 0, 4, 4, 4] = 1
    block(*inputs(block, 0))
    assert seen.gram[-1, -1] == 1, "one voxel"
    assert seen.gram.diagonal()[:-1].sum() > 0


def test_a_shape_that_cannot_be_had_is_refused():
    painter = Painter(4, 3, WIDTHS, head=9)
    assert [*thinner_blocks(painter, HIDDEN)] == ["encode.0", "encode.2", "decode.1"]
    for wrong in ((6, 8), (9, 8, 8, 16, 8, 8, 8), (0, 8, 8, 16, 8, 8, 8)):
        with pytest.raises(ValueError, match=r"hidden: expected 7 numbers from 1 to \[8, 8, 8, 16, 8, 8, 8\]"):
            thinner_blocks(painter, wrong)


def toy(kind: str):
    """A generator whose blocks have a say, which those of a fresh one hardly have."""
    torch.manual_seed(1)
    if kind == "gan":
        network, make, options = Painter(4, 3, WIDTHS, head=9), GANGenerator, {}
    else:
        network, make = Denoiser(4, 3, WIDTHS, head=9, embedding=8), DiffusionGenerator
        options = {"steps": 3, "refined": True}
    with torch.no_grad():
        for weight in (network.out.weight, *(block.second.weight for block in blocks(network).values())):
            weight.mul_(6)
    return make(network, StylePrior(3, 4), CHANNELS, BRATS18.names, truncation=0.3, **options)


@pytest.fixture(scope="module", params=["gan", "diffusion"])
def teacher(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_generator(toy(request.param), folder)
    return folder


def test_another_shape_keeps_everything_else(teacher, tmp_path):
    old = load_generator(teacher)
    new = with_shape(old, hidden=HIDDEN)
    assert stored_network(new).hidden == HIDDEN and stored_network(old).hidden == (*WIDTHS, *WIDTHS[:-1])
    assert (new.truncation, new.crop_sizes, new.prior) == (old.truncation, old.crop_sizes, old.prior)
    save_generator(new, tmp_path)
    again = load_generator(tmp_path)
    assert stored_network(again).hidden == HIDDEN
    if isinstance(old, DiffusionGenerator):
        assert (again.painter.steps, again.painter.refined) == (3, True)
        with pytest.raises(ValueError, match=r"'hidden': \(8, 8, 8, 16, 8, 8, 8\).*'hidden': \(6, 8, 4, 16, 8, 5, 8\)"):
            old.painter.denoiser.start_from(again.painter.denoiser)


def test_the_trainer_teaches_what_is_thinner_and_leaves_the_rest(teacher, tmp_path):
    RUNS.run(tmp_path, f"student.init={teacher}")
    student = load_generator(tmp_path / "generator")
    assert stored_network(student).hidden == HIDDEN and student.truncation == pytest.approx(0.3)
    old, new = (load_file(folder / "model.safetensors") for folder in (teacher, tmp_path / "generator"))
    name = "denoiser" if isinstance(student, DiffusionGenerator) else "painter"
    learning = tuple(f"{name}.{block}." for block in thinner_blocks(stored_network(load_generator(teacher)), HIDDEN))
    assert all(torch.equal(old[key], new[key]) for key in old if not key.startswith(learning))
    table = read_metrics(tmp_path)
    assert [row["step"] for row in table] == [0, 2, 4, 6]
    assert 0 < table[-1]["rms"] < 0.2, "it is the teacher almost, from the first step on"


def test_it_learns_what_least_squares_leave(teacher, tmp_path):
    RUNS.run(
        tmp_path,
        *(f"student.init={teacher}", "student.hidden=[2,2,2,4,2,2,2]", "student.lr=0.003", "student.steps=[1,2]"),
        *("optimizer.steps=24", "checkpoint_every=24", "demo.every=24"),
    )
    rms = [row["rms"] for row in read_metrics(tmp_path) if "rms" in row]
    assert sum(rms[-4:]) < 0.8 * sum(rms[:4])


@pytest.mark.slow
def test_stopped_and_resumed_it_gives_the_same_weights(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    save_generator(toy("diffusion"), tmp_path / "teacher")
    told = (f"student.init={tmp_path / 'teacher'}", "optimizer.decay_from=1", "student.steps=[1,2]")
    RUNS.run(whole, *told, "optimizer.steps=4")
    RUNS.run(stopped, *told, "optimizer.steps=2")
    RUNS.run(stopped, *told, "optimizer.steps=4")
    files = [load_file(out / "generator" / "model.safetensors") for out in (whole, stopped)]
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])


def test_what_does_not_fit_is_refused(teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"student\.init: no generator 'nobody'"):
        RUNS.run(tmp_path / "a", "student.init=nobody")
    with pytest.raises(ConfigError, match=r"data\.channels: expected those of .*'t2'\), got \('flair', 't1'\)"):
        RUNS.run(tmp_path / "b", f"student.init={teacher}", "data.channels=[flair,t1]")
    with pytest.raises(ConfigError, match=r"student\.hidden: expected 7 numbers from 1 to \[8, "):
        RUNS.run(tmp_path / "c", f"student.init={teacher}", "student.hidden=[9,8,8,8,8,8,8]")


def test_blocks_are_named_as_hidden_counts_them():
    assert [*blocks(Painter(4, 3, WIDTHS, head=9))] == [
        *(f"encode.{i}" for i in range(4)),
        *(f"decode.{i}" for i in range(3)),
    ]
