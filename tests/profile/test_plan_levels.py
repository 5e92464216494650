"""Strides and kernels of a plan are those that nnU-Net would choose."""

import pytest

from synthaug.profile.plan import levels


@pytest.mark.parametrize(
    ("spacing", "patch"), [((1, 1, 1), (128, 160, 112)), ((0.8, 0.8, 3), (160, 160, 48)), ((1, 2, 5), (96, 64, 20))]
)
def test_levels_are_those_of_nnunet(spacing, patch):
    topology = pytest.importorskip("nnunetv2.experiment_planning.experiment_planners.network_topology")
    _, strides, kernels, size, _ = topology.get_pool_and_conv_props(spacing, patch, 4, 999)
    ours = levels(spacing, patch)
    assert [list(s) for s in ours[0]] == [list(s) for s in strides]
    assert [list(k) for k in ours[1]] == [list(k) for k in kernels]
    assert list(ours[2]) == list(size)
