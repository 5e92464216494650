"""How lesions end: the fringe into which they fade, and the texture of the soft edge."""

import pytest
import torch
from engine import toy_bank, toy_batch, toy_gan, toy_insertion

from synthaug.geometry import grown
from synthaug.insertion.blending import Edge, blended, donor_tissue

SPACING = (1.0, 1.0, 1.0)
OPTIONS = {"scale": (1.0, 1.0), "elastic_mm": 1.0, "edge_vox": 1.0}


def ball(radius: float, side: int = 40) -> torch.Tensor:
    axes = [torch.arange(side) - side // 2] * 3
    return sum(x**2 for x in torch.meshgrid(*axes, indexing="ij")).sqrt() <= radius


@pytest.mark.parametrize("generator", ["paste", "procedural", "gan"])
def test_a_fringe_changes_the_image_around_the_lesion_and_no_label(generator):
    image, label = toy_batch()
    painter = toy_gan() if generator == "gan" else generator
    plain, same = (toy_insertion(painter, **OPTIONS, **edge)(image, label) for edge in ({}, {"fringe_mm": 3.0}))
    assert torch.equal(plain[1], same[1]) and (plain[1] != label).any()
    for sample in range(len(image)):
        lesion = (same[1] != label)[sample, 0]
        changed = (same[0] != image)[sample].any(0)
        fringe = grown(lesion, 3.0, SPACING) & (label[sample, 0] == 0) & (image[sample] != 0).any(0)
        assert not changed[~(fringe | lesion)].any(), "bits outside are the host's"
        assert changed[fringe & ~lesion].float().mean() > 0.9
        assert not (plain[0] != image)[sample].any(0)[~lesion].any()


def test_a_donor_brings_its_own_surroundings():
    image, label = toy_batch(1)
    still = {"scale": (1.0, 1.0), "flip": 0.0, "rotate90": False, "edge_vox": 0.0}
    after, new, plan = toy_insertion(lesions=toy_bank(1), fringe_mm=2.0, **still).recorded(image, label, SPACING)
    lesion = (new != label)[0, 0]
    fringe = grown(lesion, 2.0, SPACING) & ~lesion & (image[0] != 0).any(0)
    # the toy donor lies in noise of its own, of other numbers than the host's
    halo, _ = toy_insertion(lesions=toy_bank(1), halo_mm=2.0, **still).apply(image, label, plan)
    # where its noise is as dark as background, the host's tissue stays
    assert (after == halo)[0].all(0)[fringe].float().mean() > 0.9
    assert (after != image)[0].all(0)[fringe].float().mean() > 0.9


def test_no_background_comes_with_a_donor():
    mask = ball(6).to(torch.uint8)
    donor = torch.zeros(2, 40, 40, 40)
    donor[1, 28:], donor[:, 20, 20, 20] = -4.5, -4.5
    shown = donor_tissue(donor, mask)
    assert not shown[27:].any() and shown[:27].all(), "a lesion may be dark"


def test_painters_are_given_the_lesion_grown_by_its_fringe_in_the_class_that_lies_next():
    mask = torch.where(ball(3), 3, torch.where(ball(6), 1, 0)).to(torch.uint8)
    mask[:20] = torch.where(mask[:20] > 0, 2, 0).to(torch.uint8)
    edge = Edge(fringe_mm=3.0)
    support = edge.support(mask, torch.ones_like(mask, dtype=torch.bool), SPACING)
    shown = edge.shown(mask, support, 3, SPACING)
    assert torch.equal(support, grown(mask > 0, 3.0, SPACING)) and torch.equal(shown > 0, support)
    assert torch.equal(shown[mask > 0], mask[mask > 0])
    assert shown[20 + 8, 20, 20] == 1 and shown[20 - 8, 20, 20] == 2
    blocked = edge.support(mask, torch.zeros_like(mask, dtype=torch.bool), SPACING)
    assert torch.equal(edge.shown(mask, blocked, 3, SPACING), mask), "nothing grows where it is not free"


def test_one_ramp_leads_over_the_fringe_and_the_edge():
    edge = Edge(fringe_mm=3.0, vox=1.0)
    mask = torch.zeros(40, 40, 40, dtype=torch.uint8)
    mask[10:30, 10:30, 10:30] = 1
    weight = edge.weight(edge.support(mask, torch.ones_like(mask, dtype=torch.bool), SPACING), SPACING)
    along = weight[4:13, 20, 20].tolist()
    assert along == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1])
    donors = Edge(fringe_mm=3.0, vox=1.0, donor=True)
    weight = donors.weight(donors.support(mask, torch.ones_like(mask, dtype=torch.bool), SPACING), SPACING)
    assert weight[4:13, 20, 20].tolist() == pytest.approx([0, 0, 0, 0.5, 1, 1, 1, 1, 1]), "they fade by themselves"


def test_the_soft_edge_keeps_the_strength_of_texture_on_request():
    rng = torch.Generator().manual_seed(0)
    host, painted = torch.randn(2, 2, 40, 40, 40, generator=rng)
    support = torch.ones(40, 40, 40, dtype=torch.bool)
    half, floor = torch.full((40, 40, 40), 0.5), torch.full((2,), -100.0)
    lost, kept = (blended(host, 3 + painted, half, support, floor, texture) for texture in (False, True))
    assert lost.std() == pytest.approx(0.5**0.5, rel=0.02) and kept.std() == pytest.approx(1.0, rel=0.03)
    assert kept.mean() == pytest.approx(float(lost.mean()), abs=0.01), "means stay"
    # deep inside, where nothing is mixed, the lesion is as it was painted
    whole = torch.ones_like(half)
    assert torch.equal(
        blended(host, painted, whole, support, floor, True), blended(host, painted, whole, support, floor)
    )


def test_hosts_own_lesions_have_fringes_of_their_own():
    with pytest.raises(ValueError, match="mass_effect_mm, smooth_mm and fringe_mm are for others"):
        toy_insertion("procedural", toy_bank(1), place="own", fringe_mm=2.0)
