"""Slices through a lesion, and classes tinted on them."""

import io

import numpy as np
from PIL import Image

from synthaug.figures.slices import jpeg, through, tinted


def test_slices_lie_inside_the_lesion_in_order():
    mask = np.zeros(40, bool)
    mask[10:31] = True
    assert through(mask, 4) == [14, 18, 22, 26]
    assert through(mask[10:11]) == [0] and through(mask[:5]) == []


def test_a_tint_covers_its_class_alone():
    label = np.array([[0, 1], [2, 0]])
    picture = tinted(np.full((4, 4), 100, np.uint8), label, {1: "#ff0000"}, 2)
    assert (picture[:2, 2:] == [158, 62, 62]).all()
    assert (picture[2:] == 100).all() and (picture[:2, :2] == 100).all()
    assert Image.open(io.BytesIO(jpeg(picture))).size == (4, 4)
