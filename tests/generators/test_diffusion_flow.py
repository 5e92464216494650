"""The diffusion generator's path, its noise, and its samplers on problems whose solution is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_diffusion import drawn, scene_of

from synthaug.generators.learned.flow import (
    SMOOTH_DETAIL,
    Scene,
    channel_mixing,
    loss_weight,
    noise_shapes,
    on_path,
    preconditioning,
    smooth_noise,
)
from synthaug.generators.learned.samplers import SCHEDULERS, make_scheduler, sample
from synthaug.generators.learned.style import channel_correlations, fine_detail, lesion_style

# ------------------------------------------------------------------------------------------ path and noise


def test_whitening_is_undone_inside_the_lesion_and_leaves_the_host_alone():
    scene, _ = scene_of()
    image = torch.randn(2, 4, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    lesion = scene.lesion.bool().expand_as(image)
    back = scene.image(scene.whitened(image))
    torch.testing.assert_close(back[lesion], image[lesion])
    assert torch.equal(back[~lesion], scene.context[~lesion])


def test_the_path_starts_with_noise_of_the_style_asked_for():
    """Mean, spread and fine texture of the start are those of the style, class by class and channel by channel."""
    scene, style = scene_of(4, 64)
    style[..., 2] += style[:, :1, :, 1] - style[..., 1]  # one mean and spread, or their steps would count as texture
    style[..., :2] = style[:, :1, :, :2]
    scene = Scene.of(scene.context, scene.mask, style, torch.ones(4, 4))
    measured = lesion_style(scene.image(drawn(scene)), scene.mask)
    assert (measured[..., 1] - style[..., 1]).mean(0).abs().max() < 0.2
    assert (measured[..., 2] - style[..., 2]).mean(0)[1:].abs().max() < 0.1, "the first class has noisy neighbours"
    assert ((measured[..., 0] - style[..., 0]) / style[..., 1].exp()).mean().abs() < 0.2


def test_noise_is_as_correlated_between_channels_as_lesions_are():
    """Each class its own correlation of the first two channels, half as strong in the detail."""
    expected = torch.tensor([-0.6, 0.3, 0.8])
    correlations = torch.eye(4).repeat(1, 2, 3, 1, 1)
    for band, strength in ((0, 0.5), (1, 1.0)):
        correlations[0, band, :, 0, 1] = correlations[0, band, :, 1, 0] = strength * expected
    mask = torch.zeros(6, 3, 96, 48, 48)
    for k in range(3):
        mask[:, k, 32 * k : 32 * k + 32] = 1
    mask[..., 40:] = 0
    style = torch.tensor([0.0, 0.0, math.log(0.4)]).expand(6, 3, 4, 3)
    scene = Scene.of(torch.zeros(6, 4, 96, 48, 48), mask, style, torch.ones(6, 4))
    noise, plain = drawn(scene, mixing=channel_mixing(correlations, torch.ones(1, 3), shrinkage=0.0)), drawn(scene)
    inner = mask * (torch.nn.functional.avg_pool3d(mask, 5, 1, 2) > 0.99)
    detail, rest = channel_correlations(noise, inner).mean(0)
    assert (rest[:, 0, 1] - expected).abs().max() < 0.1 and rest[:, 2, 3].abs().max() < 0.1
    assert (detail[:, 0, 1] - expected / 2).abs().max() < 0.15
    assert torch.equal(noise[:, 2:], plain[:, 2:]), "channels without correlations stay as they are"
    assert abs(noise[:, 1].std() / plain[:, 1].std() - 1) < 0.05
    assert (noise * (1 - scene.lesion)).abs().sum() == 0


def test_mixing_of_patients():
    same, other = torch.eye(4).repeat(2, 3, 1, 1), torch.full((2, 3, 4, 4), 0.6)
    other.diagonal(dim1=-2, dim2=-1).fill_(1)
    present = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    mixing = channel_mixing(torch.stack((other, same)), present, shrinkage=0.0)
    found = mixing @ mixing.mT
    assert found[:, 0, 0, 1].tolist() == pytest.approx([0.3, 0.3])
    assert found[:, 1, 0, 1].tolist() == pytest.approx([0.6, 0.6])
    assert torch.equal(mixing[:, 2], torch.eye(4).repeat(2, 1, 1))
    torch.testing.assert_close(found.diagonal(dim1=-2, dim2=-1), torch.ones(2, 3, 4))


def test_smooth_noise_has_unit_variance_and_the_detail_it_is_known_for():
    rng = torch.Generator().manual_seed(0)
    noise = smooth_noise([torch.randn((8, *s), generator=rng) for s in noise_shapes(4, (64,) * 3)[1:]])
    inner = noise[..., 16:-16, 16:-16, 16:-16]
    assert abs(inner.std() - 1) < 0.08
    assert abs(fine_detail(noise).std() - SMOOTH_DETAIL) < 0.03


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_preconditioning_leads_from_the_path_to_its_end_with_an_answer_of_unit_variance(t, lesion, noise):
    time = torch.tensor([t])
    skip, scale = (x.flatten() for x in preconditioning(time, torch.zeros(1)))
    u = on_path(torch.full((1, 1, 1, 1, 1), lesion), torch.full((1, 1, 1, 1, 1), noise), time).flatten()
    root = ((1 - t) ** 2 + t**2) ** 0.5
    answer = (t * lesion - (1 - t) * noise) / root  # the rotation of (lesion, noise) that u leaves out
    assert abs(skip * u + scale * answer - lesion) < 1e-4


def test_a_jump_that_changes_nothing_gives_the_noise_itself():
    time, noise = torch.tensor([1.0, 0.25]), torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    skip, scale = preconditioning(time, time)
    state = on_path(noise, noise, time)
    root = ((1 - time).square() + time.square()).sqrt()[:, None, None, None, None]
    torch.testing.assert_close(skip * state, state / root)
    assert scale.flatten().tolist() == pytest.approx([math.pi / 2, math.atan2(0.25, 0.75)])


def test_loss_weights_are_those_of_the_papers():
    time = torch.tensor([0.1, 0.5, 1.0])
    torch.testing.assert_close(loss_weight(time, "flow"), torch.tensor([100.0, 4.0, 1.0]))
    torch.testing.assert_close(loss_weight(time, "min_snr", gamma=5.0), torch.tensor([6.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="flow, min_snr, got 'snr'"):
        loss_weight(time, "snr")


# ------------------------------------------------------------------------------------------------- samplers

MEAN, SPREAD = 1.5, 0.5


def best_denoiser(state, t):
    """E[u_0 | u_t] where u_0 is normal with MEAN and SPREAD."""
    a = 1 - t
    return MEAN + a * SPREAD**2 * (state - a * MEAN) / (a**2 * SPREAD**2 + t**2)


def normal(count=4000):
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_scheduler_solves_the_same_equation(name):
    """For normal data the flow is known: every n goes to MEAN + SPREAD * n, whatever the scheduler's own path."""
    errors = [
        (sample(best_denoiser, normal(), name, steps) - (MEAN + SPREAD * normal())).abs().max() for steps in (10, 100)
    ]
    assert errors[1] < 0.04
    assert errors[1] < errors[0] / 3, "more steps, less error"


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_steps_along_the_angle_are_exact_where_a_lesion_is_like_noise(steps):
    """DDIM's lose spread, which is why few of them paint flat lesions."""

    def normal_denoiser(state, t):
        return (1 - t) / ((1 - t) ** 2 + t**2) * state

    torch.testing.assert_close(sample(normal_denoiser, normal(), steps=steps), normal(), atol=1e-4, rtol=0)
    assert sample(normal_denoiser, normal(), "ddim", steps).std() < 0.8 * normal().std()


def test_the_second_order_solver_needs_fewer_steps():
    exact = MEAN + SPREAD * normal()
    euler, dpm = ((sample(best_denoiser, normal(), name, 8) - exact).abs().max() for name in ("ddim", "dpmsolver++"))
    assert dpm < euler / 3


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_one_call_a_step_from_noise_to_the_last(name, steps):
    times, last = [], []

    def denoise(state, t):
        times.append(t)
        return torch.full_like(state, 7.0)

    def finish(state, t):
        last.append(t)
        return state

    end = sample(denoise, normal(10), name, steps)
    assert len(times) == steps and times[0] > 0.99 and times == sorted(times, reverse=True) and times[-1] > 0
    if name != "flow_match_euler":
        torch.testing.assert_close(end, torch.full((10,), 7.0), atol=1e-4, rtol=0)
    whole = times.copy()
    times.clear()
    sample(denoise, normal(10), name, steps, finish=finish)
    assert times + last == whole and len(last) == 1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_strength_goes_a_share_of_the_path_from_where_it_starts(name):
    times = []

    def denoise(state, t):
        times.append((t, state))
        return state

    start = torch.full((4000,), 3.0)
    sample(denoise, normal(), name, 8, start=start, strength=0.5)
    assert len(times) == 4
    t, state = times[0]
    assert 0.4 < t < 0.6
    torch.testing.assert_close(state, (1 - t) * start + t * normal(), atol=1e-3, rtol=0)


def test_sampling_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"flow_match_euler, ddim, dpmsolver\+\+, got 'euler'"):
        make_scheduler("euler", 4)
    with pytest.raises(ValueError, match="steps"):
        make_scheduler("ddim", 0)
    for strength in (0, 1.5):
        with pytest.raises(ValueError, match="strength"):
            sample(best_denoiser, normal(), strength=strength)
    with pytest.raises(ValueError, match="start from"):
        sample(best_denoiser, normal(), strength=0.5)
