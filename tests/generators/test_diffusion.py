"""The diffusion generator: its path and noise, its samplers, what it paints, its weights' files."""

import itertools
import json

import pytest
import torch
from engine import CHANNELS, crops, done_rows, flop_counter, toy_batch, toy_diffusion, toy_gan, toy_insertion
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile

from synthaug import BRATS18, LesionShapes, TumorInsertion
from synthaug.generators.learned import hub
from synthaug.generators.learned.denoiser import Denoiser
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.flow import (
    Point,
    Scene,
    noise_shapes,
)
from synthaug.generators.learned.hub import load_generator, save_generator
from synthaug.generators.learned.painter import Painter
from synthaug.generators.learned.samplers import SCHEDULERS
from synthaug.generators.learned.style import StylePrior

SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(CHANNELS, n)]


def scene_of(count=2, size=32, seed=0):
    """A scene whose style has other numbers in each class and channel."""
    context, mask = crops(count, size, seed=seed)
    style = torch.zeros(count, 3, 4, 3)
    style[..., 0] = torch.linspace(-1, 2, 12).view(3, 4)
    style[..., 1] = torch.linspace(-1, 0.5, 12).view(3, 4)
    style[..., 2] = style[..., 1] + torch.linspace(-1.2, -0.1, 12).view(3, 4)
    return Scene.of(context, mask, style, torch.ones(count, 4)), style


def drawn(scene, seed=0, mixing=None):
    rng = torch.Generator().manual_seed(seed)
    count, channels, *size = scene.context.shape
    mixing = torch.eye(channels).repeat(2, scene.mask.shape[1], 1, 1) if mixing is None else mixing
    return scene.noise([torch.randn((count, *s), generator=rng) for s in noise_shapes(channels, size)], mixing)


# -------------------------------------------------------------------------------------------- the generator


@pytest.mark.parametrize(
    "options", [{}, {"scheduler": "ddim", "guidance": 2.0}, {"scheduler": "dpmsolver++", "steps": 3}]
)
def test_a_batch_equals_its_crops_one_by_one_bit_for_bit(options):
    generator, (context, mask) = toy_diffusion(**options), crops(2)
    together = generator.generate(context, mask, [4, 5])
    alone = [generator.generate(context[i : i + 1], mask[i : i + 1], [4 + i]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))
    assert together.shape == context.shape and together.dtype == torch.float32 and together.isfinite().all()


def test_painting_together_differs_by_rounding_only():
    context, mask = crops(3)
    one_by_one = toy_diffusion().generate(context, mask, [4, 5, 6])
    together = toy_diffusion(batched=True).generate(context, mask, [4, 5, 6])
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=1e-4)


def test_seeds_decide_and_the_global_state_is_left_alone():
    generator, (context, mask) = toy_diffusion(), crops(1)
    state = torch.get_rng_state()
    first, again, other = (generator.generate(context, mask, [seed]) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    lesion = mask.sum(1, keepdim=True).bool().expand_as(first)
    assert (first - other)[lesion].abs().mean() > 0.3 * first[lesion].std()


@pytest.mark.parametrize("subset", SUBSETS, ids="-".join)
def test_any_subset_of_the_channels_in_any_order(subset):
    """A channel that is not given must not matter, and channels come back in the order they were asked for in."""
    generator, (context, mask) = toy_diffusion(), crops(1)
    index = [CHANNELS.index(name) for name in subset]
    painted = generator.bind(subset, BRATS18.names).generate(context[:, index], mask, [3])
    backwards = generator.bind(subset[::-1], BRATS18.names).generate(context[:, index[::-1]], mask, [3])
    assert painted.shape[1] == len(subset) and painted.isfinite().all()
    assert torch.equal(painted, backwards.flip(1))


def test_the_host_is_seen_as_it_is_at_every_step():
    """Around the lesion the network is given the host itself, never noise, and its own lesion state inside."""
    generator, (context, mask) = toy_diffusion(steps=3), crops(1)
    seen = []
    generator.painter.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args))
    generator.generate(context, mask, [3])
    outside = (mask.sum(1, keepdim=True) == 0).expand_as(context)
    assert len(seen) == 3
    for scene, state, *_ in seen:
        assert torch.equal(scene.image(state)[outside], context[outside])
    strides, times = ([float(args[i]) for args in seen] for i in (3, 2))
    assert strides == [0, 0, times[-1]] and 0 < times[-1] < times[0] == 1


def test_without_refinement_no_step_jumps():
    generator, (context, mask) = toy_diffusion(refined=False), crops(1)
    strides = []
    generator.painter.denoiser.register_forward_pre_hook(lambda _, args: strides.append(float(args[3])))
    generator.generate(context, mask, [3])
    assert strides == [0, 0]


def test_guidance_leans_on_the_classes():
    context, mask = crops(1)
    plain, same, leaning = (toy_diffusion(guidance=w).generate(context, mask, [3]) for w in (1.0, 1.0 + 1e-6, 4.0))
    torch.testing.assert_close(plain, same, atol=1e-4, rtol=0)
    assert (plain - leaning).abs().max() > 1e-3


def test_strength_lets_the_hosts_tissue_through():
    """The engine leaves the tissue in for such a generator, and the lesion depends on it; else it must not."""
    image, label = toy_batch(1, size=(64, 64, 64))
    bright = image.clone()

    def inserted(strength):
        insert = toy_insertion(
            toy_diffusion(strength=strength, steps=4), LesionShapes(diameter_mm=(12, 14)), edge_vox=0
        )
        # where the caller gives the statistics, that tissue may get brighter
        plan = insert.plan(image, label, host_stats=(100.0, 15.0))
        first, new_label = insert.apply(image, label, plan)
        lesion = (new_label != label).expand_as(image)
        assert lesion.any()
        bright.copy_(image)
        bright[lesion] += 30
        second, _ = insert.apply(bright, label, plan)
        return (first - second)[lesion].abs().max()

    assert inserted(1.0) < 1e-4
    assert inserted(0.5) > 1


def test_classes_are_withheld_only_where_dropped():
    scene, _ = scene_of()
    blind = scene.without_classes(torch.tensor([True, False]))
    assert blind.mask[0].sum() == 0 and torch.equal(blind.mask[1], scene.mask[1])
    assert torch.equal(blind.lesion, scene.lesion)


def test_points_join_along_the_batch():
    (a, _), (b, _) = scene_of(1), scene_of(1, seed=5)
    first, second = (Point(s, drawn(s), torch.full((1,), t), torch.zeros(1)) for s, t in ((a, 0.2), (b, 0.7)))
    network = toy_diffusion().painter.denoiser
    both = Point.joined(first, second)
    together, _ = network(both.scene, both.state, both.time, both.stride)
    alone = [network(p.scene, p.state, p.time, p.stride)[0] for p in (first, second)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_time_and_stride_reach_the_network():
    scene, _ = scene_of(1)
    network, state = toy_diffusion().painter.denoiser, drawn(scene_of(1)[0])
    for block in [m for m in network.modules() if hasattr(m, "modulation")]:
        torch.nn.init.normal_(block.modulation.weight, generator=torch.Generator().manual_seed(0))
    times = [(0.5, 0.0), (0.5, 0.5), (0.6, 0.0)]
    # the answer alone: the preconditioning depends on the time in any case
    a, b, c = (network(scene, state, torch.tensor([t]), torch.tensor([s]))[1] for t, s in times)
    assert (a - b).abs().max() > 1e-5 and (a - c).abs().max() > 1e-5


def test_it_starts_from_a_trained_painter_or_denoiser():
    painter, scene = toy_gan().painter, scene_of(1)[0]
    network = Denoiser(4, 3, (8, 8, 8, 8), head=9, embedding=8)
    network.start_from(painter)
    assert torch.equal(network.middle.first.weight, painter.middle.first.weight)
    assert network.stem.weight[:, 128:160].abs().sum() == 0, "class means took the place of the painter's noise"
    other = Denoiser(4, 3, (8, 8, 8, 8), head=9, embedding=8)
    other.start_from(network)
    args = scene, drawn(scene), torch.ones(1), torch.zeros(1)
    assert torch.equal(other(*args)[0], network(*args)[0])
    with pytest.raises(ValueError, match=r"'head_width': 9.*'head_width': 16"):
        network.start_from(Painter(4, 3, (8, 8, 8, 8), head=16))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "whole number"),
        ({"scheduler": "euler"}, "flow_match_euler"),
        ({"guidance": -1}, "guidance"),
        ({"strength": 0}, "strength"),
        ({"truncation": 2}, "truncation"),
        ({"crop_sizes": (40,)}, "crop_sizes"),
    ],
)
def test_refusals(option, words):
    with pytest.raises(ValueError, match=words):
        toy_diffusion(**option)


def test_a_call_is_cheap_enough_and_cost_is_linear_in_steps():
    """At most 0.03 TFLOP a call for four channels of 64^3 voxels."""
    generator = DiffusionGenerator(Denoiser(4, 3), StylePrior(3, 4), CHANNELS, BRATS18.names)
    flops = []
    for steps in (2, 3, 4):
        generator.painter.steps = steps
        with flop_counter() as counter:
            generator.generate(torch.zeros(1, 4, 64, 64, 64), torch.zeros(1, 3, 64, 64, 64), [1])
        flops.append(counter.get_total_flops())
    each = flops[1] - flops[0]
    assert each < 0.03e12
    assert flops[2] - flops[1] == pytest.approx(each, rel=1e-9)
    assert 2 * each < flops[0] < 2.05 * each, "what is done once, noise and what the scene says, costs little"
    assert 2 * sum(p.numel() for p in generator.painter.parameters()) < 12e6


def peak_bytes(generator, size=32):
    """Most bytes that tensors held at one time while a crop was painted."""
    context, mask = crops(1, size)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        generator.generate(context, mask, [1])
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_memory_does_not_grow_with_steps(scheduler):
    few, many = (peak_bytes(toy_diffusion(steps=steps, scheduler=scheduler)) for steps in (3, 12))
    assert few > 4 * 32**3 * 4, "nothing was counted"
    assert many <= 1.01 * few


def test_insertion_with_it_changes_lesions_only():
    image, label = toy_batch(2, size=(64, 64, 64))
    insert = toy_insertion(toy_diffusion())
    plan = insert.plan(image, label)
    new_image, new_label = insert.apply(image, label, plan)
    assert done_rows(plan)
    changed = (new_label != label).expand_as(image)
    assert torch.equal(new_image[~changed], image[~changed])
    assert (new_image[changed] != image[changed]).float().mean() > 0.9


# ---------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path):
    generator = toy_diffusion(truncation=0.5, steps=3, scheduler="ddim", guidance=1.5)
    save_generator(generator, tmp_path / "g", dtype=torch.float32)
    return tmp_path / "g"


def test_saved_and_loaded_it_paints_the_same(folder):
    loaded, (context, mask) = load_generator(folder), crops(1)
    original = toy_diffusion(truncation=0.5, steps=3, scheduler="ddim", guidance=1.5)
    assert torch.equal(loaded.generate(context, mask, [1]), original.generate(context, mask, [1]))
    assert loaded.painter.refined and loaded.truncation == 0.5


def test_options_take_the_place_of_what_was_saved(folder):
    loaded = load_generator(folder, steps=5, scheduler="flow_match_euler", strength=0.5, truncation=0.1, batched=True)
    painter = loaded.painter
    assert (painter.steps, painter.scheduler, painter.guidance, painter.strength) == (5, "flow_match_euler", 1.5, 0.5)
    assert loaded.needs_host and loaded.batched and loaded.truncation == 0.1
    with pytest.raises(TypeError, match=r"unexpected step: .*DiffusionGenerator, takes .*steps, scheduler"):
        load_generator(folder, step=5)
    with pytest.raises(ValueError, match="steps"):
        load_generator(folder, steps=0)


def test_the_insertion_passes_options_on(folder):
    insert = TumorInsertion(LesionShapes(diameter_mm=(8, 14)), str(folder), steps=7)
    assert insert.generator.painter.steps == 7
    for generator in ("paste", "procedural", toy_diffusion()):
        with pytest.raises(TypeError, match="unexpected steps"):
            TumorInsertion(LesionShapes(diameter_mm=(8, 14)), generator, steps=7)
    with pytest.raises(TypeError, match="unexpected porb"):
        TumorInsertion(LesionShapes(diameter_mm=(8, 14)), str(folder), porb=0.5)


def test_a_gan_has_no_steps(tmp_path):
    save_generator(toy_gan(), tmp_path)
    assert load_generator(tmp_path, truncation=0.3).truncation == 0.3
    with pytest.raises(TypeError, match=r"unexpected steps: .*GANGenerator, takes truncation, crop_sizes, batched"):
        load_generator(tmp_path, steps=4)


def test_published_names_resolve_to_the_packages_weights(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "weights")
    for name in hub.PUBLISHED:
        with pytest.raises(FileNotFoundError, match=f"no weights of '{name}' in this installation"):
            TumorInsertion(LesionShapes(diameter_mm=(8, 14)), name)
    save_generator(toy_diffusion(), tmp_path / "weights" / "brats-diffusion")
    insert = TumorInsertion(LesionShapes(diameter_mm=(8, 14)), "brats-diffusion", steps=4)
    assert insert.generator.painter.steps == 4


def test_half_precision_weights_paint_almost_the_same(tmp_path):
    save_generator(toy_diffusion(), tmp_path)
    context, mask = crops(1)
    whole, half = (g.generate(context, mask, [1]) for g in (toy_diffusion(), load_generator(tmp_path)))
    assert (whole - half).abs().max() < 0.03 * whole.std()


def test_damaged_weights_and_other_architectures(folder):
    weights, config = folder / "model.safetensors", folder / "config.json"
    content, plain = weights.read_bytes(), json.loads(config.read_text())
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_generator(folder)
    weights.write_bytes(content)
    state = load_file(weights)
    state["denoiser.head.weight"][0] = torch.nan
    save_file(state, weights)
    with pytest.raises(ValueError, match=r"denoiser\.head\.weight.*not finite"):
        load_generator(folder)
    weights.write_bytes(content)
    config.write_text(json.dumps(plain | {"denoiser": {"widths": [8, 8, 16, 32], "head": 12, "embedding": 8}}))
    with pytest.raises(ValueError, match="another architecture"):
        load_generator(folder)
    config.write_text(json.dumps(plain | {"denoiser": {"widths": [8, 8]}}))
    with pytest.raises(ValueError, match="expected widths, head, hidden, embedding"):
        load_generator(folder)
    config.write_text(json.dumps({k: v for k, v in plain.items() if k != "scheduler"}))
    with pytest.raises(ValueError, match="scheduler missing"):
        load_generator(folder)
    config.write_text(json.dumps(plain | {"scheduler": "magic"}))
    with pytest.raises(ValueError, match="magic"):
        load_generator(folder)


def test_only_generators_with_files_are_saved(tmp_path):
    with pytest.raises(TypeError, match="GANGenerator, DiffusionGenerator, got PasteGenerator"):
        save_generator(toy_insertion().generator, tmp_path)
