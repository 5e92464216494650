"""Convolutions, detail in boxes and interpolation of the generators' networks give what PyTorch's own would."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from engine import crops, toy_diffusion, toy_gan
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from synthaug.generators.learned.convolution import (
    Conv3d,
    drawn_detail,
    enlarged,
    filled_boxes,
    joined,
    placed,
    slabs,
    space_to_depth_conv,
)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (2, 2, 0), (3, 1, 1)])
def test_convolution_is_pytorchs(kernel, stride, padding):
    ours = Conv3d(5, 7, kernel, stride, padding)
    theirs = nn.Conv3d(5, 7, kernel, stride, padding)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 5, 12, 8, 10)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    ours(x).sum().backward()
    assert ours.weight.grad.abs().sum() > 0


def test_stem_in_slabs_is_the_whole():
    conv = Conv3d(8 * 3, 6, 1)
    parts = [torch.randn(2, c, 56, 8, 8) for c in (1, 2)]
    assert slabs(parts[0]) == [slice(None)]
    whole = space_to_depth_conv(parts, conv.weight, conv.bias)
    rearranged = rearrange(torch.cat(parts, 1), "n c (x i) (y j) (z k) -> n (c i j k) x y z", i=2, j=2, k=2)
    torch.testing.assert_close(whole, conv(rearranged), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        pieces = [
            space_to_depth_conv([p[:, :, slab] for p in parts], conv.weight, conv.bias) for slab in slabs(parts[0])
        ]
    assert len(pieces) == 3
    torch.testing.assert_close(joined(pieces), whole, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), share=st.floats(0, 0.02))
def test_boxes_hold_all_that_is_set_and_nothing_twice(seed, share):
    where = torch.rand(2, 60, 9, 11, generator=torch.Generator().manual_seed(seed)) < share
    counted = np.zeros(where.shape[1:], int)
    for box in filled_boxes(where):
        counted[box] += 1
        assert where[(slice(None), *box)].any()
    assert counted.max() <= 1 and (counted[where.any(0).numpy()] == 1).all()


def test_detail_in_boxes_is_that_of_the_whole_inside_them():
    head, out = Conv3d(7, 6, 3, padding=1), Conv3d(6, 2, 3, padding=1)
    half = torch.randn(2, 3, 20, 6, 6)
    parts = [torch.randn(2, 1, 40, 12, 12), torch.randn(2, 3, 40, 12, 12)]
    boxes = [(slice(0, 20), slice(3, 9), slice(0, 12)), (slice(24, 31), slice(5, 6), slice(10, 12))]
    with torch.no_grad():
        blank = torch.zeros(2, 2, 40, 12, 12)
        whole, some, none = (
            placed(drawn_detail(half, parts, head, out, given), blank.clone()) for given in (None, boxes, [])
        )
        assert torch.equal(none, blank)
    inside = torch.zeros(40, 12, 12, dtype=torch.bool)
    for box in boxes:
        inside[box] = True
    torch.testing.assert_close(some[..., inside], whole[..., inside], rtol=1e-5, atol=1e-5)
    assert not some[..., ~inside].any() and whole[..., ~inside].all()


@pytest.mark.parametrize("size", [(16, 8, 24), (5, 6, 7)])
def test_enlarged_is_trilinear_interpolation(size):
    image = torch.randn(2, 3, 4, 2, 6)
    expected = F.interpolate(image, size=size, mode="trilinear")
    torch.testing.assert_close(enlarged(image, size), expected, rtol=1e-5, atol=1e-5)
    box = (slice(1, 4), slice(0, size[1]), slice(2, 3))
    torch.testing.assert_close(enlarged(image, size, box), expected[..., *box], rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(enlarged(image, size), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("toy", [toy_gan, toy_diffusion])
def test_a_support_changes_nothing_inside_it(toy):
    context, mask = crops(2, 48)
    context, mask = context[:, :, :32], mask[:, :, :32]
    support = F.max_pool3d(mask.sum(1, keepdim=True), 3, 1, 1)[:, 0] > 0
    mask[1], support[1] = 0, False  # refused
    generator = toy(precision="fp32")
    whole, some = (generator.generate(context, mask, [4, 5], support=given) for given in (None, support))
    inside = support[:, None].expand_as(whole)
    torch.testing.assert_close(some[inside], whole[inside], rtol=1e-4, atol=1e-4)
    assert not torch.equal(some, whole), "nothing was left out"
