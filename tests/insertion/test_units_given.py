"""Sizes in other units than mm and factors are told, for they would insert nothing at all."""

import pytest
from engine import CHANNELS, toy_bank, toy_batch

from synthaug import TumorInsertion


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scale": (30, 80)}, "such as 0.8 for 80 %"), ({"diameter_mm": (0.1, 0.4)}, "is it cm")],
)
def test_percentages_and_centimetres(options, message):
    with pytest.raises(ValueError, match=message):
        TumorInsertion(toy_bank(), "paste", channels=CHANNELS, **options)


def test_metres():
    insert = TumorInsertion(toy_bank(), "paste", channels=CHANNELS)
    with pytest.raises(ValueError, match="is it metres"):
        insert(*toy_batch(1), (0.001, 0.001, 0.003))
