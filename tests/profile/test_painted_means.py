"""Means of painted classes: in fixed units no class comes out darker or brighter on average than in any donor."""

import numpy as np
import pytest
import torch
from limbs import SPACING, limb

from synthaug import TumorInsertion
from synthaug.generators.base import TumorGenerator
from synthaug.insertion.means import bounds_of, held


class Dark(TumorGenerator):
    """Paints one value, in model intensities, everywhere."""

    value = -9.0

    def generate(self, context, classes, seeds, donor=None):
        return torch.full_like(context, self.value)


def test_the_least_shift_brings_a_mean_within_bounds():
    painted, mask = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)
    mask[0, :2], mask[1, 2:] = 1, 1
    painted[0, :2], painted[0, 2:], painted[1, 0] = -3.0, 0.5, 2.0
    bounds = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]], [[1.0, 0.5], [1.0, 1.0]]])
    after = held(painted, mask, bounds)
    assert torch.equal(after[0, :2], torch.full((2, 4, 4), -1.0)) and torch.equal(after[0, 2:], painted[0, 2:])
    assert after[1, :2].mean() == pytest.approx(0.5) and after[1, 0, 0, 0] - after[1, 1, 0, 0] == pytest.approx(2.0)
    assert held(painted, torch.zeros_like(mask), bounds).equal(painted)  # a class that is not there


def test_a_dark_generator_is_brought_to_the_donors_in_hounsfield_units(limbs_fitted):
    options = {"prob": 1.0, "second": 0.0, "scale": 0.8, "edge_vox": 0.0, "clearance_mm": 1}
    insert = TumorInsertion.from_profile(limbs_fitted.out, generator=Dark(), **options)
    bank = limbs_fitted.bank
    donors = [float(bank.class_statistics(lesion.name, [0])[0][0, 0]) for lesion in bank]
    mean, std = insert.space.units.statistics(("ct",))[0]
    done = 0
    for seed in range(20, 26):
        image, tumour, _ = limb(seed)
        given = torch.from_numpy(image.astype(np.float32))[None, None]
        label = torch.from_numpy(tumour.astype(np.int16))[None, None]
        whole = (image[None].astype(np.float32), tumour.astype(np.int16), ("ct",), insert.classes, SPACING)
        new, new_label = insert(given, label, SPACING, host=insert.space.host_of(*whole)[None])
        changed = new_label != label
        if changed.any():
            done += 1
            assert float(new[changed].mean()) == pytest.approx(min(donors) * std + mean, abs=1.0)
    assert done >= 2


def test_z_scores_and_masks_alone_know_no_bounds(limbs_fitted):
    bank, classes = limbs_fitted.bank, limbs_fitted.profile.classes
    assert bounds_of(bank, classes, ("ct",), None) is None and bounds_of(bank, classes, ("pet",), [None]) is None
    free = bounds_of(bank, classes, ("ct",), [None])
    assert free.shape == (2, 1, 1) and torch.isinf(free).all()
