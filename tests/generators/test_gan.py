"""The GAN generator: what it paints, its prior over styles, its weights' files."""

import itertools
import json

import pytest
import torch
from engine import CHANNELS, crops, done_rows, flop_counter, toy_batch, toy_gan, toy_insertion
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from synthaug import BRATS18, LesionShapes
from synthaug.generators.learned import painter
from synthaug.generators.learned.gan import GANGenerator
from synthaug.generators.learned.hub import load_generator, save_generator
from synthaug.generators.learned.painter import Painter, PatchCritic
from synthaug.generators.learned.style import (
    StylePrior,
    fine_detail,
    lesion_style,
    moving_average,
    present_classes,
    style_maps,
)

SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(CHANNELS, n)]


# --------------------------------------------------------------------------------------------- the generator


@pytest.mark.parametrize("size", [32, 48])
def test_a_batch_equals_its_crops_one_by_one_bit_for_bit(size):
    generator, (context, mask) = toy_gan(), crops(3, size)
    together = generator.generate(context, mask, [4, 5, 6])
    alone = [generator.generate(context[i : i + 1], mask[i : i + 1], [4 + i]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    assert together.shape == context.shape and together.dtype == torch.float32


def test_painting_together_differs_by_rounding_only():
    context, mask = crops(3)
    one_by_one = toy_gan(precision="fp32").generate(context, mask, [4, 5, 6])
    together = toy_gan(precision="fp32", batched=True).generate(context, mask, [4, 5, 6])
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=1e-4)


def test_bf16_paints_the_same_lesion_but_for_rounding():
    context, mask = crops(1)
    exact = toy_gan(precision="fp32").generate(context, mask, [4])
    rough = toy_gan(precision="bf16").generate(context, mask, [4])
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.01 * exact.std()
    with pytest.raises(ValueError, match="auto, fp32, bf16, got 'fp16'"):
        toy_gan(precision="fp16")


def test_seeds_decide_and_the_global_state_is_left_alone():
    generator, (context, mask) = toy_gan(), crops(1)
    state = torch.get_rng_state()
    first, again, other = (generator.generate(context, mask, [seed]) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    lesion = mask.sum(1, keepdim=True).bool().expand_as(first)
    assert (first - other)[lesion].abs().mean() > 0.3 * first[lesion].std()


def test_truncation_zero_gives_every_seed_the_mean_style():
    generator, (context, mask) = toy_gan(truncation=0.0), crops(1)
    generator.prior.mean.copy_(torch.randn(generator.prior.noise_size(), generator=torch.Generator().manual_seed(0)))
    noise = torch.randn(2, generator.prior.noise_size())
    a, b = generator.prior.sample(noise, generator.truncation)
    assert torch.equal(a, b)
    assert not torch.equal(generator.generate(context, mask, [1]), generator.generate(context, mask, [2]))


@pytest.mark.parametrize("subset", SUBSETS, ids="-".join)
def test_any_subset_of_the_channels_in_any_order(subset):
    """A channel that is not given must not matter, and channels come back in the order they were asked for in."""
    generator, (context, mask) = toy_gan(), crops(1)
    index = [CHANNELS.index(name) for name in subset]
    painted = generator.bind(subset, BRATS18.names).generate(context[:, index], mask, [3])
    backwards = generator.bind(subset[::-1], BRATS18.names).generate(context[:, index[::-1]], mask, [3])
    assert painted.shape[1] == len(subset) and painted.isfinite().all()
    assert torch.equal(painted, backwards.flip(1))


def test_classes_in_another_order_mean_the_same():
    generator, (context, mask) = toy_gan(), crops(1)
    turned = generator.bind(CHANNELS, BRATS18.names[::-1])
    assert torch.equal(turned.generate(context, mask.flip(1), [3]), generator.generate(context, mask, [3]))


def test_a_class_changes_what_is_painted():
    generator, (context, mask) = toy_gan(), crops(1)
    generator.prior.mean.copy_(torch.linspace(-1, 1, generator.prior.noise_size()))
    painted, swapped = (generator.generate(context, m, [3]) for m in (mask, mask.roll(1, 1)))
    lesion = mask.sum(1, keepdim=True).bool().expand_as(painted)
    assert (painted - swapped)[lesion].abs().mean() > 0.1


def test_refusals_name_both_sides():
    generator, (context, mask) = toy_gan(), crops(1)
    with pytest.raises(ValueError, match=r"flair, t1, t1ce, t2.*\bct\b"):
        generator.bind(("ct",), BRATS18.names)
    with pytest.raises(ValueError, match=r"NCR, ED, ET.*RC"):
        generator.bind(CHANNELS, (*BRATS18.names, "RC"))
    with pytest.raises(ValueError, match="multiples of 16"):
        generator.generate(context[..., :-4], mask[..., :-4], [1])
    with pytest.raises(ValueError, match="got 3 and 3"):
        generator.generate(context[:, :3], mask, [1])
    with pytest.raises(ValueError, match="truncation"):
        toy_gan(truncation=-1)
    with pytest.raises(ValueError, match="crop_sizes"):
        toy_gan(crop_sizes=(40,))
    with pytest.raises(ValueError, match="style prior"):
        GANGenerator(Painter(4, 3), StylePrior(2, 4), CHANNELS, BRATS18.names)


def test_it_is_small_enough():
    """At most 0.1 TFLOP for four channels of 96^3 voxels, and 12 MB of 16-bit weights."""
    painter = Painter(4, 3)
    assert 2 * sum(p.numel() for p in painter.parameters()) < 12e6
    generator = GANGenerator(painter, StylePrior(3, 4), CHANNELS, BRATS18.names)
    with flop_counter() as counter:
        generator.generate(torch.zeros(1, 4, 96, 96, 96), torch.zeros(1, 3, 96, 96, 96), [1])
    assert 0.03e12 < counter.get_total_flops() < 0.1e12


def test_insertion_with_it_changes_lesions_only():
    image, label = toy_batch(2, size=(64, 64, 64))
    insert = toy_insertion(toy_gan())
    plan = insert.plan(image, label)
    new_image, new_label = insert.apply(image, label, plan)
    assert done_rows(plan)
    changed = (new_label != label).expand_as(image)
    assert torch.equal(new_image[~changed], image[~changed])
    assert (new_image[changed] != image[changed]).float().mean() > 0.9


# --------------------------------------------------------------------------------------------------- styles


def test_style_measures_what_was_put_in():
    _, mask = crops(1, 48)
    style = torch.zeros(1, 3, 4, 3)
    style[..., 0] = torch.arange(12).view(3, 4) / 4
    style[..., 1] = torch.linspace(-1, 0.5, 12).view(3, 4)
    available = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    mean, std, fine = style_maps(style, mask, torch.ones(1, 4))
    image = mean + std * torch.randn(1, 4, 48, 48, 48, generator=torch.Generator().manual_seed(0))
    measured = lesion_style(image, mask)
    torch.testing.assert_close(measured[..., :2], style[..., :2], atol=0.06, rtol=0)
    for full, partial in zip((mean, std, fine), style_maps(style, mask, available), strict=True):
        assert (full * (1 - mask.sum(1, keepdim=True))).abs().sum() == 0
        assert torch.equal(partial, full * available[:, :, None, None, None])


def test_moving_average_is_the_pooled_one_and_composes():
    x = torch.randn(1, 2, 20, 18, 16, generator=torch.Generator().manual_seed(0))
    inside = (slice(None), slice(None), *[slice(4, -4)] * 3)
    pooled = torch.nn.functional.avg_pool3d(x, 9, stride=1, padding=4)
    torch.testing.assert_close(moving_average(moving_average(x), dilation=3)[inside], pooled[inside])
    assert fine_detail(torch.full((1, 1, 8, 8, 8), 3.0)).abs().max() < 1e-5


def test_prior_draws_as_the_patients_were():
    rng = torch.Generator().manual_seed(0)
    patients = 2 + 0.5 * torch.randn(400, 2, 1, 3, generator=rng)
    patients[:, 1] = patients[:, 0] + 0.1 * patients[:, 1]
    prior = StylePrior(2, 1)
    prior.fit(patients, torch.ones(400, 2), shrinkage=0.0)
    drawn = prior.sample(torch.randn(4000, prior.noise_size(), generator=rng)).flatten(1)
    wanted = patients.flatten(1)
    torch.testing.assert_close(drawn.mean(0), wanted.mean(0), atol=0.06, rtol=0)
    assert (drawn.std(0) / wanted.std(0)).sub(1).abs().max() < 0.12
    assert abs(torch.corrcoef(drawn.T)[0, 3] - torch.corrcoef(wanted.T)[0, 3]) < 0.05


def test_prior_leaves_classes_out_that_a_patient_lacks():
    styles = torch.zeros(4, 2, 1, 3)
    styles[0, 1] = 1000  # meaningless: this patient has no second class
    present = torch.ones(4, 2)
    present[0, 1] = 0
    prior = StylePrior(2, 1)
    prior.fit(styles, present)
    assert prior.mean.abs().max() == 0
    with pytest.raises(ValueError, match="every class"):
        prior.fit(styles, torch.tensor([[1.0, 0.0]]).expand(4, 2))
    with pytest.raises(ValueError, match="two patients"):
        prior.fit(styles[:1], present[:1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 30))
def test_a_class_is_present_from_24_voxels_on(count):
    mask = torch.zeros(1, 1, 4, 4, 4)
    mask.view(-1)[:count] = 1
    assert bool(present_classes(mask)[0, 0]) == (count >= 24)


def test_the_painting_starts_with_noise_of_the_spread_asked_for():
    noise = torch.randn(40, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    start = painter._coarse(noise, (64, 64, 64))
    assert abs(start.std() - 1) < 0.05
    assert fine_detail(start).std() < 0.05, "the network draws the texture, not the start"


def test_the_critic_sees_classes_and_each_scale():
    torch.manual_seed(0)
    critic = PatchCritic(4, 3, (8, 8, 16))
    context, mask = crops(2)
    logits, features = critic(context, mask, torch.ones(2, 4))
    assert [tuple(x.shape[1:]) for x in logits] == [(1, 16, 16, 16), (1, 8, 8, 8), (1, 4, 4, 4)]
    assert [x.shape[1] for x in features] == [8, 8, 16]
    others, _ = critic(context, mask.roll(1, 1), torch.ones(2, 4))
    assert all(not torch.allclose(a, b) for a, b in zip(logits, others, strict=True))


# ---------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path):
    save_generator(toy_gan(truncation=0.5), tmp_path / "g", dtype=torch.float32)
    return tmp_path / "g"


def test_saved_and_loaded_it_paints_the_same(folder):
    loaded, (context, mask) = load_generator(folder), crops(1)
    assert torch.equal(loaded.generate(context, mask, [1]), toy_gan(truncation=0.5).generate(context, mask, [1]))
    assert (loaded.channels, loaded.classes, loaded.truncation) == (CHANNELS, BRATS18.names, 0.5)


def test_half_precision_weights_paint_almost_the_same(tmp_path):
    save_generator(toy_gan(), tmp_path)
    context, mask = crops(1)
    whole, half = toy_gan().generate(context, mask, [1]), load_generator(tmp_path).generate(context, mask, [1])
    assert (whole - half).abs().max() < 0.02 * whole.std()


def test_loading_leaves_the_global_state_alone(folder):
    state = torch.get_rng_state()
    load_generator(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_unknown_names_and_missing_files(folder):
    with pytest.raises(FileNotFoundError, match="no generator 'brain-gan'"):
        load_generator("brain-gan")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: not there"):
        load_generator(folder)


def test_damaged_weights(folder):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_generator(folder)
    file.write_bytes(content)
    state = load_file(file)
    state["painter.head.weight"][0] = torch.nan
    save_file(state, file)
    with pytest.raises(ValueError, match=r"painter\.head\.weight.*not finite"):
        load_generator(folder)


def test_weights_of_another_architecture(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"painter": {"widths": [8, 8, 8, 16], "head": 9}}))
    with pytest.raises(ValueError, match=r"another architecture.*expected the shape \(16.*got \(8"):
        load_generator(folder)
    file.write_text(json.dumps(config | {"architecture": "something-else"}))
    with pytest.raises(ValueError, match=r"'synthaug-painter-1' or .*, got 'something-else'"):
        load_generator(folder)
    file.write_text(json.dumps({"architecture": "synthaug-painter-1"}))
    with pytest.raises(ValueError, match="channels, classes, crop_sizes"):
        load_generator(folder)
    file.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_generator(folder)


def test_weights_of_other_classes_or_channels(folder):
    assert load_generator(folder, channels=("t2",), classes=("ET",)).classes == BRATS18.names
    with pytest.raises(ValueError, match=r"NCR, ED, ET; asked for RC"):
        load_generator(folder, classes=("ET", "RC"))
    with pytest.raises(ValueError, match=r"flair, t1, t1ce, t2; asked for ct"):
        load_generator(folder, channels=("ct",))


@pytest.mark.parametrize("cubic", [False, True])
def test_each_axis_of_a_crop_has_the_least_side_that_will_do(cubic):
    generator = toy_gan()
    generator.cubic = cubic
    flat = LesionShapes(diameter_mm=30.0, irregularity=0.0)
    image, label = toy_batch(1, size=(96, 96, 96), labelled=False)
    insert = toy_insertion(generator, flat, tissue_share=0.5, rotate90=False)
    [row] = insert.plan(image, label, (1.0, 1.0, 3.0)).to_rows()
    assert row["outcome"] == "done"
    assert row["crop_vox"] == ([48, 48, 48] if cubic else [48, 48, 32])
    new, _ = insert(image, label, (1.0, 1.0, 3.0))
    assert not torch.equal(new, image)


def test_a_painter_may_be_thinner_inside_its_blocks(tmp_path):
    hidden = (4, 8, 8, 8, 4, 4, 8)
    thin = GANGenerator(Painter(4, 3, (8, 8, 8, 8), head=9, hidden=hidden), StylePrior(3, 4), CHANNELS, BRATS18.names)
    assert thin.painter.encode[0].first.out_channels == 4 and thin.painter.decode[1].second.in_channels == 4
    save_generator(thin, tmp_path)
    context, mask = crops(1)
    same = load_generator(tmp_path, precision="fp32")
    assert same.painter.hidden == hidden
    thin.precision = "fp32"
    torch.testing.assert_close(same.generate(context, mask, [1]), thin.generate(context, mask, [1]), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match=r"hidden: expected 7 numbers, got \(4, 8\)"):
        Painter(4, 3, (8, 8, 8, 8), head=9, hidden=(4, 8))
