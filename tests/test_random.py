"""Random streams are functions of their names, and nothing global is touched."""

import itertools

import numpy as np
import torch

from synthaug.random import Purpose, device_stream, sample_stream, seed_for, seeded_noise, step_seed, stream


def test_a_name_has_one_stream_and_no_two_names_share_one():
    names = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (Purpose.PLACE, 0), (0, Purpose.PLACE)]
    first = [tuple(stream(*name).random(4)) for name in names]
    assert first == [tuple(stream(*name).random(4)) for name in names]
    # a trailing 0 is padding to NumPy; names of one purpose have one length
    assert len({draws for name, draws in zip(names, first, strict=True) if name[-1]}) == 3
    seeds = {seed_for(7, purpose) for purpose in Purpose} | {7}
    assert len(seeds) == len(Purpose) + 1


def test_steps_ranks_and_samples_do_not_meet():
    seeds = [step_seed(s, t, r) for s, t, r in itertools.product((0, 1), range(50), (0, 1, 4095))]
    assert len({*seeds}) == len(seeds)
    draws = [float(torch.rand((), generator=sample_stream(3, n))) for n in range(-20, 20)]
    assert len({*draws}) == 40 and draws[0] == float(torch.rand((), generator=sample_stream(3, -20)))


def test_noise_of_a_seed_depends_on_no_other_and_nothing_global_moves():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    both, alone = seeded_noise([4, 5], (3, 2), torch.device("cpu")), seeded_noise([5], (3, 2), torch.device("cpu"))
    assert torch.equal(both[1], alone[0]) and not torch.equal(both[0], both[1])
    assert torch.equal(torch.randn(3, 2, generator=device_stream(5)), alone[0])
    stream(1).random(5)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
