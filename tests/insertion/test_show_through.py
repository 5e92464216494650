"""The host's structure under a lesion shows through it, and no more than was asked for."""

import pytest
import torch
from engine import CHANNELS, toy_bank, toy_batch, toy_insertion

from synthaug import BRATS18
from synthaug.insertion.show_through import shares_of, shown_through

SPACING = (1.0, 1.0, 1.0)


def test_it_is_the_host_s_deviation_from_its_mean_under_the_class():
    rng = torch.Generator().manual_seed(0)
    painted, under = (torch.rand(2, 6, 5, 4, generator=rng) for _ in range(2))
    mask = torch.zeros(3, 6, 5, 4)
    mask[0, :3], mask[1, 3:5] = 1, 1
    shares = torch.tensor([[0.5, 0.0], [0.0, 0.25], [1.0, 1.0]])
    new = shown_through(painted, under, mask, shares)
    expected = painted.clone()
    expected[0, :3] += 0.5 * (under[0, :3] - under[0, :3].mean())
    expected[1, 3:5] += 0.25 * (under[1, 3:5] - under[1, 3:5].mean())
    assert torch.allclose(new, expected, atol=1e-5)
    assert torch.equal(new[:, 5], painted[:, 5])
    under[0, 0, 0, 0] = 50.0  # a vessel
    assert (shown_through(painted, under, mask, shares) - painted).abs().max() <= 0.5 * 3


def test_names_are_those_of_the_field_and_unknown_ones_are_errors():
    shares = shares_of({"SNFH": {"T1w": 0.5}, "ET": 0.25}, BRATS18, CHANNELS)
    expected = torch.zeros(3, 4)
    expected[BRATS18.index("ED"), CHANNELS.index("t1")] = 0.5
    expected[BRATS18.index("ET")] = 0.25
    assert torch.equal(shares, expected)
    assert shares_of(None, BRATS18, CHANNELS) is None and shares_of({}, BRATS18, CHANNELS) is None
    with pytest.raises(ValueError, match="show_through: ED: no channel pet; the channels are flair, t1"):
        toy_insertion(show_through={"ED": {"pet": 0.5}})
    with pytest.raises(ValueError, match="oedema"):
        toy_insertion(show_through={"oedema of the liver": 0.5})
    with pytest.raises(ValueError, match=r"show_through\[ED\]: expected a probability in \[0, 1\], got -1"):
        toy_insertion(show_through={"ED": -1})


@pytest.mark.parametrize("generator", ["paste", "procedural"])
def test_a_stripe_of_the_host_is_seen_in_the_class_and_channel_that_were_named(generator):
    image, label = toy_batch(1, labelled=False)
    image[:, :, ::2] += 20.0
    options = {"scale": 1.0, "flip": 0, "rotate90": False, "edge_vox": 0.0}
    plain, new, plan = toy_insertion(generator, toy_bank(1), **options).recorded(image, label, SPACING)
    shown, same, _ = toy_insertion(generator, toy_bank(1), show_through={"ED": {"t1": 1.0}}, **options).recorded(
        image, label, SPACING
    )
    assert torch.equal(new, same) and plan.to_rows()[0]["outcome"] == "done"
    change, oedema = (shown - plain)[0], new[0, 0] == BRATS18.values["ED"]
    t1 = CHANNELS.index("t1")
    assert torch.equal(change[:t1], torch.zeros_like(change[:t1])) and not change[t1 + 1 :].any()
    assert not change[t1][~oedema].any()
    assert abs(float(change[t1][oedema].mean())) < 1.0
    even = torch.zeros_like(oedema)
    even[::2] = True
    stripe = change[t1][oedema & even].mean() - change[t1][oedema & ~even].mean()
    assert 15.0 < float(stripe) < 25.0


def test_a_lesion_under_it_does_not_show():
    image, label = toy_batch(1, labelled=False)
    label[:, :, 10:30, 10:30, 10:30] = 2
    image[:, :, 10:30, 10:20] += 50.0
    options = {"place": "own", "style": "host", "scale": 1.0, "edge_vox": 0.0}
    plain, _, plan = toy_insertion("procedural", toy_bank(1), **options).recorded(image, label, SPACING)
    shown, *_ = toy_insertion("procedural", toy_bank(1), show_through={"ED": 1.0}, **options).recorded(
        image, label, SPACING
    )
    assert plan.to_rows()[0]["outcome"] == "done" and torch.equal(plain, shown)
